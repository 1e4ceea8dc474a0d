"""A network inside one process, for virtual time: real bytes, made-up wires.

Streams are reliable and ordered until they are reset, and hold their writer back when nobody reads;
a message takes the link's latency; gossip may be lost. Links can be cut and peers killed.
`LoopbackNetwork` is the world, `transport()` one peer in it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf

import structlog
import trio

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

RECEIVE_BYTES_MAX = 64 * 1024
WINDOW_BYTES = 256 * 1024
"""Sent and not read yet, of one stream and direction."""
WRITE_TIMEOUT_S = 10.0
"""How long a writer waits for its reader to make room."""
GOSSIP_QUEUE_MAX = 256
HOLD_S = 3.0
"""How long a stranger's stream waits for its admission."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network does to everybody. Drawn from the network's seed."""

    latency_s: float = 0.001
    jitter_s: float = 0.0
    gossip_loss: float = 0.0


class LoopbackNetwork:
    """The world that loopback transports share. Made by `open_loopback_network`."""

    def __init__(self, nursery: trio.Nursery, seed: int, weather: Weather) -> None:
        self.weather = weather
        self._nursery = nursery
        self._random = random.Random(seed)  # noqa: S311 weather, not secrets
        self._peers: dict[PeerId, LoopbackTransport] = {}
        self._cut: set[frozenset[PeerId]] = set()
        self._in_the_air: list[tuple[float, int, LoopbackTransport, Topic, Gossip]] = []
        self._gossips = count()
        self._has_news = trio.Event()

    @asynccontextmanager
    async def transport(self, peer: PeerId) -> AsyncIterator[LoopbackTransport]:
        """One peer's transport, until the block is left; leaving it drops all its connections."""
        if peer in self._peers:
            raise ValueError(f"{peer} is on this network already")
        transport = LoopbackTransport(self, peer)
        self._peers[peer] = transport
        try:
            yield transport
        finally:
            if self._peers.get(peer) is transport:  # else it was killed, and may be back
                self.kill(peer)

    def kill(self, peer: PeerId) -> None:
        """Like SIGKILL: every connection of `peer` is gone, and nobody can dial it."""
        if transport := self._peers.get(peer):
            for other in transport.connections:
                self.drop(other, peer)
            del self._peers[peer]

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Cut the link between two peers: open connections break, and dials fail."""
        self._cut.add(frozenset((one, other)))
        self.drop(one, other)

    def mend(self, one: PeerId, other: PeerId) -> None:
        self._cut.discard(frozenset((one, other)))

    def drop(self, one: PeerId, other: PeerId) -> None:
        """Break the connection between two peers, if there is one."""
        for me, them in ((one, other), (other, one)):
            if transport := self._peers.get(me):
                transport.lose(them)

    def find(self, me: LoopbackTransport, other: PeerId) -> LoopbackTransport:
        """The transport of `other` as dialled by `me`.

        Raises:
            PeerUnreachableError: one of them is down, or the link is cut.
        """
        transport = self._peers.get(other)
        is_cut = frozenset((me.peer, other)) in self._cut
        if transport is None or is_cut or self._peers.get(me.peer) is not me:
            raise PeerUnreachableError(f"nobody answers at {other}")
        return transport

    def travel_s(self) -> float:
        return self.weather.latency_s + self._random.random() * self.weather.jitter_s

    def spread(self, origin: PeerId, topic: Topic, data: bytes) -> None:
        """Flood along connections whose ends admit the origin, as gossipsub would."""
        heard = {origin}
        frontier = deque([(origin, 0.0)])
        while frontier:
            at, delay_s = frontier.popleft()
            transport = self._peers.get(at)
            for other in sorted(transport.admitted) if transport else ():
                if other in heard or self._random.random() < self.weather.gossip_loss:
                    continue
                receiver = self._peers.get(other)
                if receiver is None or at not in receiver.admitted:
                    continue
                if not receiver.wants(topic, origin):
                    continue
                heard.add(other)
                arrives_s = delay_s + self.travel_s()
                arrival = trio.current_time() + arrives_s
                gossip = Gossip(origin, data)
                # In the order in which it was said, where it arrives at the same time.
                heappush(self._in_the_air, (arrival, next(self._gossips), receiver, topic, gossip))
                frontier.append((other, arrives_s))
        self._has_news.set()

    async def carry_gossip(self) -> None:
        while True:
            while self._in_the_air and self._in_the_air[0][0] <= trio.current_time():
                _, _, receiver, topic, gossip = heappop(self._in_the_air)
                receiver.hear(topic, gossip)
            self._has_news = trio.Event()
            with trio.move_on_at(self._in_the_air[0][0] if self._in_the_air else inf):
                await self._has_news.wait()

    def run(self, handler: StreamHandler, stream: Stream) -> None:
        self._nursery.start_soon(_handle, handler, stream)


async def _handle(handler: StreamHandler, stream: Stream) -> None:
    try:
        await handler(stream)
        await stream.finish()
    except KowalskiError as error:
        log.debug("stream-handler-ended", error=str(error))
        await stream.reset()
    except Exception:
        log.exception("stream-handler-died", peer=stream.peer)
        await stream.reset()


@asynccontextmanager
async def open_loopback_network(
    *, seed: int = 0, weather: Weather | None = None
) -> AsyncIterator[LoopbackNetwork]:
    async with trio.open_nursery() as nursery:
        network = LoopbackNetwork(nursery, seed, weather or Weather())
        nursery.start_soon(network.carry_gossip)
        yield network
        nursery.cancel_scope.cancel()


class LoopbackTransport:
    """One peer on a `LoopbackNetwork`."""

    def __init__(self, network: LoopbackNetwork, peer: PeerId) -> None:
        self._network = network
        self._peer = peer
        self._streams: dict[PeerId, set[_End]] = {}
        self._handlers: dict[str, StreamHandler] = {}
        self._open_to_strangers: set[str] = set()
        self._admitted: set[PeerId] = set()
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
        return frozenset(self._streams)

    @property
    def admitted(self) -> frozenset[PeerId]:
        """Those with whom we gossip."""
        return frozenset(self._admitted & self._streams.keys())

    @property
    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        return self._events_out

    async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
        if peer == self._peer:
            raise PeerUnreachableError(f"{peer} is ourselves")
        if peer in self._streams:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(timeout_s) as patience:
            await trio.sleep(2 * self._network.travel_s())
        if patience.cancelled_caught or address != f"/memory/{peer}":
            raise PeerUnreachableError(f"nobody answers at {address}")
        other = self._network.find(self, peer)
        self.join(peer)
        other.join(self._peer)

    def join(self, peer: PeerId) -> None:
        if peer not in self._streams:
            self._streams[peer] = set()
            self._events_in.send_nowait(Connected(peer))

    def lose(self, peer: PeerId) -> None:
        ends = self._streams.pop(peer, None)
        if ends is not None:
            self._admitted.discard(peer)
            self._tell_who_wait()
            for end in tuple(ends):
                end.break_off()
            self._events_in.send_nowait(Disconnected(peer))

    async def disconnect(self, peer: PeerId) -> None:
        await trio.lowlevel.checkpoint()
        if peer in self._streams:
            self._network.drop(self._peer, peer)

    async def open_stream(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Stream:
        with trio.move_on_after(timeout_s) as patience:
            await trio.sleep(2 * self._network.travel_s())
            if peer in self._streams:
                await self._network.find(self, peer).admission(self._peer, protocol)
        if patience.cancelled_caught or peer not in self._streams:
            raise PeerUnreachableError(f"no connection to {peer}")
        other = self._network.find(self, peer)
        handler = other.handler(protocol, self._peer)
        if handler is None:
            raise PeerUnreachableError(f"{peer} does not speak {protocol}")
        is_open = other.is_open_to_strangers(protocol)
        ours, theirs = self.new_end(peer), other.new_end(self._peer, is_open=is_open)
        ours.other, theirs.other = theirs, ours
        self._network.run(handler, theirs)
        return ours

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
                asker in self._streams
                and asker not in self._admitted
                and not self.is_open_to_strangers(protocol)
            ):
                await self._news_of_admission.wait()

    def _tell_who_wait(self) -> None:
        self._news_of_admission.set()
        self._news_of_admission = trio.Event()

    def new_end(self, peer: PeerId, *, is_open: bool = True) -> _End:
        """Our end of a stream with `peer`, kept until it is over."""
        ends = self._streams[peer]
        end = _End(self._network, peer, on_over=ends.discard, is_open_to_strangers=is_open)
        ends.add(end)
        return end

    def admit(self, peer: PeerId) -> None:
        self._admitted.add(peer)
        self._tell_who_wait()

    def dismiss(self, peer: PeerId) -> None:
        self._admitted.discard(peer)
        for end in tuple(self._streams.get(peer, ())):
            if not end.is_open_to_strangers:
                end.break_off()
                end.other.break_off()

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
        return any(listener.admits(origin) for listener in self._topics.get(topic, ()))

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
        if self.send.statistics().current_buffer_used >= GOSSIP_QUEUE_MAX:
            self.oldest.receive_nowait()
        self.send.send_nowait(gossip)


class _End:
    """One end of a stream. What is sent arrives at the other end after the link's latency."""

    other: _End

    def __init__(
        self,
        network: LoopbackNetwork,
        peer: PeerId,
        *,
        on_over: Callable[[_End], None],
        is_open_to_strangers: bool,
    ) -> None:
        self.is_open_to_strangers = is_open_to_strangers
        """Or one that we opened: whether it outlives the peer's dismissal."""
        self._network = network
        self._peer = peer
        self._on_over = on_over
        self._arriving: deque[tuple[float, bytes]] = deque()
        self._unread_bytes = 0
        self._last_arrival = -inf
        self._changed = trio.Event()
        self._has_room = trio.Event()
        self._is_broken = False
        self._has_finished = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for start in range(0, max(len(data), 1), RECEIVE_BYTES_MAX):
            piece = data[start : start + RECEIVE_BYTES_MAX]
            with trio.move_on_after(WRITE_TIMEOUT_S) as patience:
                while self.is_open and not self.other.has_room_for(piece):
                    self._has_room = trio.Event()
                    await self._has_room.wait()
            if patience.cancelled_caught:
                raise PeerUnreachableError(f"{self._peer} read nothing for {WRITE_TIMEOUT_S:g} s")
            if not self.is_open:
                raise PeerUnreachableError(f"the stream to {self._peer} is gone")
            if piece:
                self.other.arrive(piece)

    @property
    def is_open(self) -> bool:
        return not self._is_broken and not self._has_finished

    def has_room_for(self, piece: bytes) -> bool:
        return self._unread_bytes + len(piece) <= WINDOW_BYTES

    def arrive(self, data: bytes) -> None:
        at = max(self._last_arrival, trio.current_time() + self._network.travel_s())
        self._last_arrival = at
        self._arriving.append((at, data))
        self._unread_bytes += len(data)
        self._changed.set()
        self._note_if_over()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self._is_broken:
                raise PeerUnreachableError(f"{self._peer} reset the stream")
            if self._arriving and self._arriving[0][0] <= trio.current_time():
                return self._take()
            self._changed = trio.Event()
            with trio.move_on_at(self._arriving[0][0] if self._arriving else inf):
                await self._changed.wait()

    def _take(self) -> bytes:
        data = self._arriving[0][1]
        if data:
            self._arriving.popleft()
            self._unread_bytes -= len(data)
            self.other.wake_writer()
            self._note_if_over()
        return data  # the end itself stays, to be read again

    def _note_if_over(self) -> None:
        """Whether both sides have finished, and all was read."""
        if self._has_finished and self._arriving and not self._arriving[0][1]:
            self._on_over(self)

    def wake_writer(self) -> None:
        self._has_room.set()

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_open:
            self._has_finished = True
            self._has_room.set()
            self.other.arrive(b"")
            self._note_if_over()

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()
        self.break_off()
        self.other.break_off()

    def break_off(self) -> None:
        self._is_broken = True
        self._changed.set()
        self._has_room.set()
        self._on_over(self)
