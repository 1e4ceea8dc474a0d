"""The edge to the network: deadlines, bounds, connections given back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import trio
import trio.testing

from kowalski.node.backends.http import open_http, retry_after_s
from kowalski.node.backends.seam import BackendError
from tests.scripted_model_server import open_scripted_server

OK_HEAD = b"HTTP/1.1 200 OK\r\n"


@contextlib.asynccontextmanager
async def open_raw_server(answer: bytes, *, then_hangs: bool = False) -> AsyncIterator[str]:
    """Send these bytes to whoever connects and has said something."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            with contextlib.suppress(trio.BrokenResourceError):  # who has heard enough hangs up
                await stream.send_all(answer)
            if then_hangs:
                await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def fetch_error(url: str, timeout_s: float = 2, bytes_max: int = 1000) -> BackendError:
    async with open_http() as http:
        with pytest.raises(BackendError) as caught:
            await http.fetch(url, timeout_s=timeout_s, bytes_max=bytes_max)
    return caught.value


@pytest.mark.trio
async def test_nobody_there_is_unreachable() -> None:
    async with open_raw_server(b"") as url:
        pass
    assert (await fetch_error(url)).code == "unreachable"


@pytest.mark.trio
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "unreachable"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "bad_reply"),
        (b"\xff" * 200_000, "bad_reply"),
        (OK_HEAD + b"x: " + b"y" * 200_000, "bad_reply"),
        (OK_HEAD + b"content-length: 5\r\n\r\nab", "unreachable"),
        (OK_HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", "bad_reply"),
        (OK_HEAD + b"content-length: 2000\r\n\r\n" + b"a" * 2000, "bad_reply"),
    ],
)
async def test_what_is_no_http_is_told_from_who_hung_up(answer: bytes, code: str) -> None:
    async with open_raw_server(answer) as url:
        assert (await fetch_error(url)).code == code


@pytest.mark.trio
@pytest.mark.parametrize("answer", [b"", OK_HEAD, OK_HEAD + b"content-length: 9\r\n\r\nab"])
async def test_a_server_that_goes_silent_costs_the_timeout_and_no_more(answer: bytes) -> None:
    async with open_raw_server(answer, then_hangs=True) as url:
        with trio.fail_after(1.5):
            assert (await fetch_error(url, timeout_s=0.2)).code == "unreachable"


@pytest.mark.trio
@pytest.mark.parametrize(
    "url", ["http://", "ftp://127.0.0.1/", "http://127.0.0.1:1/\n", "http://[::1"]
)
async def test_an_address_that_is_none_is_unreachable(url: str) -> None:
    assert (await fetch_error(url)).code == "unreachable"


@pytest.mark.trio
async def test_a_connection_read_to_its_end_is_used_again() -> None:
    async with open_scripted_server() as server, open_http() as http:
        for _ in range(3):
            await http.fetch(f"{server.url}/v1/models", timeout_s=2)
        assert server.stats.connections == 1


@pytest.mark.trio
async def test_more_requests_than_connections_are_refused_not_queued_for_ever() -> None:
    async with (
        open_raw_server(b"", then_hangs=True) as url,
        open_http(connections_max=1, connect_timeout_s=0.1) as http,
        trio.open_nursery() as nursery,
    ):

        async def hog() -> None:
            with contextlib.suppress(BackendError):
                await http.fetch(url, timeout_s=5)

        nursery.start_soon(hog)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(BackendError) as caught:
            await http.fetch(url, timeout_s=5)
        assert caught.value.code == "overloaded"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e9", 3600.0),
        ("inf", 3600.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_bounded(value: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": value}) == seconds


def test_retry_after_may_be_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = retry_after_s({"retry-after": soon})
    assert seconds is not None
    assert 50 < seconds <= 60
