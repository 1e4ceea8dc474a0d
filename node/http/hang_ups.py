"""Noticing that a client hangs up while its answer is being made.

An answer that is there within a moment is not watched: a task for each would cost as much as
parsing what is asked. One clock for all looks now and then which answers have become old enough.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

MOMENT_S = 0.025


class Watch:
    """Of one answer, until `end`. `watch` runs until it is cancelled, or somebody hung up."""

    def __init__(self, watch: Callable[[], Awaitable[None]]) -> None:
        self._watch = watch
        self._scope: trio.CancelScope | None = None
        self._ended: trio.Event | None = None

    def begin(self, nursery: trio.Nursery) -> None:
        scope, ended = self._scope, self._ended = trio.CancelScope(), trio.Event()
        nursery.start_soon(self._run, scope, ended)

    async def _run(self, scope: trio.CancelScope, ended: trio.Event) -> None:
        try:
            with scope:
                await self._watch()
        finally:
            ended.set()

    async def end(self) -> None:
        """Once this returns nobody reads from the client any more."""
        if self._scope is not None and self._ended is not None:
            self._scope.cancel()
            await self._ended.wait()


class HangUps:
    """Begins to watch answers that are older than `MOMENT_S`, in `nursery`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._young: set[Watch] = set()
        self._older: set[Watch] = set()
        self._news = trio.Event()

    def add(self, watch: Watch) -> None:
        self._young.add(watch)
        self._news.set()

    async def end(self, watch: Watch) -> None:
        """See `Watch.end`."""
        self._young.discard(watch)
        self._older.discard(watch)
        await watch.end()

    async def run(self) -> None:
        """Look at the answers of others every moment while there are any, until cancelled."""
        while True:
            if not (self._young or self._older):
                self._news = trio.Event()
                await self._news.wait()
            await trio.sleep(MOMENT_S)
            for watch in self._older:
                watch.begin(self._nursery)
            self._older, self._young = self._young, set()
