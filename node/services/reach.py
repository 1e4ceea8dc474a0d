"""The room that tells peers how they look from here, and how this node asks to be told.

What is told is for people alone. An asker is dialled at the addresses it names, and nothing is said
there but the handshake, which only the asker itself can complete.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.mesh.transport import Transport
from kowalski.node.core.checks import Check
from kowalski.node.core.seen_from_peers import (
    AskingRate,
    Exchange,
    Seen,
    check_clocks,
    check_reach,
    chosen_peers,
)
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.reach import DIALLED_MAX, ReachAsked, ReachTold

PROTOCOL = "/kowalski/reach/1"
PEERS_ASKED_MAX = 2
DIAL_S = 2.0
REPLY_S = 6.0
ASKED_EVERY_S = 5.0
UNDER_WAY_MAX = 4


class ReachRoom:
    """Serves `/kowalski/reach/1`."""

    def __init__(self, transport: Transport, unix_clock: Callable[[], float]) -> None:
        self._transport = transport
        self._unix_clock = unix_clock
        self._rate = AskingRate(ASKED_EVERY_S)
        self._under_way = 0

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        received_unix_s = self._unix_clock()
        if not isinstance(request, ReachAsked):
            raise RemoteProtocolError(f"{request.KIND} in a conversation about addresses")
        self._check_room(conversation.peer)
        self._under_way += 1
        try:
            reached = await self._dial(conversation.peer, request.addresses)
        finally:
            self._under_way -= 1
        return ReachTold(
            received_unix_s=received_unix_s, sent_unix_s=self._unix_clock(), reached=reached
        )

    def _check_room(self, asker: PeerId) -> None:
        if self._under_way >= UNDER_WAY_MAX:
            raise RequestRefusedError("busy", "dialling for others", DIAL_S)
        if wait_s := self._rate.wait_s(asker, trio.current_time()):
            raise RequestRefusedError("busy", "asked a moment ago", wait_s)

    async def _dial(self, peer: PeerId, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        reached: set[Address] = set()

        async def dial(address: Address) -> None:
            if await self._transport.finds(peer, address, timeout_s=DIAL_S):
                reached.add(address)

        async with open_plain_nursery() as nursery:
            for address in dict.fromkeys(addresses):
                nursery.start_soon(dial, address)
        return tuple(address for address in addresses if address in reached)


async def checks_by_peers(mesh: Mesh, unix_clock: Callable[[], float]) -> list[Check]:
    """Ask the nearest routable peers; a check for each clock, and for each address of ours."""
    addresses = mesh.facts_of(mesh.me).addresses[:DIALLED_MAX]
    near = {one.peer: one.rtt_s for one in mesh.facts() if one.is_routable and not one.is_self}
    seen: dict[PeerId, Seen] = {}

    async def ask(peer: PeerId) -> None:
        seen[peer] = await _seen_by(mesh, peer, addresses, unix_clock)

    chosen = chosen_peers(near, PEERS_ASKED_MAX)
    async with open_plain_nursery() as nursery:
        for peer in chosen:
            nursery.start_soon(ask, peer)
    told = [seen[peer] for peer in chosen]
    return [*check_clocks(told), *check_reach(addresses, told)]


async def _seen_by(
    mesh: Mesh, peer: PeerId, addresses: tuple[Address, ...], unix_clock: Callable[[], float]
) -> Seen:
    name = mesh.name_of(peer)
    asked_unix_s = unix_clock()
    try:
        told = await mesh.request(
            peer, PROTOCOL, ReachAsked(addresses=addresses), ReachTold, timeout_s=REPLY_S
        )
    except Weather as error:
        return Seen(name, why=str(error))
    heard_unix_s = unix_clock()
    exchange = Exchange(asked_unix_s, told.received_unix_s, told.sent_unix_s, heard_unix_s)
    return Seen(name, exchange, frozenset(told.reached))


def open_reach(mesh: Mesh, transport: Transport, unix_clock: Callable[[], float]) -> None:
    """Serve every member that asks."""
    mesh.serve(PROTOCOL, ReachRoom(transport, unix_clock).answer)
