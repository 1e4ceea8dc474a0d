"""Reads the files that cells left behind, out of a folder whose content is hostile.

Every step is relative to an open folder and follows no link; a pipe cannot block it, a hard link
gives nothing that the session could not read, a device is not a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kowalski.node.repl.seam import Artefact

_DEPTH_MAX = 16
_ENTRIES_MAX = 20_000
_NAME_CHARS_MAX = 1024
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def collect_artefacts(folder: Path, *, files_max: int, bytes_max: int) -> tuple[Artefact, ...]:
    """Regular files below `folder`, sorted by name, as many as fit both limits; blocks on disk.

    A file that does not fit any more is left out, and so is one whose name is no text.

    Raises:
        OSError: `folder` itself cannot be opened.
    """
    found: list[Artefact] = []
    remaining = bytes_max
    root = os.open(folder, _OPEN_FOLDER)
    try:
        for name in sorted(_names(root)):
            if len(found) >= files_max:
                break
            content = _content(root, name, remaining)
            if content is not None:
                remaining -= len(content)
                found.append(Artefact(name, content))
    finally:
        os.close(root)
    return tuple(found)


def read_inside(root: Path, path: str, *, bytes_max: int) -> bytes | None:
    """The regular file at `path` as seen from inside, where `root` is the root folder there.

    None where there is none, or it is larger. Blocks on disk.
    """
    first, _, rest = path.lstrip("/").partition("/")
    try:
        folder = os.open(root / first, _OPEN_FOLDER)
    except OSError:
        return None
    try:
        return _content(folder, rest, bytes_max) if rest else None
    finally:
        os.close(folder)


def _names(root: int) -> Iterator[str]:
    """Relative paths of what may be files; not followed, not opened."""
    waiting = [""]
    entries = 0
    while waiting and entries < _ENTRIES_MAX:
        parent = waiting.pop()
        try:
            folder = _open_below(root, parent)
        except OSError:
            continue
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    entries += 1
                    name = f"{parent}/{entry.name}" if parent else entry.name
                    if entries > _ENTRIES_MAX:
                        break
                    if len(name) > _NAME_CHARS_MAX or not _is_text(name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if name.count("/") < _DEPTH_MAX:
                            waiting.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        yield name
        finally:
            os.close(folder)


def _content(root: int, name: str, bytes_max: int) -> bytes | None:
    parent, _, last = name.rpartition("/")
    try:
        folder = _open_below(root, parent)
    except OSError:
        return None
    try:
        fd = os.open(last, _OPEN_FILE, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    with os.fdopen(fd, "rb") as file:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1 or about.st_size > bytes_max:
            return None
        # It may still grow while we read.
        content = file.read(bytes_max + 1)
    return content if len(content) <= bytes_max else None


def _open_below(root: int, path: str) -> int:
    """Open the folder `path` below `root`, one component at a time."""
    folder = os.open(".", _OPEN_FOLDER, dir_fd=root)
    for part in path.split("/") if path else ():
        try:
            below = os.open(part, _OPEN_FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
