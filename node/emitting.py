"""Events for whoever asked a verb, from where nobody may wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.control import Emit

Reply = dict[str, object]

EVENTS_MAX: Final = 1024


@asynccontextmanager
async def emitting(emit: Emit) -> AsyncIterator[Callable[[Reply], None]]:
    """A way to emit without waiting. Beyond a bound events are left out, not kept."""
    events_in, events_out = trio.open_memory_channel[Reply](EVENTS_MAX)

    async def forward() -> None:
        async for event in events_out:
            await emit(event)

    def tell(event: Reply) -> None:
        with suppress(trio.WouldBlock):
            events_in.send_nowait(event)

    async with open_plain_nursery() as nursery:
        nursery.start_soon(forward)
        with events_in:
            yield tell
