"""Servers that keep a request waiting: each for so long, and no longer.

One clock for all who wait. A cancel scope for each would cost a model call more than reading the
answer does; here a connection that is silent for too long is closed, which ends the wait on it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from math import inf
from typing import Protocol

import trio


class Awaited(Protocol):
    """A connection that somebody waits for."""

    def give_up(self) -> Awaitable[None]:
        """Close it, since nothing came in time."""
        ...


class Silences:
    """`run` keeps the time of all that is awaited."""

    def __init__(self) -> None:
        self._until: dict[Awaited, float] = {}
        self._looks_at = inf
        self._news = trio.Event()

    def begin(self, awaited: Awaited, until: float) -> None:
        """`awaited` is given up at that time, unless `end` comes first."""
        self._until[awaited] = until
        if until < self._looks_at:
            self._news.set()

    def end(self, awaited: Awaited) -> None:
        self._until.pop(awaited, None)

    async def run(self) -> None:
        """Keep the time, until cancelled. It wakes for what is due, not for each who waits."""
        while True:
            while (awaited := self._overdue()) is not None:
                self.end(awaited)
                await awaited.give_up()
            self._looks_at = min(self._until.values(), default=inf)
            self._news = trio.Event()
            with trio.move_on_at(self._looks_at):
                await self._news.wait()

    def _overdue(self) -> Awaited | None:
        now = trio.current_time()
        return next((one for one, until in self._until.items() if until <= now), None)
