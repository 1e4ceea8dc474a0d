"""A network inside one process, for virtual time: real bytes, made-up wires.

Streams are reliable and ordered until they are reset; a message takes the link's latency; gossip
may be lost. Links can be cut and peers killed. `LoopbackNetwork` is the world, `transport()` one
peer in it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from kowalski.protocol.errors import KowalskiError, PeerUnreachableError
from kowalski.protocol.ids import Address, PeerId, Topic

log = structlog.get_logger(__name__)

RECEIVE_BYTES_MAX = 64 * 1024
EVENTS_MAX = 1024
GOSSIP_QUEUE_MAX = 256


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
            self.kill(peer)

    def kill(self, peer: PeerId) -> None:
        """Like SIGKILL: every connection of `peer` is gone, and nobody can dial it."""
        if transport := self._peers.pop(peer, None):
            for other in list(transport.connections):
                self._drop(other, peer)
                transport.lose(other)

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Cut the link between two peers: open connections break, and dials fail."""
        self._cut.add(frozenset((one, other)))
        self._drop(one, other)

    def mend(self, one: PeerId, other: PeerId) -> None:
        self._cut.discard(frozenset((one, other)))

    def _drop(self, one: PeerId, other: PeerId) -> None:
        for me, them in ((one, other), (other, one)):
            if transport := self._peers.get(me):
                transport.lose(them)

    def find(self, me: PeerId, other: PeerId) -> LoopbackTransport:
        """The transport of `other` as dialled by `me`.

        Raises:
            PeerUnreachableError: it is down, or the link is cut.
        """
        transport = self._peers.get(other)
        if transport is None or me not in self._peers or frozenset((me, other)) in self._cut:
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
            for other in sorted(transport.connections) if transport else ():
                if other in heard or self._random.random() < self.weather.gossip_loss:
                    continue
                receiver = self._peers.get(other)
                if receiver is None or not receiver.wants(topic, origin):
                    continue
                heard.add(other)
                arrives_s = delay_s + self.travel_s()
                self._nursery.start_soon(receiver.hear, arrives_s, topic, Gossip(origin, data))
                frontier.append((other, arrives_s))

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
        yield LoopbackNetwork(nursery, seed, weather or Weather())
        nursery.cancel_scope.cancel()


class LoopbackTransport:
    """One peer on a `LoopbackNetwork`."""

    def __init__(self, network: LoopbackNetwork, peer: PeerId) -> None:
        self._network = network
        self._peer = peer
        self._streams: dict[PeerId, set[_End]] = {}
        self._handlers: dict[str, StreamHandler] = {}
        self._topics: dict[Topic, tuple[Callable[[PeerId], bool], _Latest]] = {}
        self._events_in, self._events_out = trio.open_memory_channel[ConnectionEvent](EVENTS_MAX)

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
    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        return self._events_out

    async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
        if peer in self._streams:
            return
        with trio.move_on_after(timeout_s) as patience:
            await trio.sleep(2 * self._network.travel_s())
        if patience.cancelled_caught or address != f"/memory/{peer}":
            raise PeerUnreachableError(f"nobody answers at {address}")
        other = self._network.find(self._peer, peer)
        self.join(peer)
        other.join(self._peer)

    def join(self, peer: PeerId) -> None:
        if peer not in self._streams:
            self._streams[peer] = set()
            self._events_in.send_nowait(Connected(peer))

    def lose(self, peer: PeerId) -> None:
        ends = self._streams.pop(peer, None)
        if ends is not None:
            for end in ends:
                end.break_off()
            self._events_in.send_nowait(Disconnected(peer))

    async def disconnect(self, peer: PeerId) -> None:
        await trio.lowlevel.checkpoint()
        if peer in self._streams:
            self._network._drop(self._peer, peer)  # noqa: SLF001 one room

    async def open_stream(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Stream:
        with trio.move_on_after(timeout_s) as patience:
            await trio.sleep(2 * self._network.travel_s())
        if patience.cancelled_caught or peer not in self._streams:
            raise PeerUnreachableError(f"no connection to {peer}")
        other = self._network.find(self._peer, peer)
        handler = other.handler(protocol)
        if handler is None:
            raise PeerUnreachableError(f"{peer} does not speak {protocol}")
        ours, theirs = _End(self._network, peer), _End(self._network, self._peer)
        ours.other, theirs.other = theirs, ours
        self._streams[peer].add(ours)
        other.adopt(self._peer, theirs)
        self._network.run(handler, theirs)
        return ours

    def handler(self, protocol: str) -> StreamHandler | None:
        return self._handlers.get(protocol)

    def adopt(self, peer: PeerId, end: _End) -> None:
        self._streams[peer].add(end)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    async def subscribe(
        self, topic: Topic, *, admits: Callable[[PeerId], bool]
    ) -> trio.MemoryReceiveChannel[Gossip]:
        await trio.lowlevel.checkpoint()
        latest = _Latest()
        self._topics[topic] = (admits, latest)
        return latest.channel

    def wants(self, topic: Topic, origin: PeerId) -> bool:
        return topic in self._topics and self._topics[topic][0](origin)

    async def hear(self, after_s: float, topic: Topic, gossip: Gossip) -> None:
        await trio.sleep(after_s)
        if topic in self._topics:
            self._topics[topic][1].put(gossip)

    async def publish(self, topic: Topic, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._network.spread(self._peer, topic, data)


class _Latest:
    """A bounded channel that drops its oldest message when it is full."""

    def __init__(self) -> None:
        self._send, self.channel = trio.open_memory_channel[Gossip](GOSSIP_QUEUE_MAX)

    def put(self, gossip: Gossip) -> None:
        if self._send.statistics().current_buffer_used >= GOSSIP_QUEUE_MAX:
            self.channel.receive_nowait()
        self._send.send_nowait(gossip)


class _End:
    """One end of a stream. What is sent arrives at the other end after the link's latency."""

    other: _End

    def __init__(self, network: LoopbackNetwork, peer: PeerId) -> None:
        self._network = network
        self._peer = peer
        self._arriving: deque[tuple[float, bytes]] = deque()
        self._last_arrival = -inf
        self._changed = trio.Event()
        self._is_broken = False
        self._has_finished = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._is_broken or self._has_finished:
            raise PeerUnreachableError(f"the stream to {self._peer} is gone")
        for start in range(0, len(data), RECEIVE_BYTES_MAX):
            self.other.arrive(data[start : start + RECEIVE_BYTES_MAX])

    def arrive(self, data: bytes) -> None:
        at = max(self._last_arrival, trio.current_time() + self._network.travel_s())
        self._last_arrival = at
        self._arriving.append((at, data))
        self._changed.set()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self._is_broken:
                raise PeerUnreachableError(f"{self._peer} reset the stream")
            if self._arriving and self._arriving[0][0] <= trio.current_time():
                return self._arriving[0][1] and self._arriving.popleft()[1]  # the end stays
            self._changed = trio.Event()
            with trio.move_on_at(self._arriving[0][0] if self._arriving else inf):
                await self._changed.wait()

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self._has_finished and not self._is_broken:
            self._has_finished = True
            self.other.arrive(b"")

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()
        self.break_off()
        self.other.break_off()

    def break_off(self) -> None:
        self._is_broken = True
        self._changed.set()
