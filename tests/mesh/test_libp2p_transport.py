import hashlib
import logging
import socket
import time
from contextlib import suppress

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID

from kowalski.mesh.identity import new_identity
from kowalski.mesh.libp2p_transport import open_libp2p_transport
from kowalski.mesh.libp2p_yamux import Patience
from kowalski.mesh.transport import Connected, Disconnected, Gossip, Stream
from kowalski.protocol.errors import ConfigError, LocalProtocolError, PeerUnreachableError
from kowalski.protocol.ids import Address, PeerId, Topic
from tests.mesh.wires import (
    ECHO,
    LOOPBACK,
    PATIENCE_S,
    TOPIC,
    ask_echo,
    eventually,
    everybody,
    join,
    one_transport,
    publish_until_heard,
    receive_exactly,
    transports,
    wire_to,
)

pytestmark = pytest.mark.trio

MIB = 1024 * 1024
OTHER_TOPIC = Topic("kowalski/test/other-things")


# --- streams ---


async def test_what_is_sent_comes_back() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        await ask_echo(a, b.peer)
        await ask_echo(b, a.peer)


async def test_a_stream_names_its_other_end() -> None:
    callers: list[PeerId] = []

    async def note(stream: Stream) -> None:
        callers.append(stream.peer)

    async with transports(2) as (a, b):
        b.serve("/note/1", note)
        await join(a, b)
        stream = await a.open_stream(b.peer, "/note/1", timeout_s=5)
        assert stream.peer == b.peer
        assert await stream.receive() == b""
        assert callers == [a.peer]


async def test_finishing_one_side_leaves_the_other_open() -> None:
    async def count(stream: Stream) -> None:
        size = 0
        while data := await stream.receive():
            size += len(data)
        await stream.send(str(size).encode())

    async with transports(2) as (a, b):
        b.serve("/count/1", count)
        await join(a, b)
        stream = await a.open_stream(b.peer, "/count/1", timeout_s=5)
        await stream.send(bytes(300_000))
        await stream.finish()
        assert await receive_exactly(stream, 6) == b"300000"
        assert await stream.receive() == b""
        assert await stream.receive() == b""


async def test_sending_after_finishing_is_refused() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        stream = await a.open_stream(b.peer, ECHO, timeout_s=5)
        await stream.finish()
        with pytest.raises(PeerUnreachableError):
            await stream.send(b"one more thing")


async def test_a_reset_is_an_error_at_the_other_end_and_may_be_repeated() -> None:
    ends: list[str] = []

    async def wait(stream: Stream) -> None:
        try:
            await stream.receive()
            ends.append("finished")
        except PeerUnreachableError:
            ends.append("reset")

    async with transports(2) as (a, b):
        b.serve("/wait/1", wait)
        await join(a, b)
        stream = await a.open_stream(b.peer, "/wait/1", timeout_s=5)
        await stream.reset()
        await stream.reset()
        await stream.finish()
        await eventually(lambda: ends == ["reset"])


async def test_a_reset_wakes_a_waiting_receive_on_our_own_side() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        stream = await a.open_stream(b.peer, ECHO, timeout_s=5)
        outcome: list[str] = []

        async def wait() -> None:
            with pytest.raises(PeerUnreachableError):
                await stream.receive()
            outcome.append("woken")

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await stream.reset()
        assert outcome == ["woken"]


async def test_a_handler_that_raises_resets_its_stream_and_nothing_else() -> None:
    async def fail(stream: Stream) -> None:
        raise ZeroDivisionError

    async with transports(2) as (a, b):
        b.serve("/fail/1", fail)
        await join(a, b)
        with pytest.raises(PeerUnreachableError), trio.fail_after(PATIENCE_S):
            await (await a.open_stream(b.peer, "/fail/1", timeout_s=5)).receive()
        await ask_echo(a, b.peer)


async def test_the_end_of_a_connection_is_not_taken_for_the_end_of_a_message() -> None:
    async def start_and_leave(stream: Stream) -> None:
        await stream.send(b"the first half")
        await b.disconnect(stream.peer)

    async with transports(2) as (a, b):
        b.serve("/half/1", start_and_leave)
        await join(a, b)
        stream = await a.open_stream(b.peer, "/half/1", timeout_s=5)
        pieces = []
        with trio.fail_after(PATIENCE_S), pytest.raises(PeerUnreachableError):
            pieces.extend([await stream.receive() for _ in range(100)])
        assert b"" not in pieces


async def test_closing_a_connection_ourselves_is_not_the_end_of_a_message_either() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        stream = await a.open_stream(b.peer, ECHO, timeout_s=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.disconnect, b.peer)
            with trio.fail_after(PATIENCE_S), pytest.raises(PeerUnreachableError):
                await stream.receive()


async def test_a_whole_answer_survives_the_connection_it_came_on() -> None:
    async def answer_and_leave(stream: Stream) -> None:
        await stream.send(b"x" * 200_000)
        await stream.finish()
        await b.disconnect(stream.peer)

    async with transports(2) as (a, b):
        b.serve("/answer/1", answer_and_leave)
        await join(a, b)
        stream = await a.open_stream(b.peer, "/answer/1", timeout_s=5)
        await eventually(lambda: b.peer not in a.connections)
        assert await receive_exactly(stream, 200_000) == b"x" * 200_000
        assert await stream.receive() == b""


async def test_thirty_two_mebibytes_go_both_ways_unharmed() -> None:
    piece = bytes(range(256)) * 4096
    sent, heard = hashlib.sha256(), hashlib.sha256()

    async with transports(2) as (a, b):
        await join(a, b)
        stream = await a.open_stream(b.peer, ECHO, timeout_s=5)

        async def pump() -> None:
            for number in range(32):
                numbered = bytes([number]) + piece[1:]
                sent.update(numbered)
                await stream.send(numbered)
            await stream.finish()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump)
                while data := await stream.receive():
                    assert len(data) <= 65536
                    heard.update(data)
    assert heard.digest() == sent.digest()


async def test_two_hundred_streams_at_once_keep_apart() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask_echo, a, b.peer, f"a{number}".encode() * 500)
                nursery.start_soon(ask_echo, b, a.peer, f"b{number}".encode() * 500)


async def test_ended_streams_are_forgotten() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        connection = a._connections.to(b.peer)
        assert connection is not None
        await ask_echo(a, b.peer)
        before = len(connection.get_streams()), len(connection.muxed_conn.streams)
        for _ in range(50):
            await ask_echo(a, b.peer)
        after = len(connection.get_streams()), len(connection.muxed_conn.streams)
        assert after <= before


async def test_a_protocol_nobody_serves_is_an_unreachable_peer() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        with pytest.raises(PeerUnreachableError, match="/nope/1"):
            await a.open_stream(b.peer, "/nope/1", timeout_s=5)
        await ask_echo(a, b.peer)


async def test_a_stream_to_somebody_not_connected_is_refused_without_dialling() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        await a.disconnect(b.peer)
        with pytest.raises(PeerUnreachableError, match="no connection"):
            await a.open_stream(b.peer, ECHO, timeout_s=5)
        assert b.peer not in a.connections


async def test_losing_patience_with_an_opening_leaves_nothing_behind() -> None:
    async with transports(2) as (a, b), wire_to(b) as wire:
        await a.connect(b.peer, wire.address, timeout_s=5)
        await ask_echo(a, b.peer)
        connection = a._connections.to(b.peer)
        assert connection is not None
        before = len(connection.get_streams())
        wire.stop()
        with trio.move_on_after(0.05) as impatience:
            await a.open_stream(b.peer, ECHO, timeout_s=5)
        assert impatience.cancelled_caught
        with pytest.raises(PeerUnreachableError):
            await a.open_stream(b.peer, ECHO, timeout_s=0.05)
        wire.start()
        await ask_echo(a, b.peer)
        await eventually(lambda: len(connection.get_streams()) <= before)


# --- pressure ---


async def test_a_cancelled_send_leaves_the_connection_to_other_streams() -> None:
    async with transports(2) as (a, b), wire_to(b) as wire:
        await a.connect(b.peer, wire.address, timeout_s=5)
        await ask_echo(a, b.peer)
        streams = [await a.open_stream(b.peer, ECHO, timeout_s=5) for _ in range(100)]
        wire.stop()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(stream.send, bytes(250_000))
                await trio.testing.wait_all_tasks_blocked(0.05)
                # A frame is half way out.
                nursery.cancel_scope.cancel()
                wire.start()
        for stream in streams:
            await stream.reset()
        await ask_echo(a, b.peer, bytes(100_000))


async def test_a_line_that_is_full_one_way_still_carries_the_other() -> None:
    heard = 0

    async def sink(stream: Stream) -> None:
        nonlocal heard
        while data := await stream.receive():
            heard += len(data)

    async with transports(2) as (a, b), wire_to(b) as wire:
        b.serve("/sink/1", sink)
        a.serve("/sink/1", sink)
        await a.connect(b.peer, wire.address, timeout_s=5)
        await eventually(lambda: a.peer in b.connections)
        for one, other in ((a, b), (b, a)):
            one.admit(other.peer)
        sinks = [await a.open_stream(b.peer, "/sink/1", timeout_s=5) for _ in range(50)]
        full = [await b.open_stream(a.peer, "/sink/1", timeout_s=5) for _ in range(100)]
        wire.stop_answers()
        async with trio.open_nursery() as nursery:
            for stream in full:
                nursery.start_soon(stream.send, bytes(250_000))
            await trio.testing.wait_all_tasks_blocked(0.05)
            connection = a._connections.to(b.peer)
            assert connection is not None
            # Each wants to be acknowledged by b, which cannot send.
            new = [await connection.new_stream() for _ in range(20)]
            heard = 0
            for stream in sinks:
                await stream.send(bytes(10_000))
            await eventually(lambda: heard == 500_000, within_s=3)
            wire.start()
        for net_stream in new:
            await net_stream.reset()
        await ask_echo(a, b.peer)


async def test_a_reader_that_stops_reading_costs_its_writer_that_stream_alone() -> None:
    async def never_read(stream: Stream) -> None:
        await trio.sleep_forever()

    async with transports(2, patience=Patience(write_s=0.3)) as (a, b):
        b.serve("/deaf/1", never_read)
        await join(a, b)
        stream = await a.open_stream(b.peer, "/deaf/1", timeout_s=5)
        with pytest.raises(PeerUnreachableError, match=r"read nothing for 0\.3 s"):
            await stream.send(bytes(MIB))
        await stream.reset()
        await ask_echo(a, b.peer)


async def test_a_reader_that_pauses_longer_than_five_seconds_keeps_its_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Virtual time over real sockets: time jumps once nothing has come from them for a moment.
    autojump_clock.autojump_threshold = 0.05

    async def pause(stream: Stream) -> None:
        await trio.sleep(8)
        size = 0
        while data := await stream.receive():
            size += len(data)
        await stream.send(str(size).encode())

    patience = Patience(write_s=20, silence_s=1e6)
    async with transports(2, patience=patience) as (a, b):
        b.serve("/pause/1", pause)
        await join(a, b)
        stream = await a.open_stream(b.peer, "/pause/1", timeout_s=500)
        await stream.send(bytes(MIB))
        await stream.finish()
        assert await receive_exactly(stream, 7) == b"1048576"


async def test_a_peer_whose_line_is_full_for_too_long_is_disconnected() -> None:
    patience = Patience(write_s=0.5, silence_s=60)
    async with transports(2, patience=patience) as (a, b), wire_to(b) as wire:
        await a.connect(b.peer, wire.address, timeout_s=5)
        streams = [await a.open_stream(b.peer, ECHO, timeout_s=5) for _ in range(100)]
        wire.stop()

        async def fill(stream: Stream) -> None:
            with suppress(PeerUnreachableError):
                await stream.send(bytes(250_000))
            with pytest.raises(PeerUnreachableError):
                await stream.receive()

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(fill, stream)
        assert b.peer not in a.connections


async def test_a_silent_line_is_noticed_at_both_ends() -> None:
    patience = Patience(silence_s=0.2, ping_s=0.3)
    async with transports(2, patience=patience) as (a, b), wire_to(b) as wire:
        await a.connect(b.peer, wire.address, timeout_s=5)
        await ask_echo(a, b.peer)
        wire.stop()
        await eventually(lambda: not a.connections and not b.connections, within_s=5)


async def test_an_idle_line_that_answers_pings_stays() -> None:
    patience = Patience(silence_s=0.02, ping_s=0.5)
    async with transports(2, patience=patience) as (a, b):
        await join(a, b)
        connection = a._connections.to(b.peer)
        assert connection is not None
        await eventually(lambda: connection.muxed_conn._ping_id >= 10)
        assert a.connections == {b.peer}


async def test_a_stall_of_our_own_is_not_held_against_peers() -> None:
    async with (
        one_transport(patience=Patience(silence_s=0.05, ping_s=0.1)) as a,
        one_transport(patience=Patience(silence_s=60)) as b,
    ):
        await join(a, b)
        await ask_echo(a, b.peer)
        connection = b._connections.to(a.peer)
        assert connection is not None
        for _ in range(6):
            heard_at = connection.muxed_conn._heard_at
            while connection.muxed_conn._heard_at == heard_at:
                await trio.lowlevel.checkpoint()
            # A ping has arrived. Stall the event loop before its answer leaves.
            time.sleep(0.2)  # noqa: ASYNC251
        await ask_echo(a, b.peer)
        assert a.connection_events.statistics().current_buffer_used == 1


# --- connections ---


async def test_a_peer_with_another_key_is_refused() -> None:
    stranger = new_identity().peer
    async with transports(2) as (a, b):
        with pytest.raises(PeerUnreachableError, match=stranger):
            await a.connect(stranger, b.addresses[0], timeout_s=5)
        assert a.connections == frozenset()
        await join(a, b)


async def test_after_a_dead_address_the_next_one_is_dialled_at_once() -> None:
    async with transports(2) as (a, b):
        with pytest.raises(PeerUnreachableError):
            await a.connect(b.peer, Address("/ip4/127.0.0.1/tcp/1"), timeout_s=5)
        with trio.fail_after(PATIENCE_S):
            await join(a, b)


async def test_a_host_that_never_answers_costs_only_the_timeout() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = Address(f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}")
        async with one_transport() as a:
            with trio.fail_after(5), pytest.raises(PeerUnreachableError):
                await a.connect(new_identity().peer, address, timeout_s=0.2)


@pytest.mark.parametrize(
    "address", ["", "/", "127.0.0.1:4170", "/ip4/127.0.0.1", "/ip4/300.0.0.1/tcp/1", "/nope/1"]
)
async def test_a_malformed_address_is_an_unreachable_peer(address: str) -> None:
    async with one_transport() as a:
        with pytest.raises(PeerUnreachableError):
            await a.connect(new_identity().peer, Address(address), timeout_s=2)


async def test_a_malformed_peer_id_is_an_unreachable_peer() -> None:
    async with one_transport() as a:
        with pytest.raises(PeerUnreachableError):
            await a.connect(PeerId("0l"), a.addresses[0], timeout_s=2)


async def test_dialling_oneself_is_refused() -> None:
    async with one_transport() as a:
        with pytest.raises(PeerUnreachableError, match="ourselves"):
            await a.connect(a.peer, a.addresses[0], timeout_s=2)


async def test_a_name_is_looked_up() -> None:
    async with transports(2) as (a, b):
        port = b.addresses[0].split("/")[4]
        await a.connect(b.peer, Address(f"/dns4/localhost/tcp/{port}"), timeout_s=5)
        assert a.connections == {b.peer}


async def test_dials_of_one_peer_at_once_make_one_connection() -> None:
    async with transports(2) as (a, b):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(join, a, b)
        assert len(a._network.get_connections()) == 1
        # Connected already: the address does not matter any more.
        await a.connect(b.peer, Address("/ip4/127.0.0.1/tcp/1"), timeout_s=1)


async def test_each_first_connection_and_each_last_end_is_told_once_in_order() -> None:
    async with transports(2) as (a, b):
        for _ in range(3):
            await join(a, b)
            await a.disconnect(b.peer)
            await eventually(lambda: not b.connections)
        for transport, other in ((a, b), (b, a)):
            expected = [Connected(other.peer), Disconnected(other.peer)] * 3
            assert [transport.connection_events.receive_nowait() for _ in expected] == expected
            with pytest.raises(trio.WouldBlock):
                transport.connection_events.receive_nowait()


async def test_dials_from_both_sides_are_one_connected_event_each() -> None:
    async with transports(2) as (a, b):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(join, a, b)
            nursery.start_soon(join, b, a)
        await ask_echo(a, b.peer)
        await a.disconnect(b.peer)
        await eventually(lambda: not a.connections and not b.connections)
        for transport, other in ((a, b), (b, a)):
            with trio.fail_after(PATIENCE_S):
                assert await transport.connection_events.receive() == Connected(other.peer)
                assert await transport.connection_events.receive() == Disconnected(other.peer)
            with pytest.raises(trio.WouldBlock):
                transport.connection_events.receive_nowait()


async def test_a_peer_that_closes_is_gone_before_any_keepalive_could_tell() -> None:
    async with one_transport() as a:
        async with one_transport() as b:
            await join(a, b)
            peer = b.peer
            assert await a.connection_events.receive() == Connected(peer)
        with trio.fail_after(3):
            assert await a.connection_events.receive() == Disconnected(peer)


async def test_disconnecting_a_stranger_does_nothing() -> None:
    async with one_transport() as a:
        await a.disconnect(new_identity().peer)


async def test_a_stopped_line_does_not_delay_disconnecting() -> None:
    async with transports(2) as (a, b), wire_to(b) as wire:
        await a.connect(b.peer, wire.address, timeout_s=5)
        streams = [await a.open_stream(b.peer, ECHO, timeout_s=5) for _ in range(100)]
        wire.stop()

        async def fill(stream: Stream) -> None:
            with suppress(PeerUnreachableError):
                await stream.send(bytes(250_000))
            with pytest.raises(PeerUnreachableError):
                await stream.receive()

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(fill, stream)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with trio.fail_after(5):  # a write would wait for ten
                await a.disconnect(b.peer)
            await eventually(lambda: b.peer not in a.connections)


# --- gossip ---


async def test_gossip_reaches_the_others_and_not_ourselves() -> None:
    async with transports(2) as (a, b):
        heard_a = await a.subscribe(TOPIC, admits=everybody)
        heard_b = await b.subscribe(TOPIC, admits=everybody)
        await join(a, b)
        assert await publish_until_heard(lambda: a.publish(TOPIC, b"news"), heard_b) == Gossip(
            a.peer, b"news"
        )
        assert await publish_until_heard(lambda: b.publish(TOPIC, b"more"), heard_a) == Gossip(
            b.peer, b"more"
        )


async def test_no_record_of_our_addresses_goes_with_gossip() -> None:
    async with transports(2) as (a, b):
        heard = await b.subscribe(TOPIC, admits=everybody)
        await a.subscribe(TOPIC, admits=everybody)
        await join(a, b)
        await publish_until_heard(lambda: a.publish(TOPIC, b"first"), heard)
        # What was said with the greeting is forgotten, and would come again with any message.
        peerstore, origin = b._host.get_peerstore(), ID.from_base58(a.peer)
        peerstore.peer_record_map.pop(origin)
        await publish_until_heard(lambda: a.publish(TOPIC, b"second"), heard)
        assert peerstore.get_peer_record(origin) is None


async def test_a_topic_subscribed_to_after_connecting_is_heard() -> None:
    async with transports(2) as (a, b):
        await join(a, b)
        await a.subscribe(OTHER_TOPIC, admits=everybody)
        await ask_echo(a, b.peer)
        heard = await b.subscribe(OTHER_TOPIC, admits=everybody)
        await publish_until_heard(lambda: a.publish(OTHER_TOPIC, b"late"), heard)


async def test_an_origin_not_admitted_is_neither_heard_nor_passed_on() -> None:
    async with transports(3) as (a, b, c):
        admitted: set[PeerId] = {b.peer}
        await a.subscribe(TOPIC, admits=everybody)
        heard_b = await b.subscribe(TOPIC, admits=admitted.__contains__)
        heard_c = await c.subscribe(TOPIC, admits=everybody)
        await a.subscribe(OTHER_TOPIC, admits=everybody)
        proof_b = await b.subscribe(OTHER_TOPIC, admits=everybody)
        await join(b, a, c)
        for _ in range(3):
            gossip = await publish_until_heard(lambda: b.publish(TOPIC, b"from b"), heard_c)
            assert gossip.origin == b.peer
            await a.publish(TOPIC, b"from a")
            # Heard at b after what was said before it on the same line.
            await publish_until_heard(lambda: a.publish(OTHER_TOPIC, b"proof"), proof_b)
        while (
            gossip := await publish_until_heard(lambda: b.publish(TOPIC, b"last"), heard_c)
        ).data != b"last":
            assert gossip.origin == b.peer
        with pytest.raises(trio.WouldBlock):
            heard_b.receive_nowait()
        admitted.add(a.peer)
        while (await publish_until_heard(lambda: a.publish(TOPIC, b"now"), heard_c)).origin != (
            a.peer
        ):
            pass
        assert (await heard_b.receive()).data == b"now"


async def test_each_listener_of_a_topic_hears_whom_it_admits() -> None:
    async with transports(2) as (a, b):
        of_all = await b.subscribe(TOPIC, admits=everybody)
        of_nobody = await b.subscribe(TOPIC, admits=lambda _: False)
        await a.subscribe(TOPIC, admits=everybody)
        await join(a, b)
        await publish_until_heard(lambda: a.publish(TOPIC, b"news"), of_all)
        with pytest.raises(trio.WouldBlock):
            of_nobody.receive_nowait()


async def test_a_slow_listener_misses_the_oldest() -> None:
    async with transports(2) as (a, b):
        heard = await b.subscribe(TOPIC, admits=everybody)
        fence = await b.subscribe(OTHER_TOPIC, admits=everybody)
        await a.subscribe(TOPIC, admits=everybody)
        await a.subscribe(OTHER_TOPIC, admits=everybody)
        await join(a, b)
        await publish_until_heard(lambda: a.publish(TOPIC, b"0"), heard)
        for number in range(1, 301):
            await a.publish(TOPIC, str(number).encode())
            if number % 10 == 0:
                await publish_until_heard(lambda: a.publish(OTHER_TOPIC, b""), fence)
        numbers: list[int] = []
        # On a busy machine gossip may change places with its neighbours.
        while 300 not in numbers:
            numbers.append(int((await heard.receive()).data))
        assert min(numbers) > 20
        assert len(numbers) < 280


async def test_gossip_larger_than_its_limit_is_a_bug_of_ours() -> None:
    async with one_transport() as a:
        await a.publish(TOPIC, bytes(32 * 1024))
        with pytest.raises(LocalProtocolError, match="32769 bytes"):
            await a.publish(TOPIC, bytes(32 * 1024 + 1))


async def test_gossip_is_back_soon_after_a_peer_restarts_on_its_port() -> None:
    identity = new_identity()
    async with one_transport() as a:
        heard = await a.subscribe(TOPIC, admits=everybody)
        async with one_transport(identity) as b:
            address = b.addresses[0]
            await b.subscribe(TOPIC, admits=everybody)
            await join(a, b)
            await publish_until_heard(lambda: b.publish(TOPIC, b"before"), heard)
            for _ in range(5):
                await b.publish(TOPIC, b"before")
        await eventually(lambda: not a.connections)
        while True:
            try:
                heard.receive_nowait()
            except trio.WouldBlock:
                break
        async with one_transport(identity, listen=(address,)) as b:
            await b.subscribe(TOPIC, admits=everybody)
            await join(a, b)
            with trio.fail_after(PATIENCE_S):
                listens = b._topics._pubsub.peer_topics
                await eventually(lambda: ID.from_base58(a.peer) in listens.get(TOPIC, ()))
                # Said once: sequence numbers do not repeat those from before.
                await b.publish(TOPIC, b"after")
                assert (await heard.receive()).data == b"after"


# --- listening ---


async def test_a_taken_port_is_named() -> None:
    async with one_transport() as a:
        port = a.addresses[0].split("/")[4]
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            async with open_libp2p_transport(new_identity(), listen=a.addresses):
                pass


@pytest.mark.parametrize(
    "address",
    ["", "4170", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/1", "/ip4/1.2.3/tcp/1", "/dns4/x/tcp/1"],
)
async def test_an_address_nobody_can_listen_on_is_a_config_error(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        async with open_libp2p_transport(new_identity(), listen=(Address(address),)):
            pass


async def test_an_address_of_another_machine_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on /ip4/192\.0\.2\.1/tcp/0"):
        async with open_libp2p_transport(new_identity(), listen=(Address("/ip4/192.0.2.1/tcp/0"),)):
            pass


async def test_listening_everywhere_is_announced_as_addresses_one_can_dial() -> None:
    async with one_transport(listen=(Address("/ip4/0.0.0.0/tcp/0"),)) as a, one_transport() as b:
        assert a.addresses
        for address in a.addresses:
            assert "/0.0.0.0/" not in address
            assert not address.endswith("/tcp/0")
        await b.connect(a.peer, a.addresses[0], timeout_s=5)


async def test_ipv6_works() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    async with (
        one_transport(listen=(Address("/ip6/::1/tcp/0"),)) as a,
        one_transport(listen=(*LOOPBACK, Address("/ip6/::1/tcp/0"))) as b,
    ):
        assert len(b.addresses) == 2
        await b.connect(a.peer, a.addresses[0], timeout_s=5)
        await ask_echo(b, a.peer)


# --- company ---


async def test_an_exception_of_the_block_comes_out_of_it() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with one_transport():
            raise KeyError("mine")


async def test_an_opening_that_is_cancelled_ends() -> None:
    with trio.fail_after(PATIENCE_S), trio.CancelScope() as impatience:
        impatience.cancel()
        async with one_transport():
            raise AssertionError


async def test_a_cancelled_block_can_still_say_goodbye() -> None:
    async with one_transport() as a:
        heard = await a.subscribe(TOPIC, admits=everybody)
        with trio.CancelScope() as scope:
            async with one_transport() as b:
                await b.subscribe(TOPIC, admits=everybody)
                await join(a, b)
                await publish_until_heard(lambda: b.publish(TOPIC, b"hello"), heard)
                scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await ask_echo(b, a.peer)
                        await b.publish(TOPIC, b"goodbye")
                        with trio.fail_after(PATIENCE_S):
                            while (await heard.receive()).data != b"goodbye":
                                pass


async def test_the_library_says_nothing_and_leaves_logging_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = list(logging.getLogger().handlers)
    async with transports(2) as (a, b):
        await join(a, b)
        with pytest.raises(PeerUnreachableError):
            await a.connect(new_identity().peer, b.addresses[0], timeout_s=5)
        await a.disconnect(b.peer)
    assert logging.getLogger().handlers == before
    assert capfd.readouterr().err == ""
