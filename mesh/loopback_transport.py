"""A network inside one process, for virtual time: real bytes, made-up wires.

Streams are reliable and ordered until they are reset, and hold their writer back when nobody reads;
a message takes the link's latency; gossip may be lost. Links can be cut and peers killed.
`LoopbackNetwork` is the world, `transport()` one peer in it, `loopback_wires` what lies between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from itertools import count
from typing import Protocol

import trio

from kowalski.mesh.loopback_carrier import Carrier
from kowalski.mesh.loopback_peer import GOSSIP_QUEUE_MAX, Connection, LoopbackTransport
from kowalski.mesh.loopback_streams import (
    RECEIVE_BYTES_MAX,
    WINDOW_BYTES,
    WRITE_TIMEOUT_S,
    End,
)
from kowalski.mesh.loopback_wires import HALF_OPEN_S, Link, Weather, Wires
from kowalski.mesh.transport import (
    Gossip,
    Stream,
    StreamHandler,
)
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId, Topic

__all__ = [
    "GOSSIP_QUEUE_MAX",
    "RECEIVE_BYTES_MAX",
    "WINDOW_BYTES",
    "WRITE_TIMEOUT_S",
    "LoopbackNetwork",
    "LoopbackTransport",
    "Tap",
    "Weather",
    "open_loopback_network",
]

NEIGHBOURS = 6
"""Peers to whom one passes gossip on, in a larger network; gossipsub's D."""


class Tap(Protocol):
    """Listens to everything that is sent on streams, for those who watch from outside."""

    def sent(self, sender: PeerId, end: End, data: bytes) -> None: ...

    def arrived(self, sender: PeerId, end: End, data: bytes) -> None: ...

    def gossiped(self, receiver: PeerId, topic: Topic, gossip: Gossip) -> None: ...


class LoopbackNetwork:
    """The world that loopback transports share. Made by `open_loopback_network`."""

    def __init__(self, nursery: trio.Nursery, wires: Wires, tap: Tap | None = None) -> None:
        self.wires = wires
        self.tap = tap
        self._nursery = nursery
        self._carrier = Carrier(wires, self._on_held)
        self._peers: dict[PeerId, LoopbackTransport] = {}
        self._dark: set[PeerId] = set()
        """Lost without a word: who calls them waits in vain."""
        self._streams = count(1)

    @property
    def weather(self) -> Weather:
        return self.wires.weather

    @weather.setter
    def weather(self, weather: Weather) -> None:
        self.wires.weather = weather

    @asynccontextmanager
    async def transport(self, peer: PeerId) -> AsyncIterator[LoopbackTransport]:
        """One peer's transport, until the block is left; leaving it drops all its connections."""
        if peer in self._peers:
            raise ValueError(f"{peer} is on this network already")
        transport = LoopbackTransport(self, peer)
        self._peers[peer] = transport
        self._dark.discard(peer)
        try:
            yield transport
        finally:
            if self._peers.get(peer) is transport:  # else it was killed, and may be back
                self.kill(peer)

    # --- what happens to it ---------------------------------------------------------------------

    def kill(self, peer: PeerId, *, is_silent: bool = False) -> None:
        """End a process: like SIGKILL, every connection of `peer` is gone, and nobody can dial it.

        Silently, like a power cut: the others hear nothing, and their connections stay half open.
        """
        transport = self._peers.pop(peer, None)
        if transport is None:
            return
        transport.stop()
        for other in sorted(transport.connections):
            if is_silent:
                self._expire(transport.far(other), transport)
                transport.lose(other)
            else:
                self.drop(transport, other)
        if is_silent:
            self._dark.add(peer)

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Cut the link between two peers: open connections break, and dials fail."""
        self.wires.close(one, other)
        if transport := self._peers.get(one):
            self.drop(transport, other)

    def mend(self, one: PeerId, other: PeerId) -> None:
        self.wires.open(one, other)
        self.release(one, other)

    def release(self, one: PeerId, other: PeerId) -> None:
        """Tell that the wires between two peers are silent no more: send what waits for that."""
        self._carrier.release(one, other)

    def drop(self, transport: LoopbackTransport, peer: PeerId) -> None:
        """Break the connection of a transport with a peer, if there is one."""
        connection = transport.connection(peer)
        if connection is not None:
            self._take_away(transport, connection)
            if connection.mirror is not None:
                self._take_away(connection.far, connection.mirror)

    def _take_away(self, transport: LoopbackTransport, connection: Connection) -> None:
        """A connection is over: who stands still does not notice before it moves again."""
        peer = connection.far.peer

        def lose() -> None:
            if transport.connection(peer) is connection:
                transport.lose(peer)

        self._when_awake(transport.peer, lose)

    def _when_awake(self, peer: PeerId, do: Callable[[], None]) -> None:
        now = self.wires.now()
        if self.wires.awake_at(peer) > now:
            self._carrier.schedule(now, peer, do)
        else:
            do()

    def _on_held(self, sender: PeerId, receiver: PeerId) -> None:
        one, other = self._peers.get(sender), self._peers.get(receiver)
        if one is not None and other is not None:
            self._expire(one, other)
            self._expire(other, one)

    def _expire(self, near: LoopbackTransport, far: LoopbackTransport) -> None:
        """Let `near` lose its connection with `far` in a while, if it is the same then."""
        connection = near.connection(far.peer)

        def lose() -> None:
            if near.connection(far.peer) is connection:
                near.lose(far.peer)

        self._carrier.schedule(self.wires.now() + HALF_OPEN_S, near.peer, lose)

    # --- carrying -------------------------------------------------------------------------------

    def bring(
        self, sender: LoopbackTransport, end: End, data: bytes, deliver: Callable[[], None]
    ) -> None:
        """Carry something from one end of a stream to the other."""
        if self._is_forgotten(sender, end.peer):
            self._carrier.schedule(self.wires.now(), sender.peer, lambda: sender.lose(end.peer))
            return
        tap = self.tap
        if tap is None or not data:
            self._carrier.post(sender.peer, end.peer, len(data), deliver)
            return
        tap.sent(sender.peer, end, data)

        def arrive() -> None:
            tap.arrived(sender.peer, end, data)
            deliver()

        self._carrier.post(sender.peer, end.peer, len(data), arrive)

    def _is_forgotten(self, sender: LoopbackTransport, peer: PeerId) -> bool:
        """Whether the peer has started anew since, and knows nothing of our connection."""
        connection, receiver = sender.connection(peer), self._peers.get(peer)
        return connection is not None and receiver not in {None, connection.far}

    async def carry(self) -> None:
        """Let everything arrive, until cancelled."""
        await self._carrier.carry()

    # --- reaching each other --------------------------------------------------------------------

    async def reach(self, me: LoopbackTransport, peer: PeerId) -> LoopbackTransport:
        """The transport of `peer`, after a round trip; waits in vain where nobody would answer.

        Neither stands still as it returns.

        Raises:
            PeerUnreachableError: one of them is down, or the link is closed.
        """
        await self._round_trip(me.peer, peer)
        while self.wires.awake_at(peer) > self.wires.now():
            await self._round_trip(me.peer, peer)  # it has stopped before its last word
        while peer in self._dark:
            await trio.sleep_forever()
        other = self._peers.get(peer)
        is_closed = self.wires.link(me.peer, peer) is Link.CLOSED
        if other is None or is_closed or self._peers.get(me.peer) is not me:
            raise PeerUnreachableError(f"nobody answers at {peer}")
        return other

    async def _round_trip(self, me: PeerId, peer: PeerId) -> None:
        answered = trio.Event()
        post = self._carrier.post
        post(me, peer, 0, lambda: post(peer, me, 0, answered.set))
        await answered.wait()

    async def until_awake(self, peer: PeerId) -> None:
        """Wait while a peer stands still: whoever acts for it after others have done something."""
        while self.wires.awake_at(peer) > self.wires.now():
            awake = trio.Event()
            self._carrier.schedule(self.wires.now(), peer, awake.set)
            await awake.wait()

    def number_stream(self) -> int:
        return next(self._streams)

    def run(self, transport: LoopbackTransport, handler: StreamHandler, stream: Stream) -> None:
        """Serve a stream as the node does whose transport it is, if it is still there."""

        def serve() -> None:
            if self._peers.get(transport.peer) is transport:
                transport.context.run(self._nursery.start_soon, transport.handle, handler, stream)

        self._when_awake(transport.peer, serve)

    def reset(self, transport: LoopbackTransport, stream: End, *, after: bytes = b"") -> None:
        """Break a stream of a transport, from its side, with the last bytes that it still sends."""

        def break_it() -> None:
            if after and stream.is_open:
                stream.put(after)
            stream.cut_short()

        self._when_awake(transport.peer, break_it)

    # --- gossip ---------------------------------------------------------------------------------

    def spread(self, origin: PeerId, topic: Topic, data: bytes) -> None:
        """Flood along neighbours whose ends admit the origin, as gossipsub would."""
        wires = self.wires
        now = wires.now()
        gossip = Gossip(origin, data)
        heard = {origin}
        frontier = deque([(origin, now)])
        asleep: deque[tuple[PeerId, float]] = deque()
        while frontier or asleep:
            at, since = (frontier or asleep).popleft()
            transport = self._peers.get(at)
            for other in transport.neighbours if transport else ():
                if other in heard or wires.is_gossip_lost(at, other):
                    continue
                receiver = self._peers.get(other)
                if receiver is None or not receiver.gossips_with(at):
                    continue
                if not receiver.wants(topic, origin) or wires.link(at, other) is not Link.OPEN:
                    continue
                heard.add(other)
                arrival = since + wires.travel_s(at, other, len(data))
                hear = self._hearing(receiver, topic, gossip)
                for later_s in wires.gossip_delays_s(other):
                    self._carrier.schedule(arrival + later_s, other, hear)
                awake_at = wires.awake_at(other)
                if awake_at > arrival:  # others are asked first: what it passes on comes late
                    asleep.append((other, awake_at))
                else:
                    frontier.append((other, arrival))

    def _hearing(
        self, receiver: LoopbackTransport, topic: Topic, gossip: Gossip
    ) -> Callable[[], None]:
        def hear() -> None:
            if self._peers.get(receiver.peer) is receiver:
                if self.tap is not None:
                    self.tap.gossiped(receiver.peer, topic, gossip)
                receiver.hear(topic, gossip)

        return hear

    def neighbours(self, peer: PeerId, others: frozenset[PeerId]) -> tuple[PeerId, ...]:
        """To whom of `others` a peer passes gossip on: all of a few, else who is near by hash.

        Both ends of an edge agree on how near they are, so that most edges go both ways.
        """
        if len(others) <= 2 * NEIGHBOURS:
            return tuple(sorted(others))
        return tuple(sorted(others, key=lambda other: _distance(peer, other))[: NEIGHBOURS + 2])


def _distance(one: PeerId, other: PeerId) -> bytes:
    low, high = sorted((one, other))
    return blake2b(f"{low} {high}".encode(), digest_size=8).digest()


@asynccontextmanager
async def open_loopback_network(
    *,
    seed: int = 0,
    weather: Weather | None = None,
    wires: Wires | None = None,
    tap: Tap | None = None,
) -> AsyncIterator[LoopbackNetwork]:
    """A network on quiet wires with that weather, or on wires of the caller's."""
    async with trio.open_nursery() as nursery:
        network = LoopbackNetwork(nursery, wires or Wires(seed, weather), tap)
        nursery.start_soon(network.carry)
        yield network
        nursery.cancel_scope.cancel()
