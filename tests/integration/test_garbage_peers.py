"""Peers that speak garbage to a real node, from outside and as a member: it goes on."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from kowalski.mesh.admission import join
from kowalski.mesh.conversation import open_asker
from kowalski.mesh.core.connectivity import Sighted
from kowalski.mesh.identity import Identity, new_identity
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.libp2p_transport import open_libp2p_transport
from kowalski.mesh.mesh import Mesh, open_mesh
from kowalski.mesh.telemetry_gossip import Self
from kowalski.mesh.transport import Transport
from kowalski.node.local_cluster import LocalNode
from kowalski.protocol import codec, ids, join_line
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from kowalski.protocol.messages.membership import Ready
from kowalski.protocol.messages.telemetry import Hot, Profile
from tests.integration.cluster import START_S, Cluster, open_cluster, whole_log

pytestmark = pytest.mark.real

ALIVE_S = 1.0
LOOPBACK = Address("/ip4/127.0.0.1/tcp/0")
BOOT = "0123456789abcdef"
TO_NOISE = b"\x13/multistream/1.0.0\n\x07/noise\n"
PROTOCOLS = (
    "/kowalski/membership/1",
    "/kowalski/join/1",
    "/kowalski/repl/1",
    "/kowalski/task/1",
    "/kowalski/inference/1",
    "/kowalski/fold/1",
    "/kowalski/content/1",
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with open_cluster(tmp_path_factory.mktemp("garbage")) as cluster:
        cluster.start("victim", "--no-mdns").wait_until_up(START_S)
        yield cluster


@pytest.fixture
def victim(shared: Cluster) -> Iterator[LocalNode]:
    """A node, which must still be well afterwards."""
    node = shared.named("victim")
    yield node
    sys.stdout.write(shared.logs())
    began = time.monotonic()
    node.ask("status", silence_s=ALIVE_S)
    assert time.monotonic() - began < ALIVE_S
    assert "Traceback" not in whole_log(node)
    done = shared.cli(node, "run", "--json", "--language", "bash", "--code", "echo well")
    assert done.exit_code == 0, done


def address_of(node: LocalNode) -> Address:
    addresses = node.ask("status")["addresses"]
    assert isinstance(addresses, list)
    return Address(addresses[0])


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# --- from outside -------------------------------------------------------------------------------

GARBAGE = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": noise(100_000),
    "zeros": bytes(100_000),
    "no-utf8": b"\x04\xff\xfe\xff\n",
    "a-line-without-end": b"\xff\xff\xff\xff\x7f" + b"a" * 100_000,
    "a-long-handshake": TO_NOISE + struct.pack(">H", 65535) + noise(70_000),
    "a-handshake-cut-short": TO_NOISE + struct.pack(">H", 32) + noise(31),
}


@pytest.mark.trio
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_on_the_port_keeps_nobody_else_out(victim: LocalNode, garbage: bytes) -> None:
    address = address_of(victim)
    port = int(address.rpartition("/")[2])
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            stack.enter_context(connection)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(garbage)
        # While these are open somebody with manners comes.
        with trio.fail_after(15):
            async with open_libp2p_transport(new_identity(), listen=(LOOPBACK,)) as transport:
                await transport.connect(PeerId(victim.peer), address, timeout_s=10.0)


# --- as a member --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def membership(node: LocalNode, folder: Path) -> AsyncIterator[tuple[Mesh, Transport]]:
    """Join by an invite, and be a member of the node's mesh for the length of the block."""
    line = join_line.parse(node.invite(uses=1))
    identity: Identity = new_identity()
    async with open_libp2p_transport(identity, listen=(LOOPBACK,)) as transport:
        await transport.connect(line.inviter, line.addresses[0], timeout_s=5.0)
        async with open_asker(transport) as asker:
            member = await join(identity.peer, "rogue", line, asker, unix_clock=time.time)
        invites = InviteBook(folder / "invites.json", time.time)

        def profile(sequence: int) -> Profile:
            return Profile(
                boot=BOOT,
                sequence=sequence,
                name="rogue",
                version="0",
                roles=(),
                addresses=transport.addresses,
                sandbox="none",
            )

        about = Self("rogue", BOOT, profile, Hot)
        async with open_mesh(transport, member, about, invites, unix_clock=time.time) as mesh:
            arrived = trio.Event()
            mesh.listen(lambda _change: arrived.set())
            mesh.sighted(Sighted(line.inviter, line.addresses))
            if not mesh.is_routable(line.inviter):
                await arrived.wait()
            yield mesh, transport


def sealed(frame: bytes, request: int = 1) -> bytes:
    return codec.seal(codec.Envelope(request, frame))


FRAMES = {
    "noise": noise(10_000),
    "a-length-beyond-all-bounds": struct.pack(">II", 2**32 - 1, 1) + bytes(1000),
    "no-cbor": sealed(noise(100)),
    "an-empty-frame": sealed(b""),
    "nested-without-end": sealed(b"\x81" * 10_000),
    "another-version": sealed(codec.encode_plain([99, "trust/ready", {}])),
    "an-unknown-kind": sealed(codec.encode_plain([1, "nosuch/kind", {}])),
    "the-wrong-kind": sealed(codec.encode(Ready())),
    "fields-of-the-wrong-type": sealed(codec.encode_plain([1, "repl/cell-asked", {"task": 5}])),
    "the-same-number-again": sealed(codec.encode(Ready())) * 100,
    "request-zero": sealed(codec.encode(Ready()), request=0),
}


@pytest.mark.trio
@pytest.mark.parametrize("garbage", FRAMES.values(), ids=FRAMES)
async def test_a_member_that_sends_garbage_can_still_ask_properly(
    victim: LocalNode, tmp_path: Path, garbage: bytes
) -> None:
    peer = PeerId(victim.peer)
    with trio.fail_after(30):
        async with membership(victim, tmp_path) as (mesh, transport):
            for protocol in PROTOCOLS:
                stream = await transport.open_stream(peer, protocol, timeout_s=5.0)
                with contextlib.suppress(PeerUnreachableError):
                    await stream.send(garbage)
                    await stream.finish()
                    while await stream.receive():
                        pass
            asked = FoldAsked(text="one. two. three.", budget_tokens=5, remaining_s=10.0)
            done = await mesh.request(peer, "/kowalski/fold/1", asked, FoldDone, timeout_s=10.0)
            assert done.source_tokens > 0


@pytest.mark.trio
async def test_garbage_in_gossip_is_dropped(victim: LocalNode, tmp_path: Path) -> None:
    peer = PeerId(victim.peer)
    with trio.fail_after(30):
        async with membership(victim, tmp_path) as (mesh, transport):
            topic = ids.topic(mesh.membership.mesh, "telemetry")
            for size in (0, 1, 100, 32_000):
                await transport.publish(topic, os.urandom(size))
            asked = FoldAsked(text="one. two. three.", budget_tokens=5, remaining_s=10.0)
            await mesh.request(peer, "/kowalski/fold/1", asked, FoldDone, timeout_s=10.0)


@pytest.mark.trio
@pytest.mark.parametrize(
    "request_", [Ready(), FoldAsked(budget_tokens=5, remaining_s=10.0)], ids=["kind", "fields"]
)
async def test_what_makes_no_sense_is_answered_with_a_reason(
    victim: LocalNode, tmp_path: Path, request_: FoldAsked | Ready
) -> None:
    peer = PeerId(victim.peer)
    reasons = (RequestFailedError, RequestRefusedError, RemoteProtocolError)
    with trio.fail_after(30):
        async with (
            membership(victim, tmp_path) as (mesh, _),
            mesh.converse(peer, "/kowalski/fold/1", request_) as asked,
        ):
            with pytest.raises(reasons):
                await asked.receive()
