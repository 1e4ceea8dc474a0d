"""How many clients are served, and where."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.http.server import open_http_server
from kowalski.protocol.errors import ConfigError
from tests.node.http.houses import (
    GET,
    PATIENCE_S,
    connected,
    open_house,
    read_all,
    read_until,
    said,
)

pytestmark = pytest.mark.trio

PLAIN = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_more_connections_than_there_is_room_for_are_told_so() -> None:
    async with open_house(connections=2) as house:
        async with connected(house) as one, connected(house) as two:
            for stream in (one, two):
                await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
                await read_until(stream, b"2;\r\n0\r\n\r\n")
            refused = await said(house, b"")
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in refused
        while house.server.connections:  # noqa: ASYNC110 nobody tells
            await trio.sleep(0.01)
        assert (await said(house, GET % b"/stream")).startswith(b"HTTP/1.1 200 ")


async def test_a_thousand_connections_are_served_at_a_time() -> None:
    async with open_house() as house:
        answered = 0
        together = trio.Event()

        async def ask() -> None:
            nonlocal answered
            async with connected(house) as stream:
                await stream.send_all(GET % b"/stream")
                await read_until(stream, b"2;")
                answered += 1
                if answered == 1000:
                    together.set()
                await together.wait()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(1000):
                    nursery.start_soon(ask)
        assert answered == 1000


async def test_a_taken_port_is_named() -> None:
    async with open_house() as house:
        with pytest.raises(ConfigError, match=f"http_port {house.port} is in use"):
            async with open_http_server("127.0.0.1", house.port, house.handle):
                pass
    with pytest.raises(ConfigError, match="http_host"):
        async with open_http_server("no such host", 0, house.handle):
            pass


# --- stopping -----------------------------------------------------------------------------------


async def test_a_stream_ends_in_its_last_words_when_the_node_stops() -> None:
    async with open_house() as house, connected(house) as stream:
        await stream.send_all(PLAIN % b"/tell")
        await house.began.wait()
        await house.server.stop()
        told = await read_all(stream)
        assert told.endswith(b"8\r\nstopping\r\n0\r\n\r\n")
        assert house.server.connections == 0


@pytest.mark.parametrize("header", [b"", b"TE: trailers\r\n"], ids=["plain", "by-h11"])
async def test_what_has_not_begun_to_be_answered_is_refused_when_the_node_stops(
    header: bytes,
) -> None:
    async with open_house() as house, connected(house) as stream:
        await stream.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n%s\r\n" % header)
        await house.began.wait()
        await house.server.stop()
        told = await read_all(stream)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5\r\n" in told
        assert b"stopping" in told
        assert house.cancelled.is_set()


async def test_who_waits_idly_is_closed_and_who_comes_is_turned_away() -> None:
    async with open_house() as house, connected(house) as idle:
        await idle.send_all(PLAIN % b"/stream")
        await read_until(idle, b"0\r\n\r\n")
        await house.server.stop()
        assert await read_all(idle) == b""
        assert (await said(house, PLAIN % b"/stream")).startswith(b"HTTP/1.1 503 ")


async def test_answers_that_have_an_end_are_waited_for() -> None:
    async with open_house() as house, connected(house) as stream, connected(house) as idle:
        await idle.send_all(PLAIN % b"/stream")
        await read_until(idle, b"0\r\n\r\n")
        await stream.send_all(PLAIN % b"/a-while")
        await house.began.wait()
        with trio.move_on_after(0.25) as patience:
            await house.server.until_answered()
        assert patience.cancelled_caught
        house.may_go_on.set()
        with trio.fail_after(PATIENCE_S):
            await house.server.until_answered()
