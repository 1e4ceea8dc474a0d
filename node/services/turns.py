"""The line at the asker's side: where all peers are full, one request at a time asks again.

All that wait for the same work ask through the one at their head, so that a full mesh is not
drowned in questions; who is next is decided as at a worker, by priority and fairly. What is bound
to a peer only when it has room goes to whichever has it first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from math import inf

import trio

from kowalski.node.core.fair_queue import FairQueue, Waiting
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.messages.placement import Priority

LINE_MAX = 1024
RETRY_AFTER_S = 1.0


@dataclass(slots=True)
class _Line:
    queue: FairQueue = field(default_factory=FairQueue)
    is_held: bool = False
    events: dict[int, trio.Event] = field(default_factory=dict)
    freed: trio.Event = field(default_factory=trio.Event)


class Turns:
    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._tickets = count(1)

    def is_taken(self, work: str) -> bool:
        """Whether somebody waits for such work already, behind whom a newcomer has to queue."""
        return work in self._lines

    @asynccontextmanager
    async def turn(self, work: str, flow: str, priority: Priority) -> AsyncIterator[None]:
        """Wait to be at the head of the line, and stay there for the length of the block.

        Raises:
            RequestRefusedError: `busy`, the line is too long.
        """
        line = self._lines.setdefault(work, _Line())
        if len(line.queue) >= LINE_MAX:
            detail = f"{LINE_MAX} requests wait here for {work}"
            raise RequestRefusedError("busy", detail, RETRY_AFTER_S)
        if line.is_held:
            await self._queue(line, flow, priority)
        line.is_held = True
        try:
            yield
        finally:
            self._leave(work, line)

    async def _queue(self, line: _Line, flow: str, priority: Priority) -> None:
        ticket, now = next(self._tickets), trio.current_time()
        line.queue = line.queue.push(Waiting(ticket, flow, priority, 1.0, now, inf))
        event = line.events[ticket] = trio.Event()
        try:
            await event.wait()
        except trio.Cancelled:
            line.queue = line.queue.remove(ticket)
            if event.is_set():  # the turn was ours; hand it on
                self._hand_on(line)
            raise
        finally:
            del line.events[ticket]

    def _leave(self, work: str, line: _Line) -> None:
        self._hand_on(line)
        if not line.is_held and self._lines.get(work) is line:
            del self._lines[work]

    @staticmethod
    def _hand_on(line: _Line) -> None:
        popped = line.queue.pop(trio.current_time())
        if popped is None:
            line.is_held = False
            return
        line.queue, one = popped
        line.events[one.ticket].set()

    def freed(self, work: str) -> None:
        """One of ours is done: there may be room now."""
        if line := self._lines.get(work):
            line.freed.set()

    async def wait_freed(self, work: str, timeout_s: float) -> None:
        """Until one of ours is done, at most so long. For who has the turn."""
        line = self._lines[work]
        line.freed = trio.Event()
        with trio.move_on_after(timeout_s):
            await line.freed.wait()
