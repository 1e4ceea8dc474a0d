"""Which texts this node was asked to fold lately: what a question without a handle is held against.

A small file of JSON; the originals are in the content store. Losing it loses no original: whoever
has the handle still gets it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from kowalski.mesh.private_files import write_private
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import ContentHash

log = structlog.get_logger(__name__)

FOLDS_MAX: Final = 256
NAME_CHARS_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class KnownFold:
    """`name` is the file that it came from, or how the text begins; `at_s` in Unix seconds."""

    handle: ContentHash
    bytes: int
    name: str
    at_s: float


class FoldBook:
    def __init__(self, path: Path, unix_clock: Callable[[], float]) -> None:
        self._path = path
        self._unix_clock = unix_clock
        self._known: dict[ContentHash, KnownFold] = _read(path)

    def newest_first(self) -> tuple[KnownFold, ...]:
        return tuple(sorted(self._known.values(), key=lambda one: (-one.at_s, one.handle)))

    def add(self, handle: ContentHash, size: int, name: str) -> None:
        """Folded just now, perhaps once more."""
        name = " ".join(name[: 2 * NAME_CHARS_MAX].split())[:NAME_CHARS_MAX]
        self._known[handle] = KnownFold(handle, size, name, self._unix_clock())
        for old in self.newest_first()[FOLDS_MAX:]:
            del self._known[old.handle]
        self._write()

    def forget(self, handles: frozenset[ContentHash]) -> None:
        """Their originals are gone."""
        if handles & self._known.keys():
            self._known = {key: one for key, one in self._known.items() if key not in handles}
            self._write()

    def _write(self) -> None:
        told = [asdict(one) for one in self.newest_first()]
        try:
            write_private(self._path, json.dumps(told, indent=1, ensure_ascii=False).encode())
        except ConfigError as error:
            log.warning("fold-book-not-written", why=str(error))


def _read(path: Path) -> dict[ContentHash, KnownFold]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        known = [
            KnownFold(ContentHash(row["handle"]), int(row["bytes"]), str(row["name"]), row["at_s"])
            for row in rows[:FOLDS_MAX]
            if isinstance(row["handle"], str) and isinstance(row["at_s"], int | float)
        ]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.warning("fold-book-unreadable", path=str(path), why=str(error))
        return {}
    return {one.handle: one for one in known}
