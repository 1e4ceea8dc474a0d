"""Which models this node fetched, and when each was last used: what an eviction goes by.

A small file of JSON. Losing it makes the node forget that it may delete what it fetched; no more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from kowalski.mesh.private_files import write_private
from kowalski.protocol.errors import ConfigError

log = structlog.get_logger(__name__)

MODELS_MAX: Final = 1000
SAVE_GAP_S: Final = 60.0
"""A use is written down no more often than that."""


class ModelBook:
    """`path` None: nothing is kept."""

    def __init__(self, path: Path | None, unix_clock: Callable[[], float]) -> None:
        self._path = path
        self._unix_clock = unix_clock
        self._used: dict[str, float] = {}
        self._pulled: set[str] = set()
        self._saved_at = 0.0
        if path is not None:
            self._load(path)

    def used_at_s(self, model: str) -> float:
        """Unix seconds of the last use; 0 if it was never used here."""
        return self._used.get(model, 0.0)

    def is_pulled(self, model: str) -> bool:
        return model in self._pulled

    def use(self, model: str) -> None:
        self._used[model] = self._unix_clock()
        while len(self._used) > MODELS_MAX:
            del self._used[min(self._used, key=self._used.__getitem__)]
        if self._unix_clock() - self._saved_at >= SAVE_GAP_S:
            self._save()

    def pulled(self, model: str) -> None:
        """It was fetched by this node, just now."""
        if len(self._pulled) < MODELS_MAX:
            self._pulled.add(model)
        self._used[model] = self._unix_clock()
        self._save()

    def removed(self, model: str) -> None:
        self._pulled.discard(model)
        self._used.pop(model, None)
        self._save()

    def _load(self, path: Path) -> None:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            self._pulled = {str(name) for name in told["pulled"][:MODELS_MAX]}
            self._used = {str(name): float(at) for name, at in told["used"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("model-book-unreadable", path=str(path), why=str(error))

    def _save(self) -> None:
        if self._path is None:
            return
        self._saved_at = self._unix_clock()
        told = {"pulled": sorted(self._pulled), "used": dict(sorted(self._used.items()))}
        try:
            write_private(self._path, json.dumps(told, indent=1).encode())
        except ConfigError as error:
            log.warning("model-book-not-written", why=str(error))
