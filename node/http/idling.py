"""Connections that wait for their next request: for so long, and no longer.

One clock for all of them. A deadline for each would be set and taken back at every request, which
costs more than reading a plain one.
"""

from __future__ import annotations

import trio


class Idling:
    """`idle_s`: how long each may wait."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._until: dict[trio.CancelScope, float] = {}
        """Who began to wait first comes first."""
        self._news = trio.Event()

    def begin(self, scope: trio.CancelScope) -> None:
        """`scope` is cancelled when the time is over, unless `end` comes first."""
        self._until[scope] = trio.current_time() + self._idle_s
        if len(self._until) == 1:
            self._news.set()

    def end(self, scope: trio.CancelScope) -> None:
        self._until.pop(scope, None)

    async def run(self) -> None:
        """Keep the time, until cancelled."""
        while True:
            if not self._until:
                self._news = trio.Event()
                await self._news.wait()
                continue
            scope, until = next(iter(self._until.items()))
            if until > trio.current_time():
                await trio.sleep_until(until)
            elif self._until.pop(scope, None) is not None:
                scope.cancel()
