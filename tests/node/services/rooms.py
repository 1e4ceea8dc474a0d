"""One room between two peers on a loopback network: real frames, virtual time, real disks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing

from kowalski.mesh.content_store import PROTOCOL as CONTENT_PROTOCOL
from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Answer, Asker, Conversation, open_asker, serve
from kowalski.mesh.identity import identity_from_seed
from kowalski.mesh.loopback_transport import LoopbackTransport, open_loopback_network
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentAsked, ContentChunk
from kowalski.protocol.messages.telemetry import Hot
from simulations.virtual_time import THREAD_WAIT_S, JumpingClock

HOT = Hot(memory_used=0.25)
"""What the rooms of these tests say of their node."""


def hot() -> Hot:
    return HOT


class ByAsking:
    """What a store fetches with: the part of a mesh that two peers need."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def request_chunk(
        self, peer: PeerId, asked: ContentAsked, *, timeout_s: float
    ) -> ContentChunk:
        return await self._asker.request(
            peer, CONTENT_PROTOCOL, asked, ContentChunk, timeout_s=timeout_s
        )


class PatientClock(JumpingClock):
    """Waits for every thread, also for those that are counted by a limiter of their own."""

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if trio.testing.active_thread_count():
            return THREAD_WAIT_S
        return super().deadline_to_sleep_time(deadline)


@dataclass(slots=True)
class Side:
    """One of the two: its wire, its disk, and what the other has asked of that disk."""

    transport: LoopbackTransport
    asker: Asker
    store: ContentStore
    content_asked: list[ContentAsked] = field(default_factory=list)

    @property
    def peer(self) -> PeerId:
        return self.transport.peer

    @property
    def requester(self) -> ByAsking:
        return ByAsking(self.asker)

    def serve(self, protocol: str, answer: Answer) -> None:
        serve(self.transport, protocol, answer)

    async def answer_content(self, conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, ContentAsked)
        self.content_asked.append(request)
        return await self.store.answer(conversation, request)


@dataclass(frozen=True, slots=True)
class Two:
    asking: Side
    room: Side
    nursery: trio.Nursery
    """Of the room's node."""


@asynccontextmanager
async def open_two(folder: Path) -> AsyncIterator[Two]:
    """The one who asks and the one with the room, connected; both serve what they hold."""
    asking, room = (identity_from_seed(bytes([n]) * 32).peer for n in (1, 2))
    async with (
        open_loopback_network() as network,
        network.transport(asking) as one,
        network.transport(room) as other,
        open_asker(one) as one_asks,
        open_asker(other) as other_asks,
        trio.open_nursery() as nursery,
    ):
        sides = Two(
            Side(one, one_asks, ContentStore(folder / "asking", asking)),
            Side(other, other_asks, ContentStore(folder / "room", room)),
            nursery,
        )
        for side in (sides.asking, sides.room):
            side.serve(CONTENT_PROTOCOL, side.answer_content)
        await one.connect(room, Address(f"/memory/{room}"), timeout_s=1)
        yield sides
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Wait, in virtual time, until something is true."""
    with trio.fail_after(within_s):
        while not holds():  # noqa: ASYNC110 virtual time costs nothing
            await trio.sleep(0.01)


async def leave_it(asked: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    """Ask as someone who goes away when `scope` is cancelled."""
    with scope:
        await asked()
