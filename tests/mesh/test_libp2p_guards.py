"""Every defect of py-libp2p that we guard: harmless with the guard, and still there without it.

A test named `..._still_...` fails when a release has fixed the defect: then its guard can go.
"""

import gc
import random
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress

import pytest
import trio
import trio.testing
from google.protobuf.message import Error as ProtobufError
from libp2p.abc import INetStream
from libp2p.crypto.rsa import create_new_key_pair as create_rsa_key_pair
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.pb import rpc_pb2
from multiaddr import Multiaddr

from kowalski.mesh.libp2p_guards import AllowedTopics, Guard
from kowalski.mesh.libp2p_transport import ALL_GUARDS, Libp2pTransport
from kowalski.mesh.transport import Stream
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId
from tests.mesh.rogue import (
    GOSSIP_PROTOCOL,
    Rogue,
    plaintext_host,
    publishing,
    rogue,
    upstream_host,
)
from tests.mesh.wires import (
    PATIENCE_S,
    TOPIC,
    ask_echo,
    eventually,
    everybody,
    join,
    one_transport,
    publish_until_heard,
    transports,
    wire_to,
)

pytestmark = pytest.mark.trio

Group = ExceptionGroup
Attack = Callable[[Rogue, Libp2pTransport], Awaitable[None]]


async def garbage_protocol_name(attacker: Rogue, victim: Libp2pTransport) -> None:
    stream = await attacker.raw_stream(victim)
    await stream.write(b"\x04\xff\xfe\xfd\n")


async def garbage_gossip(attacker: Rogue, victim: Libp2pTransport) -> None:
    await attacker.say(victim, b"\xff" * 40)


async def garbage_key(attacker: Rogue, victim: Libp2pTransport) -> None:
    message = attacker.message(TOPIC)
    # An RSA key is not part of its peer id, so the key in the message is looked at.
    message.from_id = ID.from_pubkey(create_rsa_key_pair(2048).public_key).to_bytes()
    message.key = b"\xff\xff\xff"
    await attacker.say(victim, publishing(message))


DEADLY = [garbage_protocol_name, garbage_gossip, garbage_key]


@contextmanager
def death_rattle() -> Iterator[None]:
    """A host of py-libp2p that dies leaves its sockets to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


async def strike(attack: Attack, guards: frozenset[Guard]) -> None:
    """Attack a transport; ends when it is clear that the transport lives, raises when it dies."""
    async with one_transport(guards=guards) as victim, one_transport() as friend, rogue() as enemy:
        heard = await victim.subscribe(TOPIC, admits=everybody)
        await friend.subscribe(TOPIC, admits=everybody)
        await enemy.dial(victim)
        await attack(enemy, victim)
        await join(friend, victim)
        await ask_echo(friend, victim.peer)
        await publish_until_heard(lambda: friend.publish(TOPIC, b"still there?"), heard)


@pytest.mark.parametrize("attack", DEADLY)
async def test_what_a_remote_may_send_does_not_end_the_host(attack: Attack) -> None:
    await strike(attack, ALL_GUARDS)


@pytest.mark.parametrize("attack", DEADLY)
async def test_it_still_ends_an_unguarded_host(attack: Attack) -> None:
    with death_rattle(), pytest.raises((ValueError, ProtobufError, PeerUnreachableError, Group)):
        await strike(attack, frozenset())


async def test_an_exception_in_a_handler_still_ends_an_unguarded_host() -> None:
    async def fail(stream: object) -> None:
        raise ZeroDivisionError

    async def serve_and_fail() -> None:
        async with upstream_host() as host, rogue() as enemy:
            host.set_stream_handler("/fail/1", fail)
            await enemy.host.connect(PeerInfo(host.get_id(), host.get_transport_addrs()))
            await enemy.host.new_stream(host.get_id(), ["/fail/1"])
            await trio.sleep(5)

    with death_rattle():
        with pytest.raises(ExceptionGroup) as caught:
            await serve_and_fail()
        assert caught.group_contains(ZeroDivisionError)
        del caught


async def test_a_validator_that_raises_ends_nothing() -> None:
    def refuse(peer: PeerId) -> bool:
        raise KeyError(peer)

    async with transports(2) as (a, b):
        await b.subscribe(TOPIC, admits=refuse)
        await a.subscribe(TOPIC, admits=everybody)
        await join(a, b)
        await eventually(
            lambda: ID.from_base58(b.peer) in a._topics._pubsub.peer_topics.get(TOPIC, ())
        )
        await a.publish(TOPIC, b"?")
        await ask_echo(a, b.peer)
        await ask_echo(b, a.peer)


# --- inbound slots ---


async def connect_often(guards: frozenset[Guard], times: int, connections_max: int) -> int:
    async with (
        one_transport(guards=guards, connections_max=connections_max) as victim,
        one_transport() as caller,
    ):
        for number in range(times):
            try:
                await caller.connect(victim.peer, victim.addresses[0], timeout_s=3)
                await ask_echo(caller, victim.peer)
            except PeerUnreachableError:
                return number
            await caller.disconnect(victim.peer)
            await eventually(lambda: not victim.connections)
        assert victim._network._inbound_limiter.borrowed_tokens <= 2
        return times


async def test_more_connections_than_slots_are_accepted_one_after_the_other() -> None:
    assert await connect_often(ALL_GUARDS, 300, 250) == 300


async def test_slots_of_ended_connections_are_still_kept_by_an_unguarded_host() -> None:
    assert await connect_often(ALL_GUARDS - {Guard.INBOUND_SLOTS}, 20, 10) == 10


async def dial_during_slow_handshakes(guards: frozenset[Guard]) -> None:
    async with (
        one_transport(guards=guards, connections_max=40) as victim,
        one_transport() as caller,
        AsyncExitStack() as idle,
    ):
        port = int(victim.addresses[0].split("/")[4])
        for _ in range(60):
            await idle.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with wire_to(victim, source="127.0.0.2") as wire:
            await caller.connect(victim.peer, wire.address, timeout_s=3)
            await ask_echo(caller, victim.peer)


async def test_unfinished_handshakes_of_one_address_leave_room_for_others() -> None:
    await dial_during_slow_handshakes(ALL_GUARDS)


async def test_unfinished_handshakes_still_fill_an_unguarded_host() -> None:
    with pytest.raises(PeerUnreachableError):
        await dial_during_slow_handshakes(ALL_GUARDS - {Guard.INBOUND_SLOTS})


async def test_one_peer_holds_a_few_connections_at_most() -> None:
    async with one_transport() as victim, rogue() as enemy:
        await enemy.dial(victim)
        for _ in range(8):
            address = enemy.host.get_peerstore().addrs(ID.from_base58(victim.peer))[0]
            await enemy.network.dial_addr(address, ID.from_base58(victim.peer))
        await eventually(lambda: len(victim._network.get_connections()) <= 4)


# --- gossip ---


async def connections_dial_back(guards: frozenset[Guard]) -> bool:
    async with transports(2, guards=guards) as (a, b):
        await join(a, b)
        peer_id = ID.from_base58(b.peer)
        peerstore = a._host.get_peerstore()
        # What b told of itself when it was asked to identify itself.
        await eventually(lambda: peer_id in peerstore.peers_with_addrs())
        await a.disconnect(b.peer)
        await eventually(lambda: not a._network.get_connections(peer_id))
        try:
            await a._network.new_stream(peer_id)
        except SwarmException:
            return False
        return True


async def test_nobody_is_dialled_but_by_us() -> None:
    assert not await connections_dial_back(ALL_GUARDS)


async def test_an_unguarded_host_still_dials_who_left() -> None:
    assert await connections_dial_back(ALL_GUARDS - {Guard.OWN_DIALS})


async def gossip_after_a_quick_return(guards: frozenset[Guard]) -> None:
    async with transports(2, guards=guards) as (a, b):
        heard = await a.subscribe(TOPIC, admits=everybody)
        await b.subscribe(TOPIC, admits=everybody)
        await join(a, b)
        await publish_until_heard(lambda: b.publish(TOPIC, b"1"), heard)
        stream = b._topics._pubsub.peers[ID.from_base58(a.peer)]
        await a.disconnect(b.peer)
        await eventually(lambda: not b.connections)
        await join(a, b)
        with trio.fail_after(PATIENCE_S):
            peers = b._topics._pubsub.peers
            await eventually(
                lambda: peers.get(ID.from_base58(a.peer)) not in (None, stream), within_s=2
            )
            await publish_until_heard(lambda: b.publish(TOPIC, b"2"), heard)


async def test_who_comes_back_at_once_has_gossip_at_once() -> None:
    await gossip_after_a_quick_return(ALL_GUARDS)


async def test_an_unguarded_host_still_writes_to_the_stream_of_before() -> None:
    with pytest.raises(trio.TooSlowError):
        await gossip_after_a_quick_return(ALL_GUARDS - {Guard.GOSSIP_STREAMS, Guard.STRANGERS})


async def test_only_what_its_origin_signed_is_heard() -> None:
    async with one_transport() as victim, one_transport() as friend, rogue() as enemy:
        heard = await victim.subscribe(TOPIC, admits=everybody)
        await friend.subscribe(TOPIC, admits=everybody)
        await join(friend, victim)
        await enemy.dial(victim)
        unsigned = enemy.message(TOPIC, number=2)
        unsigned.ClearField("signature")
        changed = enemy.message(TOPIC, number=3)
        changed.data = b"something else"
        await enemy.say(
            victim,
            publishing(enemy.message(TOPIC, origin=ID.from_base58(friend.peer).to_bytes())),
            publishing(enemy.message(TOPIC, origin=ID.from_base58(victim.peer).to_bytes())),
            publishing(unsigned),
            publishing(changed),
            publishing(enemy.message(TOPIC, "kowalski/test/second", number=4)),
            publishing(enemy.message(TOPIC, data=bytes(33 * 1024), number=5)),
            publishing(enemy.message(TOPIC, data=b"an honest one", number=6)),
        )
        with trio.fail_after(PATIENCE_S):
            gossip = await heard.receive()
        assert (gossip.origin, gossip.data) == (enemy.peer, b"an honest one")


async def test_a_gossip_packet_larger_than_its_limit_costs_the_stream() -> None:
    async with one_transport() as victim, one_transport() as friend, rogue() as enemy:
        await enemy.dial(victim)
        with suppress(StreamError):
            await enemy.say(victim, bytes(300 * 1024))
        await join(friend, victim)
        await ask_echo(friend, victim.peer)


async def test_subscriptions_are_remembered_for_our_name_space_and_not_without_end() -> None:
    async with one_transport(topics_max=4) as victim, rogue() as enemy:
        await enemy.dial(victim)
        await victim.subscribe(TOPIC, admits=everybody)
        topics = [f"kowalski/{n}" for n in range(10)] + ["other/1", "kowalski/" + "x" * 1000]
        await enemy.say(
            victim,
            *(
                rpc_pb2.RPC(
                    subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic)]
                ).SerializeToString()
                for topic in reversed(topics)
            ),
        )
        peer_topics = victim._topics._pubsub.peer_topics
        await eventually(lambda: len(peer_topics) == 4)
        assert set(peer_topics) == {f"kowalski/{n}" for n in (6, 7, 8, 9)}


async def test_topics_of_other_programs_and_long_ones_are_not_ours() -> None:
    topics = AllowedTopics("kowalski/", chars_max=20)
    assert "kowalski/a" in topics
    assert "other/a" not in topics
    assert "kowalski/" + "a" * 20 not in topics


# --- connections ---


async def test_who_cannot_encrypt_is_refused() -> None:
    async with one_transport() as victim, plaintext_host() as host:
        with pytest.raises(SwarmException):
            await Rogue(host).dial(victim)
        assert victim.connections == frozenset()


async def test_plaintext_is_still_accepted_by_default() -> None:
    async with upstream_host(noise_only=False) as victim, plaintext_host() as host:
        await host.connect(PeerInfo(victim.get_id(), victim.get_transport_addrs()))
        assert victim.get_id() in host.get_network().connections


async def test_sending_more_than_the_window_costs_the_connection() -> None:
    async def never_read(stream: Stream) -> None:
        await trio.sleep_forever()

    async with one_transport() as victim, rogue() as enemy:
        victim.serve("/deaf/1", never_read)
        await enemy.dial(victim)
        stream = await enemy.stream(victim, "/deaf/1")
        stream.muxed_stream.send_window = 1 << 30
        assert victim.connections == {enemy.peer}
        with trio.move_on_after(5):
            with suppress(BaseLibp2pError):
                for _ in range(100):
                    await stream.write(bytes(64 * 1024))
        await eventually(lambda: not victim.connections)


async def test_streams_above_the_limit_are_reset() -> None:
    async def wait(stream: Stream) -> None:
        await trio.sleep_forever()

    async with one_transport(streams_max=20) as victim, one_transport() as caller:
        victim.serve("/wait/1", wait)
        await join(caller, victim)
        opened = 0
        for _ in range(40):
            try:
                await caller.open_stream(victim.peer, "/wait/1", timeout_s=3)
                opened += 1
            except PeerUnreachableError:
                pass
        assert 15 <= opened <= 20


async def write_after_cancelled_writes() -> None:
    heard = 0
    all_heard = trio.Event()

    async def sink(stream: INetStream) -> None:
        nonlocal heard
        while data := await stream.read(65536):
            heard += data.count(b"x")
            if heard == 1000:
                all_heard.set()

    async with upstream_host() as server, upstream_host() as client:
        server.set_stream_handler("/sink/1", sink)
        async with wire_to(str(server.get_transport_addrs()[0])) as wire:
            await client.connect(PeerInfo(server.get_id(), [Multiaddr(wire.address)]))
            streams = [await client.new_stream(server.get_id(), ["/sink/1"]) for _ in range(60)]
            wire.stop()
            async with trio.open_nursery() as nursery:
                for stream in streams[1:]:
                    nursery.start_soon(stream.write, bytes(250_000))
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
            wire.start()
            with trio.fail_after(PATIENCE_S):
                await streams[0].write(b"x" * 1000)
                await all_heard.wait()


async def test_cancelled_writes_still_corrupt_an_unguarded_connection() -> None:
    with death_rattle():
        with pytest.raises(ExceptionGroup) as caught:
            await write_after_cancelled_writes()
        assert caught.group_contains((trio.TooSlowError, BaseLibp2pError))
        del caught


# --- noise ---


async def test_random_bytes_anywhere_leave_the_host_alive() -> None:
    chance = random.Random(7)
    async with one_transport() as victim, one_transport() as friend, rogue() as enemy:
        heard = await victim.subscribe(TOPIC, admits=everybody)
        await friend.subscribe(TOPIC, admits=everybody)
        port = int(victim.addresses[0].split("/")[4])
        await enemy.dial(victim)
        for _ in range(25):
            async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
                await raw.send_all(chance.randbytes(chance.randrange(1, 200)))
            raw_stream = await enemy.raw_stream(victim)
            await raw_stream.write(chance.randbytes(chance.randrange(1, 200)))
            await enemy.say(victim, chance.randbytes(chance.randrange(1, 200)))
            for protocol in (GOSSIP_PROTOCOL, "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"):
                stream = await enemy.stream(victim, protocol)
                await stream.write(chance.randbytes(chance.randrange(1, 200)))
                await stream.close()
        await join(friend, victim)
        await ask_echo(friend, victim.peer)
        await publish_until_heard(lambda: friend.publish(TOPIC, b"still there?"), heard)
