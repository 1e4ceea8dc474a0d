import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import DNSOutgoing, DNSPointer, DNSRecord, DNSText, ServiceInfo, Zeroconf

from kowalski.mesh.discovery import (
    ADDRESSES_MAX,
    SERVICE,
    SIGHTINGS_MAX,
    Discovery,
    Sighting,
    open_discovery,
    parse_txt,
)
from kowalski.mesh.identity import new_identity
from kowalski.protocol.ids import Address, MeshId, PeerId

MESH = MeshId("m" * 32)
HERE = ("127.0.0.1",)
ADDRESSES = (Address("/ip4/192.0.2.7/tcp/4170"), Address("/ip6/2001:db8::7/tcp/4170"))


def txt(*entries: str) -> bytes:
    return b"".join(bytes([len(entry)]) + entry.encode() for entry in entries)


def multicast_reaches_loopback() -> bool:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        try:
            ear.bind(("", 0))
            group = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            mouth.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            mouth.sendto(b"?", ("224.0.0.251", ear.getsockname()[1]))
            ear.settimeout(1)
            return ear.recv(1) == b"?"
        except OSError:
            return False


needs_multicast = pytest.mark.skipif(
    not multicast_reaches_loopback(), reason="no multicast on loopback here"
)


@asynccontextmanager
async def discovery(
    peer: PeerId | None = None, mesh: MeshId | None = MESH, *, check_s: float = 15
) -> AsyncIterator[Discovery]:
    async with open_discovery(
        peer or new_identity().peer, lambda: ADDRESSES, mesh, interfaces=HERE, check_s=check_s
    ) as opened:
        yield opened


async def sighting_of(
    heard: Discovery, peer: PeerId, *, left: bool = False, within_s: float = 15
) -> Sighting:
    with trio.fail_after(within_s):
        while True:
            sighting = await heard.sightings.receive()
            if sighting.peer == peer and sighting.left == left:
                return sighting


@needs_multicast
@pytest.mark.trio
async def test_two_nodes_on_one_offline_machine_see_each_other() -> None:
    one, other = new_identity().peer, new_identity().peer
    async with discovery(one) as at_one, discovery(other) as at_other:
        assert await sighting_of(at_one, other) == Sighting(other, ADDRESSES, MESH)
        assert await sighting_of(at_other, one) == Sighting(one, ADDRESSES, MESH)
        assert at_one.problem is None


@needs_multicast
@pytest.mark.trio
async def test_who_leaves_says_goodbye() -> None:
    one, other = new_identity().peer, new_identity().peer
    async with discovery(one) as at_one:
        async with discovery(other):
            await sighting_of(at_one, other)
        assert (await sighting_of(at_one, other, left=True)).addresses == ADDRESSES


@needs_multicast
@pytest.mark.trio
async def test_who_gets_another_address_announces_it() -> None:
    mover = new_identity().peer
    addresses = [ADDRESSES]
    async with (
        discovery() as heard,
        open_discovery(mover, lambda: addresses[-1], MESH, interfaces=HERE, look_s=0.05),
    ):
        await sighting_of(heard, mover)
        addresses.append((Address("/ip4/192.0.2.99/tcp/4170"),))
        with trio.fail_after(15):
            while (await sighting_of(heard, mover)).addresses != addresses[-1]:
                pass


@needs_multicast
@pytest.mark.trio
async def test_we_do_not_see_ourselves() -> None:
    me, other = new_identity().peer, new_identity().peer
    heard = []
    async with discovery(me) as at_me, discovery(other) as at_other:
        await sighting_of(at_other, me)
        await sighting_of(at_me, other)
        with trio.move_on_after(0.5):
            while True:
                heard.append(await at_me.sightings.receive())
    assert me not in {sighting.peer for sighting in heard}


@needs_multicast
@pytest.mark.trio
async def test_another_machine_with_our_identity_is_seen() -> None:
    me = new_identity().peer
    async with discovery(me) as here, discovery(me) as elsewhere:
        await sighting_of(here, me)
        await sighting_of(elsewhere, me)


@needs_multicast
@pytest.mark.trio
async def test_a_node_without_a_mesh_is_seen_as_such() -> None:
    one, other = new_identity().peer, new_identity().peer
    async with discovery(one) as at_one, discovery(other, None):
        assert (await sighting_of(at_one, other)).mesh is None


@needs_multicast
@pytest.mark.trio
async def test_a_service_that_is_no_peer_is_not_told() -> None:
    """Records that anybody may send: another libp2p's, garbage, and too much of it."""
    me, other = new_identity().peer, new_identity().peer
    stranger = Zeroconf(interfaces=["127.0.0.1"])
    texts = {
        "garbage": bytes(range(256)),
        "no-address": txt("mesh=" + MESH),
        "wrong-peer": txt("dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/QmNotAKey"),
        "many": b"".join(txt(f"dnsaddr=/ip4/9.9.9.9/tcp/{n}/p2p/x") for n in range(200)),
    }
    try:
        for name, text in texts.items():
            info = ServiceInfo(
                SERVICE, f"{name}.{SERVICE}", port=1, properties=text, server=f"{name}.local."
            )
            await trio.to_thread.run_sync(
                lambda info=info: stranger.register_service(info, cooperating_responders=True)
            )
        heard: list[Sighting] = []
        with trio.fail_after(15):
            async with discovery(me) as at_me, discovery(other):
                while other not in {sighting.peer for sighting in heard}:
                    heard.append(await at_me.sightings.receive())
        told = " ".join(address for sighting in heard for address in sighting.addresses)
        assert "1.2.3.4" not in told
        assert "9.9.9.9" not in told
    finally:
        await trio.to_thread.run_sync(stranger.close)


@needs_multicast
@pytest.mark.trio
async def test_a_sighting_is_repeated_until_goodbye() -> None:
    other = new_identity().peer
    async with discovery(check_s=0.02) as heard:
        async with discovery(other):
            for _ in range(5):
                await sighting_of(heard, other)
        await sighting_of(heard, other, left=True)
        with trio.move_on_after(0.2) as silence:
            await sighting_of(heard, other)
        assert silence.cancelled_caught


def answer(*records: DNSRecord) -> DNSOutgoing:
    packet = DNSOutgoing(0x8400)
    for record in records:
        packet.add_answer_at_time(record, 0)
    return packet


@asynccontextmanager
async def other_implementation() -> AsyncIterator[Zeroconf]:
    zeroconf = Zeroconf(interfaces=["127.0.0.1"])
    try:
        yield zeroconf
    finally:
        await trio.to_thread.run_sync(zeroconf.close)


@needs_multicast
@pytest.mark.trio
async def test_a_peer_that_answers_without_a_service_record_is_seen() -> None:
    # js-libp2p sends a pointer and a text.
    peer, name = new_identity().peer, f"js.{SERVICE}"
    text = txt(f"dnsaddr=/ip4/192.0.2.7/tcp/4170/p2p/{peer}")
    async with other_implementation() as js, discovery() as heard:
        packet = answer(
            DNSPointer(SERVICE, 12, 1, 120, name),
            DNSText(name, 16, 1, 120, text),
        )
        with trio.fail_after(10):
            found = False
            while not found:
                js.send(packet)
                with trio.move_on_after(0.2):
                    await sighting_of(heard, peer)
                    found = True
        js.send(answer(DNSPointer(SERVICE, 12, 1, 0, name)))
        await sighting_of(heard, peer, left=True)


@needs_multicast
@pytest.mark.trio
async def test_a_name_without_its_text_is_asked_for_it() -> None:
    name = f"quiet.{SERVICE}"
    asked = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def listen() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            ear.bind(("", 5353))
            group = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            ear.settimeout(10)
            # The first bit of the flags is set in answers, and in ours as well.
            while b"quiet" not in (packet := ear.recv(9000)) or packet[2] & 0x80:
                pass
        token.run_sync_soon(asked.set)

    async with (
        other_implementation() as other,
        discovery(),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(trio.to_thread.run_sync, listen)
        with trio.fail_after(10):
            while not asked.is_set():
                other.send(answer(DNSPointer(SERVICE, 12, 1, 120, name)))
                with trio.move_on_after(0.2):
                    await asked.wait()


@pytest.mark.trio
async def test_without_a_network_there_is_a_problem_and_no_exception() -> None:
    nowhere = ("192.0.2.1",)
    async with open_discovery(
        new_identity().peer, lambda: ADDRESSES, MESH, interfaces=nowhere
    ) as heard:
        with trio.fail_after(10):
            while heard.problem is None:  # noqa: ASYNC110 a property, looked at now and then
                await trio.sleep(0.01)
        assert heard.problem.startswith("no discovery on this network")


@needs_multicast
@pytest.mark.trio
async def test_the_event_loop_is_never_held_up() -> None:
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = trio.current_time()
            await trio.sleep(0.01)
            longest = max(longest, trio.current_time() - before)

    one, other = new_identity().peer, new_identity().peer
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        async with discovery(one) as at_one, discovery(other):
            await sighting_of(at_one, other)
        nursery.cancel_scope.cancel()
    assert longest < 0.5


@needs_multicast
@pytest.mark.trio
async def test_sightings_nobody_reads_are_bounded() -> None:
    async with discovery() as heard:
        assert heard.sightings.statistics().max_buffer_size == SIGHTINGS_MAX


# --- what a record says ---


def test_a_record_names_a_peer_its_addresses_and_its_mesh() -> None:
    peer = new_identity().peer
    record = txt(*(f"dnsaddr={address}/p2p/{peer}" for address in ADDRESSES), f"mesh={MESH}")
    assert parse_txt(record) == Sighting(peer, ADDRESSES, MESH)


def test_addresses_of_transports_we_do_not_have_are_left_out() -> None:
    peer = new_identity().peer
    record = txt(
        f"dnsaddr=/ip4/192.0.2.7/udp/4170/quic-v1/p2p/{peer}",
        f"dnsaddr=/ip4/192.0.2.7/tcp/4170/p2p/{peer}",
        f"dnsaddr=/ip4/192.0.2.7/tcp/4171/ws/p2p/{peer}",
    )
    sighting = parse_txt(record)
    assert sighting is not None
    assert sighting.addresses == ("/ip4/192.0.2.7/tcp/4170",)


def test_a_record_with_two_peers_is_nobodys() -> None:
    peers = new_identity().peer, new_identity().peer
    record = txt(*(f"dnsaddr=/ip4/192.0.2.7/tcp/4170/p2p/{peer}" for peer in peers))
    assert parse_txt(record) is None


def test_no_more_addresses_than_the_limit_are_kept() -> None:
    peer = new_identity().peer
    record = b"".join(txt(f"dnsaddr=/ip4/192.0.2.7/tcp/{n}/p2p/{peer}") for n in range(10_000))
    sighting = parse_txt(record)
    assert sighting is not None
    assert len(sighting.addresses) == ADDRESSES_MAX


def test_a_mesh_id_that_is_none_is_not_believed() -> None:
    peer = new_identity().peer
    record = txt(f"dnsaddr=/ip4/192.0.2.7/tcp/4170/p2p/{peer}", "mesh=../../etc/passwd")
    sighting = parse_txt(record)
    assert sighting is not None
    assert sighting.mesh is None


@given(st.binary(max_size=600))
def test_no_bytes_make_the_parser_raise(text: bytes) -> None:
    parse_txt(text)


@given(st.lists(st.text(max_size=60), max_size=10))
def test_no_addresses_make_the_parser_raise(entries: list[str]) -> None:
    parse_txt(b"".join(txt(f"dnsaddr={entry}")[:256] for entry in entries if len(entry) < 20))
