"""What a peer gets before it is admitted: a few protocols, no gossip, and a place it may lose.

Everybody can make a key and complete the handshake, so until somebody above has checked who a
peer is, it is a stranger. py-libp2p knows no such difference; `docs/upstream.md` says what is
missing there.
"""

# py-libp2p annotates interfaces that lack half of what its classes have, and its objects are
# extended here.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateUsage=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import structlog
import trio
from libp2p.abc import IMultiselectCommunicator, IMuxedConn, INetStream
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import MULTISELECT_PROTOCOL_ID, Multiselect
from libp2p.pubsub.pubsub import Pubsub

from kowalski.mesh.libp2p_streams import WEATHER, shielded
from kowalski.protocol.ids import PeerId

log = structlog.get_logger(__name__)

HOLD_S = 3.0
"""How long a stranger's stream waits for its admission.

Of two peers that prove themselves to each other one is admitted first, by half a round trip, and
may speak at once. Less than the five seconds that an opener waits.
"""
HELD_PER_PEER_MAX = 16
"""More than a new member has protocols to open."""

STRANGERS_PER_ADDRESS_MAX = 64
"""More than a mesh of 25 nodes behind one address starts with, each with a connection or two."""

RESET_S = 2.0

_NO_PROTOCOL = "-"


class Gate(Multiselect):  # type: ignore[misc]
    """Protocol negotiation that depends on who asks.

    To a stranger all protocols but the open ones look unknown: those that exist and those that do
    not take the same time, and neither `identify` nor `ls` lists them.
    """

    def __init__(self, handlers: dict[TProtocol | None, StreamHandlerFn | None]) -> None:
        super().__init__(handlers)
        self._open = {str(IDENTIFY), str(PING)}
        self._admitted: dict[PeerId, set[trio.CancelScope]] = {}
        """With the streams of theirs that are being served."""
        self._held: dict[PeerId, set[trio.Event]] = {}

    def open_to_strangers(self, protocol: str) -> None:
        self._open.add(protocol)

    def is_admitted(self, peer: PeerId | ID) -> bool:
        return str(peer) in self._admitted

    def admit(self, peer: PeerId) -> None:
        self._admitted.setdefault(peer, set())
        for held in self._held.get(peer, ()):
            held.set()

    def forget(self, peer: PeerId) -> None:
        """To be called when its last connection has ended; its streams end by themselves."""
        self._admitted.pop(peer, None)

    def dismiss(self, peer: PeerId) -> None:
        """A stranger again, and what it has open beyond that ends."""
        for serving in self._admitted.pop(peer, ()):
            serving.cancel()

    def get_protocols(self) -> tuple[TProtocol | None, ...]:
        """What `identify` tells, which does not say to whom."""
        return tuple(protocol for protocol in self.handlers if protocol in self._open)

    async def negotiate(
        self, communicator: IMultiselectCommunicator, negotiate_timeout: int = 5
    ) -> tuple[TProtocol | None, StreamHandlerFn | None]:
        peer = PeerId(str(communicator.read_writer.muxed_conn.peer_id))
        at_the_door = _AtTheDoor(communicator, partial(self._may_ask, peer))
        protocol, handler = await super().negotiate(at_the_door, negotiate_timeout)
        if protocol in self._open or handler is None:
            return protocol, handler
        return protocol, partial(self._serve, peer, handler)

    async def _may_ask(self, peer: PeerId, command: str) -> bool:
        if command == MULTISELECT_PROTOCOL_ID or command in self._open or self.is_admitted(peer):
            return True
        held = self._held.setdefault(peer, set())
        if len(held) >= HELD_PER_PEER_MAX:
            return False
        admission = trio.Event()
        held.add(admission)
        try:
            with trio.move_on_after(HOLD_S):
                await admission.wait()
        finally:
            held.remove(admission)
            if not held:
                del self._held[peer]
        return self.is_admitted(peer)

    async def _serve(self, peer: PeerId, handler: StreamHandlerFn, stream: INetStream) -> None:
        serving = self._admitted.get(peer)
        scope = trio.CancelScope()
        if serving is None:
            scope.cancel()  # dismissed between our last word and here
        else:
            serving.add(scope)
        try:
            with scope:
                await handler(stream)
        finally:
            if serving is not None:
                serving.discard(scope)
        if scope.cancelled_caught:
            with shielded(RESET_S), suppress(*WEATHER):
                await stream.reset()


class _AtTheDoor(IMultiselectCommunicator):  # type: ignore[misc]
    """A negotiation in which what may not be asked for is no protocol."""

    def __init__(
        self, inner: IMultiselectCommunicator, may_ask: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._inner = inner
        self._may_ask = may_ask

    async def write(self, msg_str: str) -> None:
        await self._inner.write(msg_str)

    async def read(self) -> str:
        command: str = await self._inner.read()
        return command if await self._may_ask(command) else _NO_PROTOCOL


class AdmittedGossip:
    """Opens our gossip stream to a peer when it is admitted, and ends it when it is dismissed.

    Its own stream to us is a protocol like others, for which the gate stands.
    """

    def __init__(self, pubsub: Pubsub, gate: Gate) -> None:
        self._pubsub = pubsub
        self._gate = gate
        self._greet = pubsub._handle_new_peer  # noqa: SLF001 no public way

    def guard(self) -> None:
        """Without it, everybody who connects is told our subscriptions and sent our gossip."""
        self._pubsub._handle_new_peer = self._greet_if_admitted  # noqa: SLF001 as above

    async def _greet_if_admitted(self, peer_id: ID) -> None:
        if self._gate.is_admitted(peer_id):
            await self._greet(peer_id)
        if not self._gate.is_admitted(peer_id) and peer_id in self._pubsub.peers:
            self.end(peer_id)

    def begin(self, peer_id: ID) -> None:
        """Also to be called when one of several connections to a peer has ended."""
        if self._pubsub.manager.is_running:
            self._pubsub.manager.run_task(
                self._pubsub._handle_new_peer_with_retry,  # noqa: SLF001 as above
                peer_id,
            )

    def end(self, peer_id: ID) -> None:
        stream = self._pubsub.peers.get(peer_id)
        self._pubsub._handle_dead_peer(peer_id)  # noqa: SLF001 as above
        if stream is not None and self._pubsub.manager.is_running:
            self._pubsub.manager.run_task(_reset, stream)


async def _reset(stream: INetStream) -> None:
    with trio.move_on_after(RESET_S), suppress(*WEATHER):
        await stream.reset()


class StrangersPlaces:
    """Connections of strangers, of which there are only so many: the oldest goes first.

    Who belongs proves it within a second or so. Were the newest refused instead, whoever connects
    and stays silent would keep all others out.
    """

    def __init__(self, is_admitted: Callable[[ID], bool], *, places: int, per_address: int) -> None:
        self._is_admitted = is_admitted
        self._places = places
        self._per_address = per_address
        self._inbound: dict[IMuxedConn, str] = {}

    @contextmanager
    def taken(self, newcomer: IMuxedConn, address: str) -> Iterator[tuple[IMuxedConn, ...]]:
        """Count an inbound connection; the value is those that have to go for it."""
        self._inbound[newcomer] = address
        try:
            yield self._too_many(address)
        finally:
            del self._inbound[newcomer]

    def _too_many(self, address: str) -> tuple[IMuxedConn, ...]:
        strangers = {
            connection: source
            for connection, source in self._inbound.items()
            if not self._is_admitted(connection.peer_id)
            and not connection.event_shutting_down.is_set()
        }
        neighbours = [one for one, source in strangers.items() if source == address]
        if len(neighbours) > self._per_address:
            return tuple(neighbours[: -self._per_address])
        return tuple(strangers)[: max(0, len(strangers) - self._places)]


def guard_against_strangers(host: BasicHost, gate: Gate, gossip: AdmittedGossip) -> None:
    host.multiselect = gate
    gossip.guard()
