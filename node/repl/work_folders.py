"""What a session stores: on file systems of its own, or in folders of the host, which are watched.

The content of a working folder is hostile: nothing here follows a link, recurses, or believes that
a tree has an end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_OWN = ("tmp", "job", "dev/shm")
_DEPTH_MAX = 64
_BLOCK_BYTES = 512
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REMOVE_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class StorageUse:
    """`stored_bytes` counts only what no sized file system bounds."""

    inodes: int = 0
    stored_bytes: int = 0


class Storage(Protocol):
    def use(self, root: Path | None, pids: Sequence[int], *, inodes_max: int) -> StorageUse:
        """What is stored now: by the session whose root folder is `root`, with these processes.

        Above `inodes_max` it counts no further.
        """
        ...


class OwnFileSystems:
    """Sized ones, gone with the session; what counts is how many files they hold."""

    def use(
        self,
        root: Path | None,
        pids: Sequence[int],  # noqa: ARG002 - a file system knows
        *,
        inodes_max: int,  # noqa: ARG002 - all at once
    ) -> StorageUse:
        """See `Storage.use`."""
        inodes = 0
        for name in _OWN if root is not None else ():
            with contextlib.suppress(OSError):
                found = os.statvfs(f"{root}/{name}")
                inodes = max(inodes, found.f_files - found.f_ffree)
        return StorageUse(inodes)


@dataclass(frozen=True, slots=True)
class WorkFolders:
    """Folders of the host, and files without a name that a process still holds open."""

    folders: tuple[Path, ...]

    def use(
        self,
        root: Path | None,  # noqa: ARG002 - they are the host's
        pids: Sequence[int],
        *,
        inodes_max: int,
    ) -> StorageUse:
        """See `Storage.use`."""
        inodes = stored = 0
        devices: set[int] = set()
        for folder in self.folders:
            with contextlib.suppress(OSError):
                devices.add(folder.stat().st_dev)
                found = _below(folder, inodes_max)
                inodes += found.inodes
                stored += found.stored_bytes
        for about in _nameless(pids, devices) if self.folders else ():
            inodes += 1
            stored += about.st_blocks * _BLOCK_BYTES
        return StorageUse(inodes, stored)


def _below(folder: Path, inodes_max: int) -> StorageUse:
    """Everything below. A tree that is too deep or too wide counts as full, and is left at that."""
    inodes = stored = 0
    root = os.open(folder, _OPEN_FOLDER)
    # At most as many descriptors as levels: a folder may hold thousands of others.
    open_folders = [(root, iter(os.listdir(root)))]  # noqa: PTH208
    try:
        while open_folders:
            fd, names = open_folders[-1]
            name = next(names, None)
            if name is None:
                os.close(fd)
                open_folders.pop()
                continue
            inodes += 1
            if inodes > inodes_max or len(open_folders) > _DEPTH_MAX:
                return StorageUse(sys.maxsize, stored)
            with contextlib.suppress(OSError):
                about = os.stat(name, dir_fd=fd, follow_symlinks=False)
                stored += about.st_blocks * _BLOCK_BYTES
                if stat.S_ISDIR(about.st_mode):
                    below = os.open(name, _OPEN_FOLDER, dir_fd=fd)
                    open_folders.append((below, iter(os.listdir(below))))  # noqa: PTH208
    finally:
        for fd, _ in open_folders:
            os.close(fd)
    return StorageUse(inodes, stored)


def _nameless(pids: Sequence[int], devices: set[int]) -> Iterator[os.stat_result]:
    """Open regular files on these devices that no folder leads to any more, each once."""
    seen: set[tuple[int, int]] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    about = os.stat(f"/proc/{pid}/fd/{fd}")  # noqa: PTH116
                    key = (about.st_dev, about.st_ino)
                    is_nameless = stat.S_ISREG(about.st_mode) and about.st_nlink == 0
                    if is_nameless and about.st_dev in devices and key not in seen:
                        seen.add(key)
                        yield about


def remove_tree(folder: Path) -> None:
    """Remove `folder`, whatever a session has made below it; blocks on disk, never raises."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        # Folders without rights, or thousands of them in one another: these walk without recursion,
        # and follow no link that they meet.
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(
                    [*command, "--", str(folder)],
                    check=False,
                    timeout=_REMOVE_S_MAX,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
