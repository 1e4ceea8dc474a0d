"""What is left out is decided when py-libp2p is first imported, so each test has an interpreter."""

import subprocess
import sys
from pathlib import Path

from kowalski.mesh.libp2p_loading import LEFT_OUT

ROOT = Path(__file__).resolve().parents[2]

LOADED = """
import sys
from kowalski.mesh.libp2p_loading import LEFT_OUT, load_transport
load_transport()
"""
THERE = "sorted(m for m in sys.modules if any(f'{m}.'.startswith(f'{p}.') for p in LEFT_OUT))"


def said(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    return done.stdout.strip()


def test_what_a_node_never_runs_is_not_loaded() -> None:
    assert said(f"{LOADED}print({THERE})") == "[]"


def test_by_itself_the_library_loads_all_of_it() -> None:
    """When this fails, py-libp2p has mended its ways, and the module can go."""
    code = "import sys, libp2p\nfrom kowalski.mesh.libp2p_loading import LEFT_OUT\n"
    found = said(f"{code}print({THERE})")
    for package in LEFT_OUT:
        assert f"'{package}'" in found or package == "httpx"


TALK = """
import trio
from tests.mesh.wires import ECHO, TOPIC, everybody, join, publish_until_heard, transports

async def main():
    async with transports(2) as (a, b):
        heard = await b.subscribe(TOPIC, admits=everybody)
        await a.subscribe(TOPIC, admits=everybody)
        await join(a, b)
        stream = await a.open_stream(b.peer, ECHO, timeout_s=20)
        await stream.send(b"hello")
        answer = await stream.receive()
        gossip = await publish_until_heard(lambda: a.publish(TOPIC, b"gossip"), heard)
        return answer, gossip.data

told = trio.run(main)
"""


def test_peers_meet_and_talk_without_it() -> None:
    heard = said(f"{LOADED}{TALK}print(told, {THERE})").splitlines()[-1]
    assert heard == "(b'hello', b'gossip') []"


def test_where_the_library_does_not_load_beside_stand_ins_all_of_it_is_loaded() -> None:
    needed = "libp2p_loading.LEFT_OUT += ('libp2p.custom_types',)"
    code = f"import sys\nfrom kowalski.mesh import libp2p_loading\n{needed}\n"
    code += f"libp2p_loading.load_transport()\n{TALK}"
    told = said(f"{code}print(told, 'libp2p.transport.quic' in sys.modules)").splitlines()
    assert "libp2p-loaded-whole" in told[0]
    assert told[-1] == "(b'hello', b'gossip') True"


OTHER_KEYS = """
from libp2p.crypto.exceptions import MissingDeserializerError
from libp2p.crypto.keys import KeyType, PrivateKey, PublicKey
from libp2p.crypto.pb import crypto_pb2
from libp2p.crypto.serialization import deserialize_private_key, deserialize_public_key

for kind in (KeyType.RSA, KeyType.Secp256k1):
    for message, read in (
        (crypto_pb2.PublicKey, deserialize_public_key),
        (crypto_pb2.PrivateKey, deserialize_private_key),
    ):
        try:
            read(message(key_type=kind.value, data=b"key").SerializeToString())
        except MissingDeserializerError:
            print(kind.name)
"""


def test_a_key_of_another_kind_than_ours_is_unknown_and_not_a_crash() -> None:
    assert said(LOADED + OTHER_KEYS).split() == ["RSA"] * 2 + ["Secp256k1"] * 2


DIAL = """
import trio
from kowalski.protocol.errors import PeerUnreachableError
from tests.mesh.wires import transports

async def main():
    async with transports(2) as (a, b):
        port = b.addresses[0].split("/")[4]
        for address in (f"/ip4/127.0.0.1/tcp/{port}/ws", f"/ip4/127.0.0.1/udp/{port}/quic-v1"):
            try:
                await a.connect(b.peer, address, timeout_s=5)
            except PeerUnreachableError:
                print("unreachable")

trio.run(main)
"""


def test_an_address_of_a_transport_that_was_left_out_is_unreachable() -> None:
    assert said(LOADED + DIAL).splitlines()[-2:] == ["unreachable"] * 2


def test_who_wants_a_library_for_itself_gets_the_real_one() -> None:
    assert said(f"{LOADED}import httpx, aioquic.tls\nprint(httpx.Client.get)").startswith("<func")


def test_a_library_that_is_loaded_already_is_left_as_it_is() -> None:
    code = "import libp2p, libp2p.transport.quic.utils as before\n" + LOADED
    assert said(f"{code}print(sys.modules['libp2p.transport.quic.utils'] is before)") == "True"


def test_calling_what_was_left_out_says_so() -> None:
    code = f"{LOADED}import libp2p\ntry:\n    libp2p.QUICTransport(None)\n"
    assert (
        said(f"{code}except NotImplementedError as error:\n    print(error)")
        == "libp2p.transport.quic.transport.QUICTransport was left out"
    )
