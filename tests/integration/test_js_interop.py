"""js-libp2p as a stranger that we have to get along with: its own transport, streams and gossip."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from kowalski.mesh.libp2p_transport import Libp2pTransport
from kowalski.protocol.ids import Address
from tests.integration.npm import install
from tests.mesh.wires import (
    ECHO,
    TOPIC,
    ask_echo,
    eventually,
    everybody,
    one_transport,
    publish_until_heard,
    receive_exactly,
)
from tests.netns import ROOT, lan, missing

HERE = ROOT / "tests/integration"
JS = HERE / "js"
PEER = str(JS / "peer.mjs")
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@pytest.fixture(scope="module")
def js_libp2p() -> None:
    why_not = install(JS)
    if why_not is not None:
        pytest.skip(why_not)


pytestmark = [pytest.mark.real, pytest.mark.usefixtures("js_libp2p")]


class Teller:
    """A peer in a process of its own, which says what happens in lines of JSON."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""
        self._told: list[list[Any]] = []
        self.peer = ""
        self.addresses: list[str] = []

    async def _next_line(self) -> list[Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            more = await self._process.stdout.receive_some()
            assert more, "the peer ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        what: list[Any] = json.loads(line)
        return what

    async def wait_for(self, *expected: object, within_s: float = 20) -> list[Any]:
        """The next thing told that starts like this; others are kept for later."""
        with trio.fail_after(within_s):
            while True:
                for number, what in enumerate(self._told):
                    if what[: len(expected)] == list(expected):
                        return self._told.pop(number)
                self._told.append(await self._next_line())

    async def tell(self, *command: object) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(command).encode() + b"\n")

    async def ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 JSON
        await self.tell(name, *arguments)
        with trio.fail_after(30):
            while True:
                for outcome in ("done", "failed"):
                    for number, what in enumerate(self._told):
                        if what[:2] == [outcome, name]:
                            del self._told[number]
                            assert outcome == "done", what[2]
                            return what[2]
                self._told.append(await self._next_line())


@asynccontextmanager
async def telling(*argv: str) -> AsyncIterator[Teller]:
    process = await trio.lowlevel.open_process(
        list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=str(ROOT)
    )
    try:
        teller = Teller(process)
        _, teller.peer, teller.addresses = await teller.wait_for("up")
        yield teller
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()


def js_peer() -> AbstractAsyncContextManager[Teller]:
    return telling("node", PEER, LOOPBACK)


def of(transport: Libp2pTransport) -> str:
    return f"{transport.addresses[0]}/p2p/{transport.peer}"


def bare(address: str) -> Address:
    return Address(address.split("/p2p/", maxsplit=1)[0])


@pytest.mark.trio
async def test_js_dials_pings_and_learns_what_we_speak() -> None:
    async with one_transport() as ours, js_peer() as js:
        await js.ask("dial", of(ours))
        await eventually(lambda: ours.connections == {js.peer})
        assert await js.ask("ping", of(ours)) < 5000
        spoken = set(await js.ask("protocols", of(ours)))
        assert ECHO in spoken
        assert "/meshsub/1.1.0" not in spoken, "gossip is not for strangers"


@pytest.mark.trio
async def test_streams_carry_megabytes_both_ways_opened_by_either() -> None:
    size = 3_000_000
    async with one_transport() as ours, js_peer() as js:
        assert await js.ask("echo", of(ours), size) == size
        stream = await ours.open_stream(js.peer, ECHO, timeout_s=5)  # type: ignore[arg-type]
        sent = bytes(range(250)) * (size // 250)

        async def pump() -> None:
            await stream.send(sent)
            await stream.finish()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump)
                assert await receive_exactly(stream, size) == sent
        assert await stream.receive() == b""


@pytest.mark.trio
async def test_we_dial_js_and_many_streams_keep_apart() -> None:
    async with one_transport() as ours, js_peer() as js:
        await ours.connect(js.peer, bare(js.addresses[0]), timeout_s=10)  # type: ignore[arg-type]
        await js.wait_for("connected", ours.peer)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask_echo, ours, js.peer, f"{number},".encode() * 1000)


@pytest.mark.trio
async def test_signed_gossip_goes_both_ways() -> None:
    async with one_transport() as ours, js_peer() as js:
        heard = await ours.subscribe(TOPIC, admits=everybody)
        await js.ask("subscribe", TOPIC)
        await js.ask("dial", of(ours))
        ours.admit(js.peer)  # type: ignore[arg-type]
        gossip = await publish_until_heard(lambda: js.tell("publish", TOPIC, "from js"), heard)
        assert (gossip.origin, gossip.data) == (js.peer, b"from js")
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:

                async def say() -> None:
                    while True:
                        await ours.publish(TOPIC, b"from python")
                        await trio.sleep(0.2)

                nursery.start_soon(say)
                await js.wait_for("heard", ours.peer, "from python")
                nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_js_peer_that_is_killed_is_missed() -> None:
    async with one_transport() as ours:
        async with js_peer() as js:
            await ours.connect(js.peer, bare(js.addresses[0]), timeout_s=10)  # type: ignore[arg-type]
            assert ours.connections == {js.peer}
        await eventually(lambda: not ours.connections, within_s=3)


@pytest.mark.netns
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
@pytest.mark.trio
async def test_js_and_we_see_each_other_by_mdns() -> None:
    with lan(2) as (one, other):
        js_argv = other.command("node", PEER, f"/ip4/{other.ip}/tcp/0", "mdns")
        our_argv = one.command(sys.executable, "-u", str(HERE / "lan_peer.py"))
        async with telling(*our_argv) as ours, telling(*js_argv) as js:
            _, _, addresses = await js.wait_for("sighted", ours.peer)
            assert bare(addresses[0]) == ours.addresses[0]
            _, _, addresses = await ours.wait_for("sighted", js.peer)
            assert addresses == [bare(js.addresses[0])]
