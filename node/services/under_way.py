"""What a coordination has under way, and a stop to beginning more while it is to be handed over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class UnderWay:
    def __init__(self) -> None:
        self._count = 0
        self._may_begin = trio.Event()
        self._may_begin.set()

    @property
    def is_idle(self) -> bool:
        return not self._count

    def hold(self) -> None:
        """What is begun goes on; what would begin waits."""
        if self._may_begin.is_set():
            self._may_begin = trio.Event()

    def go_on(self) -> None:
        self._may_begin.set()

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """One piece of work, once it may begin."""
        while not self._may_begin.is_set():
            await self._may_begin.wait()
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
