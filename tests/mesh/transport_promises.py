"""What `mesh.transport` promises, as tests that every implementation of it has to pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from kowalski.mesh.transport import Connected, Disconnected, Stream, Transport
from kowalski.protocol.errors import LocalProtocolError, PeerUnreachableError
from kowalski.protocol.ids import Address, PeerId, Topic
from kowalski.protocol.limits import GOSSIP_BYTES_MAX
from tests.mesh.wires import (
    ECHO,
    PATIENCE_S,
    TOPIC,
    echo,
    eventually,
    everybody,
    publish_until_heard,
    receive_exactly,
)

FENCE = Topic("kowalski/test/fence")
COUNT = "/kowalski-test/count/1"
HIDDEN = "/kowalski-test/hidden/1"
STRANGER = PeerId("12D3KooWCKTs5XsuSLKvLQkJyPCLLw93ANb2CvpLEFsGZxSNd3v6")

OpenTransport = Callable[[], AbstractAsyncContextManager[Transport]]
"""One more peer in a world; they all serve `ECHO`."""


async def join(one: Transport, *others: Transport) -> None:
    for other in others:
        await one.connect(other.peer, other.addresses[0], timeout_s=5)
        await eventually(lambda other=other: one.peer in other.connections)
        one.admit(other.peer)
        other.admit(one.peer)


async def ask_echo(transport: Transport, peer: PeerId, data: bytes = b"anybody?") -> None:
    """Fail unless `peer` answers on a fresh stream."""
    stream = await transport.open_stream(peer, ECHO, timeout_s=5)
    await stream.send(data)
    assert await receive_exactly(stream, len(data)) == data
    await stream.finish()
    assert await stream.receive() == b""


async def count(stream: Stream) -> None:
    """Answer with the number of bytes once the asker has finished."""
    size = 0
    while data := await stream.receive():
        size += len(data)
    await stream.send(f"{size:06}".encode())


class TransportPromises:
    """Subclasses have fixtures `world`, which opens peers, and `clock`, which may be virtual."""

    pytestmark = pytest.mark.trio

    # --- streams ---

    async def test_what_is_sent_comes_back_and_each_end_names_the_other(
        self, world: OpenTransport, clock: object
    ) -> None:
        callers: list[PeerId] = []

        async def note(stream: Stream) -> None:
            callers.append(stream.peer)
            await echo(stream)

        async with world() as a, world() as b:
            b.serve(ECHO, note)
            await join(a, b)
            stream = await a.open_stream(b.peer, ECHO, timeout_s=5)
            assert stream.peer == b.peer
            await stream.send(b"hello")
            assert await receive_exactly(stream, 5) == b"hello"
            assert callers == [a.peer]
            await ask_echo(b, a.peer)

    async def test_large_things_arrive_whole_in_order_and_in_pieces(
        self, world: OpenTransport, clock: object
    ) -> None:
        data = b"".join(number.to_bytes(4, "big") for number in range(250_000))
        heard = bytearray()
        async with world() as a, world() as b:
            await join(a, b)
            stream = await a.open_stream(b.peer, ECHO, timeout_s=5)

            async def pump() -> None:
                await stream.send(data)
                await stream.finish()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump)
                while piece := await stream.receive():
                    assert len(piece) <= 64 * 1024
                    heard += piece
        assert heard == data

    async def test_finishing_one_side_leaves_the_other_open(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            b.serve(COUNT, count)
            await join(a, b)
            stream = await a.open_stream(b.peer, COUNT, timeout_s=5)
            await stream.send(bytes(100_000))
            await stream.finish()
            assert await receive_exactly(stream, 6) == b"100000"
            assert await stream.receive() == b""
            assert await stream.receive() == b""
            with pytest.raises(PeerUnreachableError):
                await stream.send(b"one more thing")

    async def test_a_reset_is_an_error_at_the_other_end_and_may_be_repeated(
        self, world: OpenTransport, clock: object
    ) -> None:
        ends: list[str] = []

        async def wait(stream: Stream) -> None:
            try:
                await stream.receive()
                ends.append("finished")
            except PeerUnreachableError:
                ends.append("reset")

        async with world() as a, world() as b:
            b.serve("/wait/1", wait)
            await join(a, b)
            stream = await a.open_stream(b.peer, "/wait/1", timeout_s=5)
            await stream.reset()
            await stream.reset()
            await stream.finish()
            with pytest.raises(PeerUnreachableError):
                await stream.receive()
            await eventually(lambda: ends == ["reset"])

    async def test_a_reset_wakes_a_waiting_receive_on_our_own_side(
        self, world: OpenTransport, clock: object
    ) -> None:
        woken: list[str] = []
        async with world() as a, world() as b:
            await join(a, b)
            stream = await a.open_stream(b.peer, ECHO, timeout_s=5)

            async def wait() -> None:
                with pytest.raises(PeerUnreachableError):
                    await stream.receive()
                woken.append("yes")

            with trio.fail_after(PATIENCE_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    await trio.testing.wait_all_tasks_blocked()
                    await stream.reset()
        assert woken == ["yes"]

    async def test_a_handler_that_raises_resets_its_stream_and_nothing_else(
        self, world: OpenTransport, clock: object
    ) -> None:
        async def fail(stream: Stream) -> None:
            raise ZeroDivisionError

        async with world() as a, world() as b:
            b.serve("/fail/1", fail)
            await join(a, b)
            with pytest.raises(PeerUnreachableError):
                await (await a.open_stream(b.peer, "/fail/1", timeout_s=5)).receive()
            await ask_echo(a, b.peer)

    async def test_a_handler_that_returns_ends_its_side(
        self, world: OpenTransport, clock: object
    ) -> None:
        async def greet(stream: Stream) -> None:
            await stream.send(b"hello")

        async with world() as a, world() as b:
            b.serve("/greet/1", greet)
            await join(a, b)
            stream = await a.open_stream(b.peer, "/greet/1", timeout_s=5)
            assert await receive_exactly(stream, 5) == b"hello"
            assert await stream.receive() == b""

    async def test_many_streams_at_once_keep_apart(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            await join(a, b)
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask_echo, a, b.peer, f"a{number}".encode() * 500)
                    nursery.start_soon(ask_echo, b, a.peer, f"b{number}".encode() * 500)

    async def test_who_does_not_speak_a_protocol_or_is_not_connected_is_unreachable(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b, world() as c:
            await join(a, b)
            for peer, protocol in ((b.peer, "/nope/1"), (c.peer, ECHO), (STRANGER, ECHO)):
                with pytest.raises(PeerUnreachableError):
                    await a.open_stream(peer, protocol, timeout_s=5)
            await ask_echo(a, b.peer)

    async def test_a_writer_waits_for_its_reader_and_may_be_cancelled_at_no_cost_to_others(
        self, world: OpenTransport, clock: object
    ) -> None:
        goes_on = trio.Event()
        heard: list[bytes] = []

        async def read_late(stream: Stream) -> None:
            await goes_on.wait()
            heard.append(await receive_exactly(stream, 200_000))

        async with world() as a, world() as b:
            b.serve("/late/1", read_late)
            await join(a, b)
            stream = await a.open_stream(b.peer, "/late/1", timeout_s=5)
            with trio.move_on_after(1) as impatience:
                for _ in range(1000):
                    await stream.send(bytes(100_000))
            assert impatience.cancelled_caught
            await ask_echo(a, b.peer)
            goes_on.set()
            await eventually(lambda: bool(heard))

    # --- connections ---

    async def test_only_the_peer_that_was_meant_is_connected_to(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            for peer, address in (
                (STRANGER, b.addresses[0]),
                (b.peer, Address("/ip4/127.0.0.1/tcp/1")),
                (a.peer, a.addresses[0]),
            ):
                with pytest.raises(PeerUnreachableError):
                    await a.connect(peer, address, timeout_s=5)
            assert not a.connections

    async def test_a_peer_is_found_where_it_is_and_nothing_changes_by_looking(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b, world() as c:
            await join(a, b)
            assert await a.finds(b.peer, b.addresses[0], timeout_s=5)
            assert not await a.finds(c.peer, b.addresses[0], timeout_s=5)
            assert not await a.finds(b.peer, Address("/ip4/127.0.0.1/tcp/1"), timeout_s=5)
            assert not await a.finds(a.peer, a.addresses[0], timeout_s=5)
            assert a.connections == {b.peer}
            assert b.connections == {a.peer}
            await ask_echo(a, b.peer)
            assert await c.finds(b.peer, b.addresses[0], timeout_s=5)
            assert not c.connections

    async def test_dials_of_one_peer_at_once_and_again_make_one_connection(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(join, a, b)
            await a.connect(b.peer, Address("/ip4/127.0.0.1/tcp/1"), timeout_s=1)
            assert a.connections == {b.peer}
            assert a.connection_events.receive_nowait() == Connected(b.peer)
            with pytest.raises(trio.WouldBlock):
                a.connection_events.receive_nowait()

    async def test_each_first_connection_and_each_last_end_is_told_once_in_order(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            for _ in range(3):
                await join(a, b)
                await a.disconnect(b.peer)
                await eventually(lambda: not a.connections and not b.connections)
            for transport, other in ((a, b), (b, a)):
                expected = [Connected(other.peer), Disconnected(other.peer)] * 3
                assert [transport.connection_events.receive_nowait() for _ in expected] == expected
                with pytest.raises(trio.WouldBlock):
                    transport.connection_events.receive_nowait()

    async def test_disconnecting_ends_the_streams_and_a_stranger_is_no_error(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            await a.disconnect(STRANGER)
            await join(a, b)
            stream = await a.open_stream(b.peer, ECHO, timeout_s=5)
            await b.disconnect(a.peer)
            with trio.fail_after(PATIENCE_S), pytest.raises(PeerUnreachableError):
                await stream.receive()
            with pytest.raises(PeerUnreachableError):
                await stream.send(b"anybody?")
            await join(a, b)
            await ask_echo(a, b.peer)

    async def test_a_peer_that_leaves_is_lost_to_the_others(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a:
            async with world() as b:
                await join(a, b)
                address = b.addresses[0]
                stream = await a.open_stream(b.peer, ECHO, timeout_s=5)
                assert await a.connection_events.receive() == Connected(b.peer)
            with trio.fail_after(PATIENCE_S):
                assert await a.connection_events.receive() == Disconnected(b.peer)
                with pytest.raises(PeerUnreachableError):
                    await stream.receive()
            with pytest.raises(PeerUnreachableError):
                await a.connect(b.peer, address, timeout_s=2)

    # --- gossip ---

    async def test_gossip_reaches_those_further_away_and_not_ourselves(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b, world() as c:
            heard = {each: await each.subscribe(TOPIC, admits=everybody) for each in (a, b, c)}
            await join(b, a, c)
            gossip = await publish_until_heard(lambda: a.publish(TOPIC, b"news"), heard[c])
            assert (gossip.origin, gossip.data) == (a.peer, b"news")
            assert (await heard[b].receive()).origin == a.peer
            with pytest.raises(trio.WouldBlock):
                heard[a].receive_nowait()

    async def test_an_origin_not_admitted_is_neither_heard_nor_passed_on(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b, world() as c:
            await a.subscribe(TOPIC, admits=everybody)
            heard_b = await b.subscribe(TOPIC, admits=lambda origin: origin != a.peer)
            heard_c = await c.subscribe(TOPIC, admits=everybody)
            for each in (a, b):
                await each.subscribe(FENCE, admits=everybody)
            fence = await c.subscribe(FENCE, admits=everybody)
            await join(b, a, c)
            await publish_until_heard(lambda: b.publish(TOPIC, b"b"), heard_c)
            for _ in range(3):
                await a.publish(TOPIC, b"a")
                await publish_until_heard(lambda: a.publish(FENCE, b""), fence)
            with pytest.raises(trio.WouldBlock):
                heard_b.receive_nowait()
            while True:
                try:
                    assert heard_c.receive_nowait().origin == b.peer
                except trio.WouldBlock:
                    break

    async def test_gossip_larger_than_its_limit_is_a_bug_of_ours(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a:
            await a.publish(TOPIC, bytes(GOSSIP_BYTES_MAX))
            with pytest.raises(LocalProtocolError):
                await a.publish(TOPIC, bytes(GOSSIP_BYTES_MAX + 1))

    # --- strangers ---

    async def test_a_stranger_can_open_what_is_served_to_strangers_and_nothing_else(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            b.serve(HIDDEN, echo)
            b.serve(COUNT, count, to_strangers=True)
            await a.connect(b.peer, b.addresses[0], timeout_s=5)
            with pytest.raises(PeerUnreachableError):
                await a.open_stream(b.peer, HIDDEN, timeout_s=5)
            stream = await a.open_stream(b.peer, COUNT, timeout_s=5)
            await stream.finish()
            assert await receive_exactly(stream, 6) == b"000000"

    async def test_a_stream_asked_for_a_little_early_waits_for_the_admission(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            b.serve(HIDDEN, echo)
            await a.connect(b.peer, b.addresses[0], timeout_s=5)

            async def admit_late() -> None:
                await trio.sleep(0.5)
                b.admit(a.peer)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(admit_late)
                stream = await a.open_stream(b.peer, HIDDEN, timeout_s=5)
            await stream.send(b"early")
            assert await receive_exactly(stream, 5) == b"early"

    async def test_gossip_waits_for_both_admissions_and_begins_at_once(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            heard = {each: await each.subscribe(TOPIC, admits=everybody) for each in (a, b)}
            await a.connect(b.peer, b.addresses[0], timeout_s=5)
            await eventually(lambda: a.peer in b.connections)
            a.admit(b.peer)
            for _ in range(5):
                await a.publish(TOPIC, b"too early")
                await b.publish(TOPIC, b"too early")
                await trio.sleep(0.1)
            for channel in heard.values():
                with pytest.raises(trio.WouldBlock):
                    channel.receive_nowait()
            b.admit(a.peer)
            with trio.fail_after(PATIENCE_S):
                await publish_until_heard(lambda: a.publish(TOPIC, b"now"), heard[b])
                await publish_until_heard(lambda: b.publish(TOPIC, b"now"), heard[a])

    async def test_dismissal_takes_it_all_back(self, world: OpenTransport, clock: object) -> None:
        async with world() as a, world() as b:
            b.serve(HIDDEN, echo)
            heard = await a.subscribe(TOPIC, admits=everybody)
            await b.subscribe(TOPIC, admits=everybody)
            await join(a, b)
            stream = await a.open_stream(b.peer, HIDDEN, timeout_s=5)
            await stream.send(b"hello")
            assert await receive_exactly(stream, 5) == b"hello"
            await publish_until_heard(lambda: b.publish(TOPIC, b"1"), heard)
            b.dismiss(a.peer)
            b.dismiss(a.peer)
            with trio.fail_after(PATIENCE_S), pytest.raises(PeerUnreachableError):
                await stream.receive()
            with pytest.raises(PeerUnreachableError):
                await a.open_stream(b.peer, HIDDEN, timeout_s=5)
            await b.publish(TOPIC, b"2")
            await trio.sleep(0.5)
            while heard.statistics().current_buffer_used:
                assert heard.receive_nowait().data == b"1"

    async def test_an_admission_ends_with_the_connection(
        self, world: OpenTransport, clock: object
    ) -> None:
        async with world() as a, world() as b:
            b.serve(HIDDEN, echo)
            await join(a, b)
            await a.disconnect(b.peer)
            await eventually(lambda: not a.connections and not b.connections)
            await a.connect(b.peer, b.addresses[0], timeout_s=5)
            with pytest.raises(PeerUnreachableError):
                await a.open_stream(b.peer, HIDDEN, timeout_s=5)
