"""HTTP on real sockets of this machine: what clients may do, and what they may not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.node.http.hang_ups import MOMENT_S
from tests.node.http.houses import (
    GET,
    PATIENCE_S,
    House,
    connected,
    open_house,
    read_all,
    read_until,
    said,
)

pytestmark = pytest.mark.trio


async def test_requests_follow_each_other_on_one_connection() -> None:
    async with open_house() as house, connected(house) as stream:
        for body in (b"one", b"two"):
            head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            await stream.send_all(head + body)
            answer = await read_until(stream, body)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"content-length: 3\r\n" in answer
            assert b"x-request-id: " in answer


async def test_requests_that_are_sent_ahead_are_answered_in_their_order() -> None:
    async with open_house() as house:
        request = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
        last = b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await said(house, request + b"a" + request + b"b" + last)
        assert answer.count(b"HTTP/1.1 200") == 3
        assert answer.index(b"\r\n\r\na") < answer.index(b"\r\n\r\nb") < answer.index(b"0;")


async def test_a_stream_goes_out_in_chunks() -> None:
    async with open_house() as house:
        answer = await said(house, GET % b"/stream")
        assert b"transfer-encoding: chunked" in answer.lower()
        assert answer.endswith(b"2\r\n0;\r\n2\r\n1;\r\n2\r\n2;\r\n0\r\n\r\n")


async def test_an_answer_that_its_handler_leaves_open_is_ended() -> None:
    async with open_house() as house:
        assert (await said(house, GET % b"/begin-and-leave")).endswith(b"3\r\nall\r\n0\r\n\r\n")


async def test_an_answer_that_breaks_off_looks_broken() -> None:
    async with open_house() as house:
        assert (await said(house, GET % b"/begin-and-fail")).endswith(b"4\r\nsome\r\n")


async def test_a_bug_costs_one_answer() -> None:
    async with open_house() as house:
        answer = await said(house, GET % b"/bug")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"ZeroDivision" not in answer
        assert (await said(house, GET % b"/stream")).startswith(b"HTTP/1.1 200 ")


HEAD = b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_heads_follow_each_other_on_one_connection_without_bodies() -> None:
    async with open_house() as house:
        asked = HEAD % b"/echo" + HEAD % b"/stream" + HEAD % b"/nowhere" + HEAD % b"/bug"
        *told, last = (await said(house, asked + GET % b"/stream")).split(b"HTTP/1.1 ")[1:]
        assert [one[:3] for one in told] == [b"200", b"200", b"404", b"500"]
        assert [one.partition(b"\r\n\r\n")[2] for one in told] == [b""] * 4
        assert b"content-length: " in told[2]
        assert b"2;" in last


@pytest.mark.parametrize("path", [b"/nowhere", b"/bug"])
@pytest.mark.parametrize("header", [b"", b"TE: trailers\r\n"], ids=["plain", "by-h11"])
async def test_a_request_without_a_body_that_ends_in_an_error_is_not_the_last(
    path: bytes, header: bytes
) -> None:
    async with open_house() as house:
        asked = b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path, header)
        told = await said(house, asked + asked + GET % b"/stream")
        assert told.count(b"HTTP/1.1 ") == 3
        assert told.lower().count(b"connection: close") <= 1  # of the last, which asked for it
        assert b"2;" in told


async def test_a_client_that_hangs_up_ends_the_work() -> None:
    async with open_house() as house:
        async with connected(house) as stream:
            await stream.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await house.began.wait()
            assert house.server.connections == 1
        with trio.fail_after(PATIENCE_S):
            await house.cancelled.wait()


async def test_a_client_that_does_not_read_is_hung_up_on() -> None:
    async with open_house(write_s=0.2) as house, connected(house) as stream:
        await stream.send_all(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        while house.server.connections == 0:  # noqa: ASYNC110 nobody tells
            await trio.sleep(0.01)
        while house.server.connections:  # noqa: ASYNC110 nobody tells
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + b"a" * 2000, 413),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n{}", 413),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    ],
)
async def test_what_is_wrong_is_told_and_the_next_client_is_served(
    request_: bytes, status: int
) -> None:
    async with open_house() as house:
        answer = await said(house, request_)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b'{"error":{"message":"' in answer
        assert (await said(house, GET % b"/stream")).startswith(b"HTTP/1.1 200 ")


async def test_a_header_from_a_peer_cannot_add_lines() -> None:
    async with open_house() as house:
        assert b"\r\nx-why: ?mlaut\r\n" in await said(house, GET % b"/nowhere")


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"\xc3\xa4", b""])
async def test_an_upgrade_is_passed_over(upgrade: bytes) -> None:
    async with open_house() as house:
        head = b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: %s\r\n"
        answer = await said(house, head % upgrade + b"Sec-WebSocket-Key: ,,\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))


async def test_a_head_that_drips_is_cut_off() -> None:
    async with open_house(head_s=0.3) as house, connected(house) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        assert b" 408 " in await read_until(stream, b"\r\n\r\n")
        await stream.send_all(b"a")
        await read_all(stream)


async def test_a_body_that_drips_is_cut_off() -> None:
    async with open_house(body_s=0.3) as house, connected(house) as stream:
        await stream.send_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
        assert b" 408 " in await read_until(stream, b"\r\n\r\n")


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with open_house(idle_s=0.2) as house, connected(house) as stream:
        assert await read_all(stream) == b""


async def test_bodies_together_have_a_bound_and_give_back_what_they_took() -> None:
    async with open_house(bodies_bytes=900) as house:
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 600\r\n\r\n"
        for _ in range(4):
            assert (await said(house, head + b"a" * 600)).startswith(b"HTTP/1.1 200 ")
        head = head.replace(b"600", b"950")
        assert (await said(house, head + b"a" * 950)).startswith(b"HTTP/1.1 503 ")


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with open_house() as house, connected(house) as stream:
        head = (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        await stream.send_all(head)
        assert await read_until(stream, b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        await stream.send_all(b"ok")
        assert (await read_until(stream, b"ok")).startswith(b"HTTP/1.1 200 ")


async def test_the_clients_own_name_for_a_request_comes_back() -> None:
    async with open_house() as house:
        named = b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: %s\r\n\r\n"
        assert b"x-request-id: mine-7\r\n" in await said(house, named % b"mine-7")
        assert b"two words" not in await said(house, named % b"two words")


# --- read with h11 and without it ---------------------------------------------------------------

PLAIN = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
ECHO = b"POST /echo HTTP/1.1\r\nHost: x\r\n"


async def answers(house: House, request: bytes, *, byte_ahead: bool) -> bytes:
    """All that is answered, without names of requests. What begins with one byte is not plain."""
    async with connected(house) as stream:
        if byte_ahead:
            await stream.send_all(request[:1])
            await trio.testing.wait_all_tasks_blocked(0.01)
            request = request[1:]
        await stream.send_all(request)
        await stream.send_eof()
        told = (await read_all(stream)).split(b"\r\n")
    return b"\r\n".join(line for line in told if not line.startswith(b"x-request-id: ")).lower()


@pytest.mark.parametrize(
    "request_",
    [
        PLAIN % b"/stream",
        PLAIN % b"/stream" + PLAIN % b"/stream" + PLAIN % b"/echo",
        PLAIN % b"/begin-and-leave",
        PLAIN % b"/begin-and-fail",
        ECHO + b"Content-Length: 5\r\n\r\nhello",
        ECHO + b"Content-Length: 0\r\n\r\n" + PLAIN % b"/stream",
        ECHO + b"Content-Length: 5\r\n\r\nhello" + ECHO + b"Content-Length: 2\r\n\r\nho",
        ECHO + b"Content-Length: 5\r\n\r\nhello nonsense\r\n\r\n",
        ECHO + b"Content-Length: 5\r\n\r\nhel",
        ECHO + b"Content-Length: 2000\r\n\r\n" + b"a" * 2000,
        ECHO + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nhello",
        ECHO + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ECHO + b"Transfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n" + PLAIN % b"/stream",
        ECHO + b"Content-Length: 2\r\n Content-Length: 3\r\n\r\nhello",
        ECHO + b"Content-Length : 2\r\n\r\nho",
        ECHO + b"Content-Length: 2\nA: b\n\nho",
        ECHO + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\nho",
        b"GET /echo HTTP/1.0\r\n\r\n",
        b"HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    ],
)
async def test_it_does_not_show_how_a_request_was_read(request_: bytes) -> None:
    async with open_house() as house:
        at_once = await answers(house, request_, byte_ahead=False)
        assert at_once == await answers(house, request_, byte_ahead=True)
        assert house.server.connections <= 1


async def test_a_plain_request_whose_client_hangs_up_ends_too() -> None:
    async with open_house() as house:
        async with connected(house) as stream:
            await stream.send_all(PLAIN % b"/wait")
            await house.began.wait()
        with trio.fail_after(PATIENCE_S):
            await house.cancelled.wait()


async def test_a_body_may_come_after_its_head() -> None:
    async with open_house() as house, connected(house) as stream:
        for body in (b"hello", b"again"):
            await stream.send_all(ECHO + b"Content-Length: 5\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.01)
            await stream.send_all(body)
            assert body in await read_until(stream, body)


async def test_a_body_that_nobody_wanted_does_not_become_the_next_request() -> None:
    async with open_house() as house, connected(house) as stream:
        smuggled = PLAIN % b"/stream"
        head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
        await stream.send_all(head + smuggled)
        said_ = await read_all(stream)
        assert said_.startswith(b"HTTP/1.1 404 ")
        assert said_.count(b"HTTP/1.1 ") == 1


async def test_a_body_that_comes_late_takes_room_too() -> None:
    async with open_house(bodies_bytes=4) as house, connected(house) as stream:
        await stream.send_all(ECHO + b"Content-Length: 5\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(b"hello")
        assert b"HTTP/1.1 503 " in await read_until(stream, b"\r\n\r\n")


async def test_what_is_sent_while_an_answer_is_watched_is_answered_next() -> None:
    async with open_house() as house, connected(house) as stream:
        await stream.send_all(PLAIN % b"/a-while")
        await house.began.wait()
        await trio.sleep(4 * MOMENT_S)
        await stream.send_all(ECHO + b"Content-Length: 5\r\n\r\nhe")
        await trio.testing.wait_all_tasks_blocked(0.01)
        house.may_go_on.set()
        assert b"waited" in await read_until(stream, b"waited")
        await stream.send_all(b"llo")
        assert b"\r\n\r\nhello" in await read_until(stream, b"hello")
