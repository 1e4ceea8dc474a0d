"""Peers that are lost without a word, and connections of which only one side knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
import trio
import trio.testing

from kowalski.mesh.loopback_peer import LoopbackTransport
from kowalski.mesh.loopback_transport import LoopbackNetwork, open_loopback_network
from kowalski.mesh.loopback_wires import HALF_OPEN_S, Link, Wires
from kowalski.mesh.transport import Connected, Disconnected, Gossip, Stream
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId, Topic
from tests.mesh.transport_promises import ask_echo, join
from tests.mesh.wires import ECHO, TOPIC, echo, everybody

pytestmark = pytest.mark.trio

A, B, C = PeerId("AAAAAAAA"), PeerId("BBBBBBBB"), PeerId("CCCCCCCC")

whoami: ContextVar[str] = ContextVar("whoami", default="nobody")


@asynccontextmanager
async def serving(network: LoopbackNetwork, peer: PeerId) -> AsyncIterator[LoopbackTransport]:
    async with network.transport(peer) as transport:
        transport.serve(ECHO, echo)
        yield transport


class Mutable(Wires):
    def __init__(self) -> None:
        super().__init__()
        self.silent: set[tuple[PeerId, PeerId]] = set()

    def link(self, sender: PeerId, receiver: PeerId) -> Link:
        return Link.SILENT if (sender, receiver) in self.silent else super().link(sender, receiver)


async def test_a_peer_without_power_leaves_its_connections_half_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_loopback_network() as network, serving(network, A) as a:
        async with serving(network, B) as b:
            await join(a, b)
            stream = await a.open_stream(B, ECHO, timeout_s=5)
            network.kill(B, is_silent=True)
        lost_at = trio.current_time()
        assert a.connections == {B}
        await stream.send(b"anybody?")
        for timeout_s in (1.0, 2.0):
            with pytest.raises(PeerUnreachableError):
                await a.open_stream(B, ECHO, timeout_s=timeout_s)
        with pytest.raises(PeerUnreachableError):
            await stream.receive()
        assert trio.current_time() - lost_at == pytest.approx(HALF_OPEN_S)
        assert not a.connections
        with pytest.raises(PeerUnreachableError):
            await a.connect(B, b.addresses[0], timeout_s=3)


async def test_a_peer_that_is_back_makes_an_end_of_the_half_open_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_loopback_network() as network, serving(network, A) as a:
        async with serving(network, B) as b:
            await join(a, b)
            network.kill(B, is_silent=True)
        async with serving(network, B) as b:
            await b.connect(A, a.addresses[0], timeout_s=5)
            events = [a.connection_events.receive_nowait() for _ in range(3)]
            assert events == [Connected(B), Disconnected(B), Connected(B)]
            a.admit(B)
            b.admit(A)
            await ask_echo(a, B)
            await trio.sleep(2 * HALF_OPEN_S)
            assert a.connections == {B}


async def test_who_asks_a_peer_that_has_forgotten_the_connection_loses_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_loopback_network() as network, serving(network, A) as a:
        async with serving(network, B) as b:
            await join(a, b)
            network.kill(B, is_silent=True)
        async with serving(network, B):
            with pytest.raises(PeerUnreachableError):
                await a.open_stream(B, ECHO, timeout_s=5)
            assert not a.connections


async def test_who_speaks_on_a_stream_of_a_connection_that_is_forgotten_loses_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_loopback_network() as network, serving(network, A) as a:
        async with serving(network, B) as b:
            await join(a, b)
            stream = await a.open_stream(B, ECHO, timeout_s=5)
            network.kill(B, is_silent=True)
        async with serving(network, B):
            await stream.send(b"anybody?")
            with trio.fail_after(1), pytest.raises(PeerUnreachableError):
                await stream.receive()
            assert not a.connections


@pytest.mark.parametrize("both", [True, False])
async def test_a_link_that_fell_silent_ends_its_connection_after_a_while_on_both_sides(
    both: bool, autojump_clock: trio.testing.MockClock
) -> None:
    wires = Mutable()
    async with (
        open_loopback_network(wires=wires) as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        stream = await a.open_stream(B, ECHO, timeout_s=5)
        wires.silent |= {(A, B), (B, A)} if both else {(A, B)}
        await stream.send(b"anybody?")
        await trio.sleep(HALF_OPEN_S - 1)
        assert (a.connections, b.connections) == ({B}, {A})
        await trio.sleep(2)
        assert not a.connections
        assert not b.connections


async def test_a_silence_that_ends_in_time_is_only_a_delay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wires = Mutable()
    async with (
        open_loopback_network(wires=wires) as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        stream = await a.open_stream(B, ECHO, timeout_s=5)
        wires.silent.add((A, B))
        await stream.send(b"late")
        await trio.sleep(5)
        wires.silent.clear()
        network.release(A, B)
        assert await stream.receive() == b"late"


async def test_what_a_killed_process_was_doing_for_others_is_not_done(
    autojump_clock: trio.testing.MockClock,
) -> None:
    done: list[str] = []

    async def work(_stream: Stream) -> None:
        await trio.sleep(1)
        done.append("work")

    async with (
        open_loopback_network() as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        b.serve("/work/1", work)
        await join(a, b)
        await a.open_stream(B, "/work/1", timeout_s=5)
        await trio.sleep(0.5)
        network.kill(B)
        await trio.sleep(5)
        assert not done


async def test_streams_are_served_in_the_context_of_their_node(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def tell(stream: Stream) -> None:
        await stream.send(whoami.get().encode())

    async with open_loopback_network() as network, trio.open_nursery() as nursery:
        opened: dict[PeerId, LoopbackTransport] = {}

        async def live(peer: PeerId, *, task_status: trio.TaskStatus[None]) -> None:
            whoami.set(f"node {peer[0]}")
            async with serving(network, peer) as transport:
                transport.serve("/who/1", tell)
                opened[peer] = transport
                task_status.started()
                await trio.sleep_forever()

        for peer in (A, B):
            await nursery.start(live, peer)
        await join(opened[A], opened[B])
        stream = await opened[A].open_stream(B, "/who/1", timeout_s=5)
        assert await stream.receive() == b"node B"
        nursery.cancel_scope.cancel()


async def test_in_a_large_network_gossip_goes_by_a_few_neighbours_and_reaches_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_loopback_network() as network, trio.open_nursery() as nursery:
        opened: list[LoopbackTransport] = []

        async def live(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with serving(network, PeerId(f"peer{number:04}")) as transport:
                opened.append(transport)
                task_status.started()
                await trio.sleep_forever()

        for number in range(24):
            await nursery.start(live, number)
        for place, one in enumerate(opened):
            await join(one, *opened[place + 1 :])
        assert all(6 <= len(one.neighbours) <= 12 for one in opened)
        heard = [await one.subscribe(TOPIC, admits=everybody) for one in opened[1:]]
        await opened[0].subscribe(TOPIC, admits=everybody)
        await opened[0].publish(TOPIC, b"news")
        await trio.sleep(1)
        assert [channel.receive_nowait().data for channel in heard] == [b"news"] * 23
        nursery.cancel_scope.cancel()


class Notes:
    """A tap."""

    def __init__(self) -> None:
        self.streams: list[tuple[str, PeerId, PeerId, bytes]] = []
        self.gossip: list[tuple[PeerId, Topic, Gossip]] = []

    def sent(self, sender: PeerId, end: object, data: bytes) -> None:
        self.streams.append(("sent", sender, end.peer, data))  # type: ignore[attr-defined]

    def arrived(self, sender: PeerId, end: object, data: bytes) -> None:
        self.streams.append(("arrived", sender, end.peer, data))  # type: ignore[attr-defined]

    def gossiped(self, receiver: PeerId, topic: Topic, gossip: Gossip) -> None:
        self.gossip.append((receiver, topic, gossip))


async def test_a_tap_hears_what_is_sent_and_what_arrives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    notes = Notes()
    async with (
        open_loopback_network(tap=notes) as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        await ask_echo(a, B, b"hello")
        assert notes.streams == [
            ("sent", A, B, b"hello"),
            ("arrived", A, B, b"hello"),
            ("sent", B, A, b"hello"),
            ("arrived", B, A, b"hello"),
        ]
        await b.subscribe(TOPIC, admits=everybody)
        await a.publish(TOPIC, b"news")
        await trio.sleep(1)
        assert notes.gossip == [(B, TOPIC, Gossip(A, b"news"))]
