from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.repl import canary
from kowalski.node.repl.detection import bubblewrap_here, namespaces_here
from kowalski.node.repl.egress import (
    CONNECTIONS_MAX,
    Egress,
    IPAddress,
    Network,
    WayOut,
    environment,
    is_allowed,
    is_ours,
    open_egress,
)
from kowalski.node.repl.sandbox import ForkingSandbox
from tests.node.repl.hostile_cells import NETWORK, PROXY
from tests.node.repl.hostile_run import run_all
from tests.node.repl.rooms import kernel_source, sandbox_here, talk_to

PATIENCE_S = 60.0


@pytest.mark.parametrize(
    ("address", "internet", "lan"),
    [
        ("1.1.1.1", True, True),
        ("2606:4700::1111", True, True),
        ("::ffff:1.1.1.1", True, True),
        ("192.168.1.7", False, True),
        ("10.1.2.3", False, True),
        ("172.16.0.9", False, True),
        ("fd00::1", False, True),
        ("::ffff:192.168.1.7", False, True),
        ("127.0.0.1", False, False),
        ("127.9.9.9", False, False),
        ("::1", False, False),
        ("::ffff:127.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("224.0.0.251", False, False),
        ("ff02::fb", False, False),
        ("255.255.255.255", False, False),
        ("64:ff9b::7f00:1", False, False),
        ("2002:7f00:1::1", False, False),
    ],
)
def test_an_address_is_in_reach_by_its_number(address: str, internet: bool, lan: bool) -> None:
    found = ipaddress.ip_address(address)
    reached = {network: is_allowed(found, network) for network in ("none", "internet", "lan")}
    assert reached == {"none": False, "internet": internet, "lan": lan}


def test_what_is_this_machines_own_is_told() -> None:
    assert is_ours(ipaddress.ip_address("127.0.0.1"))
    assert is_ours(ipaddress.ip_address("127.3.2.1")) is False  # it answers as 127.0.0.1
    assert not is_ours(ipaddress.ip_address("203.0.113.7"))


class Anywhere(Egress):
    """As if every address were in reach but one."""

    def may_reach(self, address: IPAddress) -> bool:
        return str(address) != "127.0.0.9"


class Session:
    """The session's end of a way out: a listener, without any sandbox around it."""

    def __init__(self, way_out: WayOut) -> None:
        self.way_out = way_out
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            socket.send_fds(way_out.theirs, [b"l"], [listener.fileno()])
        way_out.is_passed()
        way_out.open()

    @asynccontextmanager
    async def ask(self, data: bytes) -> AsyncIterator[trio.SocketStream]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(data)
            yield stream


async def all_of(stream: trio.SocketStream) -> bytes:
    return b"".join([piece async for piece in stream])


@asynccontextmanager
async def open_session(network: Network = "internet") -> AsyncIterator[Session]:
    with trio.fail_after(PATIENCE_S):
        async with open_plain_nursery() as nursery:
            session = Session(Anywhere(network, nursery).way_out())
            yield session
            session.way_out.close()


@asynccontextmanager
async def open_origin(answer: Callable[[trio.SocketStream], object]) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def echo(stream: trio.SocketStream) -> None:
    async for piece in stream:
        await stream.send_all(piece.upper())


@pytest.mark.trio
async def test_a_tunnel_carries_both_ways_and_ends_with_either_end() -> None:
    async with open_session() as session, open_origin(echo) as port:
        request = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\nearly " % port
        async with session.ask(request) as stream:
            await stream.send_all(b"and late")
            await stream.send_eof()
            answer = await all_of(stream)
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nEARLY AND LATE"


@pytest.mark.trio
async def test_a_plain_request_is_passed_on_as_its_origin_expects_it() -> None:
    heard = bytearray()

    async def answer(stream: trio.SocketStream) -> None:
        heard.extend(await stream.receive_some(4096))
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nhello")

    async with open_session() as session, open_origin(answer) as port:
        request = b"GET http://127.0.0.1:%d/x HTTP/1.1\r\nProxy-Connection: x\r\n\r\n" % port
        async with session.ask(request) as stream:
            assert await all_of(stream) == b"HTTP/1.1 200 OK\r\n\r\nhello"
    assert heard == b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n"


@pytest.mark.trio
@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        (b"CONNECT 127.0.0.9:80 HTTP/1.1\r\n\r\n", b"403", b"public addresses alone"),
        (b"CONNECT 127.0.0.1:25 HTTP/1.1\r\n\r\n", b"403", b"sends no mail"),
        (b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n", b"403", b""),
        (b"CONNECT no.such.name.invalid:80 HTTP/1.1\r\n\r\n", b"403", b""),
        (b"hello\r\n\r\n", b"400", b"not a request"),
        (b"x" * 200_000, b"400", b"a head without an end"),
    ],
)
async def test_what_may_not_be_reached_is_refused_in_words(
    asked: bytes, status: bytes, words: bytes
) -> None:
    answer = bytearray()
    async with open_session() as session:
        # It does not read a flood to its end.
        with contextlib.suppress(trio.BrokenResourceError):
            async with session.ask(asked) as stream:
                async for piece in stream:
                    answer += piece
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert words in answer


@pytest.mark.trio
async def test_connections_are_bounded_and_end_with_their_session() -> None:
    arrived: list[trio.SocketStream] = []
    all_there = trio.Event()

    async def hold(stream: trio.SocketStream) -> None:
        arrived.append(stream)
        if len(arrived) == CONNECTIONS_MAX:
            all_there.set()
        await trio.sleep_forever()

    async with (
        open_session() as session,
        open_origin(hold) as port,
        contextlib.AsyncExitStack() as open_here,
    ):
        request = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % port
        streams = [
            await open_here.enter_async_context(session.ask(request))
            for _ in range(CONNECTIONS_MAX + 3)
        ]
        await all_there.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(arrived) == CONNECTIONS_MAX
        session.way_out.close()
        for stream in streams:
            with contextlib.suppress(trio.BrokenResourceError):
                await all_of(stream)


@pytest.mark.trio
async def test_where_nothing_may_be_reached_nothing_is_opened() -> None:
    async with open_egress("none") as egress:
        assert egress is None


def forking(find: Callable[..., ForkingSandbox | str], network: Network) -> ForkingSandbox:
    sandbox_here()
    found = find(network=network)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.real
@pytest.mark.trio
@pytest.mark.parametrize("find", [bubblewrap_here, namespaces_here])
@pytest.mark.parametrize("network", ["internet", "lan"])
async def test_a_session_with_a_way_out_gets_nowhere_else(
    find: Callable[..., ForkingSandbox | str], network: Network
) -> None:
    async with kernel_source(forking(find, network)) as source:
        assert await canary.escapes(source) == ()


@pytest.mark.real
@pytest.mark.trio
@pytest.mark.parametrize("find", [bubblewrap_here, namespaces_here])
async def test_no_hostile_cell_gets_past_the_proxy_or_holds_the_node_up(
    find: Callable[..., ForkingSandbox | str],
) -> None:
    past = "opens sockets of other families"  # it may, in a network with nothing in it
    cells = [each for each in (*NETWORK, *PROXY) if each.name != past]
    report = await run_all(forking(find, "internet"), ("python",), cells)
    assert report.complaints == []
    assert report.cells == len(cells)
    assert report.lag_s < 1


LOOK = """
import os, socket, urllib.request, urllib.error
def status(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as reply: return reply.status
    except urllib.error.HTTPError as error: return error.code
def connects(*place):
    try: socket.create_connection(place, 5).close()
    except OSError as error: return type(error).__name__
status('http://203.0.113.7:25/'), connects('127.0.0.1', PORT), connects('203.0.113.7', 80)
"""


@pytest.mark.real
@pytest.mark.trio
@pytest.mark.parametrize("find", [bubblewrap_here, namespaces_here])
async def test_programs_find_the_proxy_by_themselves_and_reach_nothing_past_it(
    find: Callable[..., ForkingSandbox | str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with talk_to(sandbox=forking(find, "internet")) as talk:
            outcome = await talk(LOOK.replace("PORT", str(port)))
            assert outcome.value == "(403, 'ConnectionRefusedError', 'OSError')"
            told = await talk("import subprocess; subprocess.getoutput('echo $https_proxy')")
            assert told.value == repr(environment()["https_proxy"])
