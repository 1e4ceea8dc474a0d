"""One peer on a loopback network: what `transport.Transport` says, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

import structlog
import trio

from kowalski.mesh.loopback_streams import End
from kowalski.mesh.transport import (
    Connected,
    ConnectionEvent,
    Disconnected,
    Gossip,
    Stream,
    StreamHandler,
)
from kowalski.protocol.errors import KowalskiError, LocalProtocolError, PeerUnreachableError
from kowalski.protocol.ids import Address, PeerId, Topic
from kowalski.protocol.limits import GOSSIP_BYTES_MAX

log = structlog.get_logger(__name__)

GOSSIP_QUEUE_MAX = 256
HOLD_S = 3.0
"""How long a stranger's stream waits for its admission."""


class Network(Protocol):
    """What a peer needs of the network it is on; see `loopback_transport.LoopbackNetwork`."""

    def bring(
        self, sender: LoopbackTransport, end: End, data: bytes, deliver: Callable[[], None]
    ) -> None: ...

    def drop(self, transport: LoopbackTransport, peer: PeerId) -> None: ...

    async def reach(self, me: LoopbackTransport, peer: PeerId) -> LoopbackTransport: ...

    async def until_awake(self, peer: PeerId) -> None: ...

    def number_stream(self) -> int: ...

    def run(self, transport: LoopbackTransport, handler: StreamHandler, stream: Stream) -> None: ...

    def spread(self, origin: PeerId, topic: Topic, data: bytes) -> None: ...

    def neighbours(self, peer: PeerId, others: frozenset[PeerId]) -> tuple[PeerId, ...]: ...


@dataclass(slots=True, eq=False)
class Connection:
    """One side of a connection with the transport `far`; `mirror` is the other side."""

    far: LoopbackTransport
    ends: set[End] = field(default_factory=set)
    mirror: Connection | None = None


class LoopbackTransport:
    """One peer on a `LoopbackNetwork`."""

    def __init__(self, network: Network, peer: PeerId) -> None:
        self.context: Context = copy_context()
        """Of whoever opened it: what it serves runs as its node, not as the asker's."""
        self._network = network
        self._peer = peer
        self._connections: dict[PeerId, Connection] = {}
        self._handlers: dict[str, StreamHandler] = {}
        self._handling: set[trio.CancelScope] = set()
        self._open_to_strangers: set[str] = set()
        self._admitted: set[PeerId] = set()
        self._neighbours: tuple[PeerId, ...] | None = None
        self._news_of_admission = trio.Event()
        self._topics: dict[Topic, list[_Listener]] = {}
        # Not bounded: an event is never lost, and no connection waits for their reader.
        self._events_in, self._events_out = trio.open_memory_channel[ConnectionEvent](inf)

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (Address(f"/memory/{self._peer}"),)

    @property
    def connections(self) -> frozenset[PeerId]:
        return frozenset(self._connections)

    @property
    def admitted(self) -> frozenset[PeerId]:
        """Those with whom we gossip."""
        return frozenset(self._admitted & self._connections.keys())

    def gossips_with(self, peer: PeerId) -> bool:
        """Whether it is one of the `admitted`."""
        return peer in self._admitted and peer in self._connections

    @property
    def neighbours(self) -> tuple[PeerId, ...]:
        """Those of them to whom we pass on what we hear, and what we say."""
        if self._neighbours is None:
            self._neighbours = self._network.neighbours(self._peer, self.admitted)
        return self._neighbours

    def streams(self, peer: PeerId) -> tuple[End, ...]:
        """Our ends of the streams with `peer`, oldest first."""
        connection = self._connections.get(peer)
        ends = connection.ends if connection is not None else set[End]()
        return tuple(sorted(ends, key=lambda end: end.number))

    @property
    def streams_open(self) -> int:
        return sum(len(connection.ends) for connection in self._connections.values())

    @property
    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        return self._events_out

    # --- connections ----------------------------------------------------------------------------

    def connection(self, peer: PeerId) -> Connection | None:
        return self._connections.get(peer)

    def far(self, peer: PeerId) -> LoopbackTransport:
        """Whom our connection with `peer` leads to."""
        return self._connections[peer].far

    async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
        if peer == self._peer:
            raise PeerUnreachableError(f"{peer} is ourselves")
        if peer in self._connections:
            await trio.lowlevel.checkpoint()
            return
        if address != f"/memory/{peer}":
            await trio.lowlevel.checkpoint()
            raise PeerUnreachableError(f"nobody answers at {address}")
        with trio.move_on_after(timeout_s):
            other = await self._network.reach(self, peer)
            self._join(other)
            return
        raise PeerUnreachableError(f"nobody answers at {address}")

    async def finds(self, peer: PeerId, address: Address, *, timeout_s: float) -> bool:
        if peer == self._peer or address != f"/memory/{peer}":
            await trio.lowlevel.checkpoint()
            return False
        with trio.move_on_after(timeout_s), suppress(PeerUnreachableError):
            await self._network.reach(self, peer)
            return True
        return False

    def _join(self, other: LoopbackTransport) -> None:
        """Connect, unless we are; what either holds of an earlier connection is over."""
        ours, theirs = self._connections.get(other.peer), other.connection(self._peer)
        if ours is not None and ours.mirror is theirs:
            return
        self.lose(other.peer)
        other.lose(self._peer)
        ours, theirs = Connection(other), Connection(self)
        ours.mirror, theirs.mirror = theirs, ours
        self.take(other.peer, ours)
        other.take(self._peer, theirs)

    def take(self, peer: PeerId, connection: Connection) -> None:
        self._connections[peer] = connection
        self._neighbours = None
        self._events_in.send_nowait(Connected(peer))

    def lose(self, peer: PeerId) -> None:
        connection = self._connections.pop(peer, None)
        if connection is not None:
            self._admitted.discard(peer)
            self._neighbours = None
            self._tell_who_wait()
            for end in sorted(connection.ends, key=lambda end: end.number):
                end.break_off()
            self._events_in.send_nowait(Disconnected(peer))

    async def disconnect(self, peer: PeerId) -> None:
        await trio.lowlevel.checkpoint()
        self._network.drop(self, peer)

    def stop(self) -> None:
        """The process is no more: what it was about to do for others is not done."""
        for scope in tuple(self._handling):
            scope.cancel()

    # --- streams --------------------------------------------------------------------------------

    async def open_stream(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Stream:
        stream: Stream | None = None
        if peer in self._connections:
            with trio.move_on_after(timeout_s):
                other = await self._network.reach(self, peer)
                await other.admission(self._peer, protocol)
                await self._network.until_awake(self._peer)
                stream = self._open(other, protocol)
        else:
            await trio.lowlevel.checkpoint()
        if stream is None:
            raise PeerUnreachableError(f"no connection to {peer}")
        return stream

    def _open(self, other: LoopbackTransport, protocol: str) -> Stream | None:
        connection = self._connections.get(other.peer)
        mirror = other.connection(self._peer)
        if connection is None:
            return None
        if mirror is None or connection.mirror is not mirror:
            self.lose(other.peer)  # it knows nothing of our connection
            return None
        handler = other.handler(protocol, self._peer)
        if handler is None:
            raise PeerUnreachableError(f"{other.peer} does not speak {protocol}")
        number = self._network.number_stream()
        ours = self._new_end(connection, other.peer, protocol, number, is_ours=True)
        theirs = other._new_end(mirror, self._peer, protocol, number, is_ours=False)
        ours.other, theirs.other = theirs, ours
        self._network.run(other, handler, theirs)
        return ours

    def _new_end(
        self, connection: Connection, peer: PeerId, protocol: str, number: int, *, is_ours: bool
    ) -> End:
        """Our end of a stream with `peer`, kept until it is over."""
        end = End(
            peer,
            protocol,
            number=number,
            is_ours=is_ours,
            bring=lambda end, data, deliver: self._network.bring(self, end, data, deliver),
            on_over=connection.ends.discard,
            is_open_to_strangers=is_ours or self.is_open_to_strangers(protocol),
        )
        connection.ends.add(end)
        return end

    async def handle(self, handler: StreamHandler, stream: Stream) -> None:
        """Serve one stream to its end."""
        with trio.CancelScope() as scope:
            self._handling.add(scope)
            try:
                await handler(stream)
                await stream.finish()
            except KowalskiError as error:
                log.debug("stream-handler-ended", error=str(error))
                await stream.reset()
            except Exception:
                log.exception("stream-handler-died", peer=stream.peer)
                await stream.reset()
            finally:
                self._handling.discard(scope)

    def is_open_to_strangers(self, protocol: str) -> bool:
        return protocol in self._open_to_strangers

    def handler(self, protocol: str, asker: PeerId) -> StreamHandler | None:
        if asker in self._admitted or self.is_open_to_strangers(protocol):
            return self._handlers.get(protocol)
        return None

    async def admission(self, asker: PeerId, protocol: str) -> None:
        """Wait a little for the admission of `asker`, where it needs that."""
        with trio.move_on_after(HOLD_S):
            while (
                asker in self._connections
                and asker not in self._admitted
                and not self.is_open_to_strangers(protocol)
            ):
                await self._news_of_admission.wait()

    def _tell_who_wait(self) -> None:
        self._news_of_admission.set()
        self._news_of_admission = trio.Event()

    def admit(self, peer: PeerId) -> None:
        self._admitted.add(peer)
        self._neighbours = None
        self._tell_who_wait()

    def dismiss(self, peer: PeerId) -> None:
        self._admitted.discard(peer)
        self._neighbours = None
        for end in self.streams(peer):
            if not end.is_open_to_strangers:
                end.cut_short()

    def serve(self, protocol: str, handler: StreamHandler, *, to_strangers: bool = False) -> None:
        if to_strangers:
            self._open_to_strangers.add(protocol)
        self._handlers[protocol] = handler

    async def subscribe(
        self, topic: Topic, *, admits: Callable[[PeerId], bool]
    ) -> trio.MemoryReceiveChannel[Gossip]:
        await trio.lowlevel.checkpoint()
        send, receive = trio.open_memory_channel[Gossip](GOSSIP_QUEUE_MAX)
        self._topics.setdefault(topic, []).append(_Listener(admits, send, receive.clone()))
        return receive

    def wants(self, topic: Topic, origin: PeerId) -> bool:
        for listener in self._topics.get(topic, ()):  # noqa: SIM110 twice as fast, for one
            if listener.admits(origin):
                return True
        return False

    def hear(self, topic: Topic, gossip: Gossip) -> None:
        for listener in self._topics.get(topic, ()):
            if listener.admits(gossip.origin):
                listener.put(gossip)

    async def publish(self, topic: Topic, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if len(data) > GOSSIP_BYTES_MAX:
            raise LocalProtocolError(f"gossip of {len(data)} bytes")
        self._network.spread(self._peer, topic, data)


@dataclass(frozen=True, slots=True)
class _Listener:
    """A bounded channel that drops its oldest message when it is full."""

    admits: Callable[[PeerId], bool]
    send: trio.MemorySendChannel[Gossip]
    # The same channel's other end, to make room at; also keeps it open when its reader leaves.
    oldest: trio.MemoryReceiveChannel[Gossip]

    def put(self, gossip: Gossip) -> None:
        try:
            self.send.send_nowait(gossip)
        except trio.WouldBlock:
            self.oldest.receive_nowait()
            self.send.send_nowait(gossip)
