"""A peer that nobody has admitted, on real hosts: what it gets, and whom it cannot keep out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import pytest
import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.tools.anyio_service import background_trio_service

from kowalski.mesh.libp2p_guards import Guard
from kowalski.mesh.libp2p_strangers import HELD_PER_PEER_MAX, HOLD_S, STRANGERS_PER_ADDRESS_MAX
from kowalski.mesh.libp2p_transport import ALL_GUARDS, Libp2pTransport
from kowalski.mesh.transport import Stream
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import Address
from tests.mesh.rogue import GOSSIP_PROTOCOL, Rogue, publishing, rogue, upstream_host
from tests.mesh.wires import (
    ECHO,
    PATIENCE_S,
    TOPIC,
    ask_echo,
    echo,
    eventually,
    everybody,
    join,
    one_transport,
    publish_until_heard,
    transports,
    wire_to,
)

pytestmark = pytest.mark.trio

HIDDEN = "/kowalski-test/hidden/1"


def subscribing(topic: str) -> bytes:
    subscription = rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic)
    graft = rpc_pb2.ControlMessage(graft=[rpc_pb2.ControlGraft(topicID=topic)])
    packet: bytes = rpc_pb2.RPC(subscriptions=[subscription], control=graft).SerializeToString()
    return packet


async def overhear(guards: frozenset[Guard]) -> tuple[set[str], list[bytes]]:
    """What a stranger with a gossip service of its own learns of two members that talk."""
    learned: list[bytes] = []
    async with (
        transports(2, guards=guards) as (a, b),
        upstream_host() as host,
    ):
        gossip = GossipSub(["/meshsub/1.1.0"], 6, 4, 12, heartbeat_interval=1)
        pubsub = Pubsub(host, gossip)
        async with background_trio_service(pubsub), background_trio_service(gossip):
            await pubsub.wait_until_ready()
            heard = await a.subscribe(TOPIC, admits=everybody)
            await b.subscribe(TOPIC, admits=everybody)
            subscription = await pubsub.subscribe(TOPIC)
            for member in (a, b):
                await Rogue(host).dial_as_stranger(member)
            await join(a, b)

            async def listen() -> None:
                while True:
                    learned.append((await subscription.get()).data)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                with trio.move_on_after(3):
                    for number in range(30):
                        await b.publish(TOPIC, f"{number}".encode())
                        await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
            assert heard.statistics().current_buffer_used >= 20
            return set(pubsub.peer_topics), learned


async def test_a_stranger_sees_no_subscription_and_hears_no_gossip() -> None:
    assert await overhear(ALL_GUARDS) == (set(), [])


async def test_an_unguarded_host_still_gossips_with_strangers() -> None:
    topics, learned = await overhear(ALL_GUARDS - {Guard.STRANGERS})
    assert topics == {TOPIC}
    assert learned


async def heard_from_a_stranger(guards: frozenset[Guard]) -> set[bytes]:
    """What members hear of a stranger's gossip, directly and forwarded, where origins are free."""
    async with transports(2, guards=guards) as (a, b), rogue() as enemy:
        heard_a = await a.subscribe(TOPIC, admits=everybody)
        heard_b = await b.subscribe(TOPIC, admits=everybody)
        await join(a, b)
        await publish_until_heard(lambda: b.publish(TOPIC, b"ours"), heard_a)
        await enemy.dial_as_stranger(a)
        try:
            packet = publishing(enemy.message(TOPIC, data=b"theirs"))
            await enemy.say(a, subscribing(TOPIC), packet)
        except Exception:  # noqa: BLE001 how it fails is the library's
            assert Guard.STRANGERS in guards
        assert (ID.from_base58(enemy.peer) in a._topics._pubsub.peer_topics.get(TOPIC, ())) == (
            Guard.STRANGERS not in guards
        )
        heard = set()
        with trio.move_on_after(1):
            while True:
                for channel in (heard_a, heard_b):
                    with trio.move_on_after(0.1):
                        heard.add((await channel.receive()).data)
        return heard - {b"ours"}


async def test_what_a_stranger_gossips_is_not_read() -> None:
    assert await heard_from_a_stranger(ALL_GUARDS) == set()


async def test_an_unguarded_host_still_reads_it() -> None:
    assert await heard_from_a_stranger(ALL_GUARDS - {Guard.STRANGERS}) == {b"theirs"}


async def test_gossip_of_one_admitted_ends_with_its_dismissal() -> None:
    async with transports(2) as (a, b):
        heard_a = await a.subscribe(TOPIC, admits=everybody)
        heard_b = await b.subscribe(TOPIC, admits=everybody)
        await join(a, b)
        await publish_until_heard(lambda: b.publish(TOPIC, b"1"), heard_a)
        await publish_until_heard(lambda: a.publish(TOPIC, b"1"), heard_b)
        a.dismiss(b.peer)
        pubsub = a._topics._pubsub
        assert ID.from_base58(b.peer) not in pubsub.peers
        assert TOPIC not in pubsub.peer_topics
        for channel in (heard_a, heard_b):
            while channel.statistics().current_buffer_used:
                channel.receive_nowait()
        with trio.move_on_after(1.5):
            while True:
                await a.publish(TOPIC, b"2")
                await b.publish(TOPIC, b"2")
                await trio.sleep(0.1)
        assert not heard_a.statistics().current_buffer_used
        assert not heard_b.statistics().current_buffer_used
        a.admit(b.peer)
        await publish_until_heard(lambda: a.publish(TOPIC, b"3"), heard_b)


# --- protocols ---


async def test_a_stranger_finds_what_is_open_and_nothing_else() -> None:
    async with transports(2) as (a, b):
        b.serve(HIDDEN, echo)
        await a.connect(b.peer, b.addresses[0], timeout_s=5)
        answers = []
        for protocol in (HIDDEN, "/kowalski-test/never-heard-of/1", GOSSIP_PROTOCOL):
            started = trio.current_time()
            with pytest.raises(PeerUnreachableError) as refused:
                await a.open_stream(b.peer, protocol, timeout_s=5)
            answers.append(str(refused.value).partition("answered ")[2])
            assert trio.current_time() - started == pytest.approx(HOLD_S, abs=1)
        assert len(set(answers)) == 1
        await ask_echo(a, b.peer)


async def test_a_stranger_is_not_told_the_names_of_protocols() -> None:
    async with one_transport() as victim, rogue() as enemy:
        victim.serve(HIDDEN, echo)
        await enemy.dial_as_stranger(victim)
        stream = await enemy.stream(victim, IDENTIFY)
        said = parse_identify_response(await read_all(stream))
        assert set(said.protocols) == {IDENTIFY, "/ipfs/ping/1.0.0", ECHO}


async def read_all(stream: INetStream) -> bytes:
    said = b""
    try:
        while piece := await stream.read(65536):
            said += piece
    except StreamError:
        pass
    return said


async def test_a_stream_that_comes_before_the_admission_waits_for_it() -> None:
    async with transports(2) as (a, b):
        b.serve(HIDDEN, echo)
        await a.connect(b.peer, b.addresses[0], timeout_s=5)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                stream = await a.open_stream(b.peer, HIDDEN, timeout_s=5)
                await stream.send(b"early")
                assert await stream.receive() == b"early"

            nursery.start_soon(ask)
            await eventually(lambda: a.peer in b._gate._held)
            b.admit(a.peer)
        assert not b._gate._held


async def test_only_so_many_streams_of_one_stranger_wait() -> None:
    refused = 0

    async with transports(2) as (a, b):
        await a.connect(b.peer, b.addresses[0], timeout_s=5)

        async def ask() -> None:
            nonlocal refused
            with pytest.raises(PeerUnreachableError):
                await a.open_stream(b.peer, HIDDEN, timeout_s=5)
            refused += 1

        async with trio.open_nursery() as nursery:
            for _ in range(HELD_PER_PEER_MAX + 5):
                nursery.start_soon(ask)
            await eventually(lambda: refused == 5, within_s=HOLD_S - 1)
            assert len(b._gate._held[a.peer]) == HELD_PER_PEER_MAX
        assert refused == HELD_PER_PEER_MAX + 5


async def test_dismissal_resets_what_is_open_beyond_what_strangers_may_have() -> None:
    async def wait(stream: Stream) -> None:
        await stream.receive()

    async with transports(2) as (a, b):
        b.serve(HIDDEN, wait)
        await join(a, b)
        hidden = await a.open_stream(b.peer, HIDDEN, timeout_s=5)
        plain = await a.open_stream(b.peer, ECHO, timeout_s=5)
        await eventually(lambda: bool(b._gate._admitted[a.peer]))
        b.dismiss(a.peer)
        with trio.fail_after(PATIENCE_S), pytest.raises(PeerUnreachableError):
            await hidden.receive()
        await plain.send(b"still there?")
        assert await plain.receive() == b"still there?"


# --- crowds ---


async def test_members_get_in_past_two_hundred_strangers_of_one_address() -> None:
    async with (
        one_transport() as victim,
        one_transport() as early,
        one_transport() as member,
        one_transport() as neighbour,
        AsyncExitStack() as crowd,
    ):
        await join(early, victim)
        for _ in range(200):
            crowd.push_async_callback(await come_in_and_say_nothing(victim, "127.0.0.3"))
            assert len(victim.connections) <= STRANGERS_PER_ADDRESS_MAX + 10
        assert early.peer in victim.connections
        await join(member, victim)
        async with wire_to(victim, source="127.0.0.3") as wire:  # the crowd's own address
            await neighbour.connect(victim.peer, wire.address, timeout_s=5)
            for one in (neighbour, early, member):
                await ask_echo(one, victim.peer)


async def come_in_and_say_nothing(
    victim: Libp2pTransport, source: str
) -> Callable[[], Awaitable[None]]:
    """Complete the handshakes as somebody new. Returns how to leave."""
    port = int(victim.addresses[0].split("/")[4])
    stream = await trio.open_tcp_stream("127.0.0.1", port, local_address=source)
    raw = RawConnection(TrioTCPStream(stream), True)
    upgrader = (
        new_host(
            key_pair=(keys := create_new_key_pair()),
            sec_opt={
                NOISE: NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
            },
        )
        .get_network()
        .upgrader
    )
    peer = ID.from_base58(victim.peer)
    await upgrader.upgrade_connection(await upgrader.upgrade_security(raw, True, peer), peer)
    return stream.aclose


async def call_until_let_in(
    caller: Libp2pTransport, victim: Libp2pTransport, at: Address | None = None
) -> None:
    """Whoever makes room is a moment at it, in which all places are taken."""
    with trio.fail_after(10):
        while True:
            with suppress(PeerUnreachableError):
                return await caller.connect(victim.peer, at or victim.addresses[0], timeout_s=5)
            await trio.sleep(0.1)


async def test_strangers_of_many_addresses_leave_half_of_all_places() -> None:
    async with (
        one_transport(connections_max=20) as victim,
        transports(25) as strangers,
        transports(8) as members,
        AsyncExitStack() as wires,
    ):
        for number, one in enumerate(strangers):
            source = f"127.0.1.{number + 1}"
            wire = await wires.enter_async_context(wire_to(victim, source=source))
            await call_until_let_in(one, victim, wire.address)
        for member in members:
            await call_until_let_in(member, victim)
            victim.admit(member.peer)
        newest = strangers[-1].peer
        await eventually(lambda: len(victim.connections) <= 18)
        assert {member.peer for member in members} <= victim.connections
        assert newest in victim.connections


async def test_handshakes_that_never_end_do_not_keep_their_own_address_out() -> None:
    async with (
        one_transport() as victim,
        one_transport() as caller,
        AsyncExitStack() as idle,
    ):
        port = int(victim.addresses[0].split("/")[4])
        for _ in range(60):
            await idle.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))

        async def drip(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):
                for byte in b"\x13/multistream/1.0.0\n":
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                stream = await idle.enter_async_context(
                    await trio.open_tcp_stream("127.0.0.1", port)
                )
                nursery.start_soon(drip, stream)
            await trio.sleep(0.1)
            await caller.connect(victim.peer, victim.addresses[0], timeout_s=3)
            await ask_echo(caller, victim.peer)
            nursery.cancel_scope.cancel()
