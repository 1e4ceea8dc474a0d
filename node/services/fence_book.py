"""The fences of a node: one book for all rooms that hear terms of tasks."""

from __future__ import annotations

from collections.abc import Callable

from kowalski.node.core.fences import Fences, TaskKey
from kowalski.protocol.errors import RequestRefusedError


class FenceBook:
    def __init__(self) -> None:
        self._fences: Fences[TaskKey] = Fences()
        self._listeners: list[Callable[[TaskKey, int], None]] = []

    def listen(self, listener: Callable[[TaskKey, int], None]) -> None:
        """Call `listener`, which must not block, whenever a term is heard that is new here."""
        self._listeners.append(listener)

    def check(self, key: TaskKey, term: int) -> None:
        """Raises RequestRefusedError: `stale`, a higher term was heard."""
        highest = self._fences.highest(key)
        if term < highest:
            raise RequestRefusedError("stale", f"term {term}, {highest} was heard")

    def hear(self, key: TaskKey, term: int) -> None:
        """Take note of a term. Raises as `check` does."""
        self.check(key, term)
        is_new = term > self._fences.highest(key)
        self._fences, _ = self._fences.hear(key, term)
        if is_new:
            for listener in self._listeners:
                listener(key, term)
