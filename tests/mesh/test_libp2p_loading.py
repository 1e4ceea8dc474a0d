"""What is left out is decided when py-libp2p is first imported, so each test has an interpreter."""

import subprocess
import sys
from pathlib import Path

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
    for package in ("libp2p.transport.quic", "libp2p.security.tls", "aioquic", "requests"):
        assert f"'{package}'" in found


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
