"""Reads the files that cells left behind, out of a folder whose content is hostile.

Every step is relative to an open folder and follows no link; a pipe cannot block it, a hard link
gives nothing that the session could not read, a device is not a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from kowalski.node.repl.seam import Artefact, Collected
from kowalski.protocol.limits import WORK_FILE_CHARS_MAX
from kowalski.protocol.messages.repl import stays_below

_DEPTH_MAX = 16
_ENTRIES_MAX = 20_000
_GLANCE_ENTRIES = 64
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


Stamp = tuple[int, int, int]
"""Which file it was, its size, and when it was changed last."""

_UNNAMED = ""
"""Stands for everything whose name cannot be told."""

NOTHING_KNOWN: Mapping[str, Stamp] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Found:
    collected: Collected
    stamps: Mapping[str, Stamp]
    """Of everything that is there now."""


def collect_artefacts(
    folder: Path, *, files_max: int, bytes_max: int, known: Mapping[str, Stamp] = NOTHING_KNOWN
) -> Found:
    """Regular files below `folder`, sorted by name, as many as fit both limits; blocks on disk.

    A file that is as it was `known` is left out, and so is one whose name is hidden. What does not
    fit any more is counted, and so are files and folders whose names are no plain text, or too
    deep.

    Raises:
        OSError: `folder` itself cannot be opened.
    """
    found: list[Artefact] = []
    stamps: dict[str, Stamp] = {}
    remaining, omitted = bytes_max, 0
    root = os.open(folder, _OPEN_FOLDER)
    try:
        names, unnamed = _names(root)
        if unnamed:
            stamps[_UNNAMED] = (0, unnamed, 0)
            omitted = 0 if known.get(_UNNAMED) == stamps[_UNNAMED] else unnamed
        for name in sorted(names):
            opened = _open_file(root, name)
            if opened is None:
                continue
            with os.fdopen(opened, "rb") as file:
                about = os.fstat(opened)
                stamps[name] = (about.st_ino, about.st_size, about.st_mtime_ns)
                if known.get(name) == stamps[name]:
                    continue
                # It may still grow while we read.
                fits = len(found) < files_max and about.st_size <= remaining
                content = file.read(remaining + 1) if fits else b""
            if fits and len(content) <= remaining:
                remaining -= len(content)
                found.append(Artefact(name, content))
            else:
                omitted += 1
    finally:
        os.close(root)
    return Found(Collected(tuple(found), omitted), stamps)


def is_bare(folder: Path) -> bool:
    """Whether there is surely nothing in it that could be collected: a glance, no more."""
    try:
        with os.scandir(folder) as listing:
            seen = [entry.name for entry in islice(listing, _GLANCE_ENTRIES)]
    except OSError:
        return True
    return len(seen) < _GLANCE_ENTRIES and all(map(_is_hidden, seen))


def read_inside(root: Path, path: str, *, bytes_max: int) -> bytes | None:
    """The regular file at `path` as seen from inside, where `root` is the root folder there.

    None where there is none, or it is larger. Blocks on disk.
    """
    first, _, rest = path.lstrip("/").partition("/")
    if not stays_below(path.lstrip("/")):
        return None
    try:
        folder = os.open(root / first, _OPEN_FOLDER)
    except OSError:
        return None
    try:
        return _content(folder, rest, bytes_max) if rest else None
    finally:
        os.close(folder)


def _names(root: int) -> tuple[list[str], int]:
    """Relative paths of what may be files, not followed, not opened; and how many have none."""
    names: list[str] = []
    waiting = [""]
    entries = unnamed = 0
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
                    is_folder = entry.is_dir(follow_symlinks=False)
                    if _is_hidden(entry.name) or not (
                        is_folder or entry.is_file(follow_symlinks=False)
                    ):
                        continue
                    if not _is_plain(name) or (is_folder and name.count("/") >= _DEPTH_MAX):
                        unnamed += 1
                    elif is_folder:
                        waiting.append(name)
                    else:
                        names.append(name)
        finally:
            os.close(folder)
    return names, unnamed


def _content(root: int, name: str, bytes_max: int) -> bytes | None:
    fd = _open_file(root, name)
    if fd is None:
        return None
    with os.fdopen(fd, "rb") as file:
        content = file.read(bytes_max + 1)
    return content if len(content) <= bytes_max else None


def _open_file(root: int, name: str) -> int | None:
    """A regular file with this one name, or None."""
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
    about = os.fstat(fd)
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
        return fd
    os.close(fd)
    return None


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


def _is_hidden(name: str) -> bool:
    """What programs keep for themselves."""
    return name.startswith(".") or name == "__pycache__"


def _is_plain(name: str) -> bool:
    return len(name) <= WORK_FILE_CHARS_MAX and stays_below(name)
