from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count as count_up

import pytest
import trio
import trio.testing

from kowalski.mesh.loopback_transport import (
    GOSSIP_QUEUE_MAX,
    WINDOW_BYTES,
    WRITE_TIMEOUT_S,
    LoopbackNetwork,
    LoopbackTransport,
    Weather,
    open_loopback_network,
)
from kowalski.mesh.loopback_wires import Wires
from kowalski.mesh.transport import Connected, Disconnected, Stream
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId
from tests.mesh.transport_promises import OpenTransport, TransportPromises, ask_echo, join
from tests.mesh.wires import ECHO, TOPIC, echo, everybody

pytestmark = pytest.mark.trio

A, B, C = PeerId("AAAAAAAA"), PeerId("BBBBBBBB"), PeerId("CCCCCCCC")


class TestLoopbackKeepsThePromises(TransportPromises):
    @pytest.fixture
    def clock(self, autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
        return autojump_clock

    @pytest.fixture
    async def world(self, clock: trio.testing.MockClock) -> AsyncIterator[OpenTransport]:
        numbers = count_up()
        async with open_loopback_network() as network:
            yield lambda: serving(network, PeerId(f"peer{next(numbers):04}"))


@asynccontextmanager
async def serving(network: LoopbackNetwork, peer: PeerId) -> AsyncIterator[LoopbackTransport]:
    async with network.transport(peer) as transport:
        transport.serve(ECHO, echo)
        yield transport


async def drain(stream: Stream) -> None:
    while await stream.receive():
        pass


# --- time and weather ---


async def test_a_message_takes_the_latency_of_the_link(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network(weather=Weather(latency_s=0.25)) as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        stream = await a.open_stream(B, ECHO, timeout_s=5)
        sent_at = trio.current_time()
        await stream.send(b"ping")
        assert await stream.receive() == b"ping"
        assert trio.current_time() - sent_at == pytest.approx(0.5)


async def test_jitter_never_reorders_a_stream(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_loopback_network(seed=3, weather=Weather(jitter_s=1.0)) as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        stream = await a.open_stream(B, ECHO, timeout_s=5)
        for number in range(100):
            await stream.send(bytes([number]))
        await stream.finish()
        heard = b""
        while data := await stream.receive():
            heard += data
        assert heard == bytes(range(100))


async def test_the_same_seed_brings_the_same_weather(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def heard(seed: int) -> list[bytes]:
        weather = Weather(gossip_loss=0.5)
        async with (
            open_loopback_network(seed=seed, weather=weather) as network,
            serving(network, A) as a,
            serving(network, B) as b,
        ):
            await join(a, b)
            channel = await b.subscribe(TOPIC, admits=everybody)
            for number in range(60):
                await a.publish(TOPIC, bytes([number]))
            await trio.sleep(1)
            count = channel.statistics().current_buffer_used
            return [channel.receive_nowait().data for _ in range(count)]

    once = await heard(7)
    assert once == await heard(7)
    assert once != await heard(8)
    assert 15 < len(once) < 45


# --- cutting and killing ---


async def test_a_cut_link_breaks_its_connection_until_it_is_mended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network() as network,
        serving(network, A) as a,
        serving(network, B) as b,
        serving(network, C) as c,
    ):
        await join(a, b, c)
        stream = await a.open_stream(B, ECHO, timeout_s=5)
        network.cut(B, A)
        with pytest.raises(PeerUnreachableError):
            await stream.receive()
        assert a.connections == {C}
        for dialler, other in ((a, b), (b, a)):
            with pytest.raises(PeerUnreachableError):
                await dialler.connect(other.peer, other.addresses[0], timeout_s=5)
        await ask_echo(a, C)
        network.mend(A, B)
        await join(b, a)
        await ask_echo(a, B)


async def test_a_killed_peer_is_gone_at_once_and_told_of_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network() as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        stream = await a.open_stream(B, ECHO, timeout_s=5)
        network.kill(B)
        network.kill(B)
        with pytest.raises(PeerUnreachableError):
            await stream.receive()
        for transport, other in ((a, B), (b, A)):
            events = transport.connection_events
            told = [events.receive_nowait(), events.receive_nowait()]
            assert told == [Connected(other), Disconnected(other)]
            with pytest.raises(trio.WouldBlock):
                events.receive_nowait()
        with pytest.raises(PeerUnreachableError):
            await b.connect(A, a.addresses[0], timeout_s=5)
        with pytest.raises(PeerUnreachableError):
            await a.connect(B, b.addresses[0], timeout_s=5)


async def test_a_killed_peer_may_be_back_before_its_old_block_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_loopback_network() as network, serving(network, A) as a:
        async with serving(network, B) as old:
            network.kill(B)
            new_block = serving(network, B)
            new = await new_block.__aenter__()
            with pytest.raises(PeerUnreachableError):
                await old.connect(A, a.addresses[0], timeout_s=5)
        await join(a, new)
        await ask_echo(a, B)
        await new_block.__aexit__(None, None, None)
        assert not a.connections


async def test_a_peer_is_on_a_network_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loopback_network() as network, serving(network, A):
        with pytest.raises(ValueError, match="on this network already"):
            async with serving(network, A):
                pass


# --- limits ---


async def test_a_writer_whose_reader_stands_still_gives_up_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def stand_still(stream: Stream) -> None:
        await trio.sleep_forever()

    async with (
        open_loopback_network() as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        b.serve("/still/1", stand_still)
        await join(a, b)
        stream = await a.open_stream(B, "/still/1", timeout_s=5)
        await stream.send(bytes(WINDOW_BYTES))
        started = trio.current_time()
        with pytest.raises(PeerUnreachableError, match="read nothing"):
            await stream.send(b"x")
        assert trio.current_time() - started == pytest.approx(WRITE_TIMEOUT_S)


async def test_a_connection_slower_than_our_patience_is_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network(weather=Weather(latency_s=3.0)) as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        with pytest.raises(PeerUnreachableError):
            await a.connect(B, b.addresses[0], timeout_s=5)
        await a.connect(B, b.addresses[0], timeout_s=10)
        with pytest.raises(PeerUnreachableError):
            await a.open_stream(B, ECHO, timeout_s=5)


async def test_a_slow_listener_misses_the_oldest(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_loopback_network() as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        heard = await b.subscribe(TOPIC, admits=everybody)
        for number in range(GOSSIP_QUEUE_MAX + 10):
            await a.publish(TOPIC, str(number).encode())
        await trio.sleep(1)
        numbers = [int(heard.receive_nowait().data) for _ in range(GOSSIP_QUEUE_MAX)]
        assert numbers == list(range(10, GOSSIP_QUEUE_MAX + 10))
        with pytest.raises(trio.WouldBlock):
            heard.receive_nowait()


async def test_a_listener_that_left_is_no_trouble(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_loopback_network() as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        (await b.subscribe(TOPIC, admits=everybody)).close()
        heard = await b.subscribe(TOPIC, admits=everybody)
        await a.publish(TOPIC, b"news")
        assert (await heard.receive()).data == b"news"


async def test_two_listeners_of_a_topic_hear_what_each_admits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network() as network,
        serving(network, A) as a,
        serving(network, B) as b,
        serving(network, C) as c,
    ):
        await join(b, a, c)
        of_all = await b.subscribe(TOPIC, admits=everybody)
        of_a = await b.subscribe(TOPIC, admits=lambda origin: origin == A)
        await a.publish(TOPIC, b"a")
        await c.publish(TOPIC, b"c")
        await trio.sleep(1)
        assert [of_all.receive_nowait().origin, of_all.receive_nowait().origin] == [A, C]
        assert of_a.receive_nowait().origin == A
        with pytest.raises(trio.WouldBlock):
            of_a.receive_nowait()


async def test_ended_streams_are_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_loopback_network() as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        for _ in range(50):
            await ask_echo(a, B)
        for _ in range(50):
            await (await a.open_stream(B, ECHO, timeout_s=5)).reset()
        b.serve("/drain/1", drain)
        for _ in range(50):
            stream = await a.open_stream(B, "/drain/1", timeout_s=5)
            await stream.finish()
            assert await stream.receive() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert a.streams_open == 0
        assert b.streams_open == 0


# --- peers that stand still ---


class Stopping(Wires):
    """Wires to peers of which some stand still until a moment of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.still_until: dict[PeerId, float] = {}

    def awake_at(self, receiver: PeerId) -> float:
        return self.still_until.get(receiver, self.now())


async def test_who_stands_still_loses_its_connections_when_it_moves_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network(wires=(wires := Stopping())) as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        stream = await b.open_stream(A, ECHO, timeout_s=5)
        assert b.connection_events.receive_nowait() == Connected(A)
        wires.still_until[B] = 5.0
        await a.disconnect(B)
        await trio.sleep(3)
        assert (a.connections, b.connections) == (frozenset(), {A})
        with pytest.raises(trio.WouldBlock):
            b.connection_events.receive_nowait()
        with pytest.raises(PeerUnreachableError):
            await stream.receive()
        assert trio.current_time() == 5.0
        assert b.connection_events.receive_nowait() == Disconnected(A)


async def test_who_stands_still_answers_no_call_before_it_moves_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network(wires=(wires := Stopping())) as network,
        serving(network, A) as a,
        serving(network, B) as b,
        trio.open_nursery() as nursery,
    ):
        wires.weather = Weather(latency_s=1.0)
        nursery.start_soon(partial(a.connect, B, b.addresses[0], timeout_s=20))
        await trio.sleep(1.5)
        wires.still_until[B] = 8.0  # it has been asked, and its answer is under way
        await trio.sleep(6)
        assert not a.connections
        assert not b.connections
        await trio.sleep(3)
        assert a.connections == {B}


async def test_a_stream_that_is_reset_from_one_who_stands_still_breaks_when_it_moves_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network(wires=(wires := Stopping())) as network,
        serving(network, A) as a,
        serving(network, B) as b,
    ):
        await join(a, b)
        b.serve("/hold/1", drain)
        stream = await a.open_stream(B, "/hold/1", timeout_s=5)
        await trio.testing.wait_all_tasks_blocked()
        (end,) = b.streams(A)
        wires.still_until[B] = 6.0
        network.reset(b, end)
        await trio.sleep(5)
        assert end.is_open
        with pytest.raises(PeerUnreachableError):
            await stream.receive()
        assert trio.current_time() >= 6.0


async def test_who_stands_still_passes_gossip_on_when_it_moves_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_loopback_network(wires=(wires := Stopping())) as network,
        serving(network, A) as a,
        serving(network, B) as b,
        serving(network, C) as c,
    ):
        await join(b, a, c)
        heard = await c.subscribe(TOPIC, admits=everybody)
        await b.subscribe(TOPIC, admits=everybody)
        wires.still_until[B] = 4.0
        await a.publish(TOPIC, b"news")
        assert (await heard.receive()).data == b"news"
        assert trio.current_time() >= 4.0
