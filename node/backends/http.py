"""HTTP to the model servers: pooled, bounded, every wait with a deadline.

The only module that knows httpcore. It turns weather into `BackendError` and leaves the meaning
of statuses and bodies to its callers. TCP_NODELAY is on (trio's default for TCP sockets).
"""

from __future__ import annotations

import contextlib
import email.utils
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias, runtime_checkable
from urllib.parse import urlsplit

import httpcore
import trio

from kowalski.node.backends.lines import excerpt
from kowalski.node.backends.seam import BackendError

Headers: TypeAlias = Mapping[str, str]

BODY_BYTES_MAX = 4 * 1024 * 1024
RETRY_AFTER_S_MAX = 3600.0
# uvicorn closes an idle connection after 5 s: do not meet it in that moment.
KEEPALIVE_S = 4.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names are in lower case."""

    status: int
    headers: Headers
    body: bytes


@runtime_checkable
class _ByteStream(Protocol):
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class StreamedReply:
    """An answer whose body is still coming; header names are in lower case."""

    def __init__(self, response: httpcore.Response) -> None:
        self.status = response.status
        self.headers: Headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers
        }
        assert isinstance(response.stream, _ByteStream)
        self._stream: _ByteStream = response.stream
        self._pieces: AsyncIterator[bytes] | None = None
        self._is_over = False

    async def receive(self) -> bytes:
        """The next piece of the body, `b""` at its end.

        Raises:
            BackendError: `unreachable`, the connection broke; `bad_reply`, this is no HTTP.
        """
        if self._is_over:
            return b""
        if self._pieces is None:
            self._pieces = aiter(self._stream)
        # An error or a cancellation ends httpcore's generators and closes the connection.
        self._is_over = True
        with _weather():
            piece = await anext(self._pieces, b"")
        self._is_over = not piece
        return piece

    async def receive_all(self, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        """The rest of the body.

        Raises:
            BackendError: as `receive`; and `bad_reply` above `bytes_max`.
        """
        pieces: list[bytes] = []
        total = 0
        while piece := await self.receive():
            total += len(piece)
            if total > bytes_max:
                raise BackendError("bad_reply", f"body of more than {bytes_max} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def drain(self, *, timeout_s: float = 0.05) -> None:
        """Read an end that should be there already, so that the connection can be used again."""
        with trio.move_on_after(timeout_s), contextlib.suppress(BackendError):
            while await self.receive():
                pass

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it at once."""
        if self._pieces is not None and not self._is_over:
            # Ends httpcore's nested generators from the inside. Closing the outermost leaves the
            # inner ones to the garbage collector, of which trio rightly complains.
            with trio.move_on_after(0), contextlib.suppress(BackendError):
                while await self.receive():
                    pass
        with trio.move_on_after(1) as last_words:
            last_words.shield = True
            await self._stream.aclose()


class HttpClient:
    """A pool of connections. Use `open_http`."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, *, connect_timeout_s: float) -> None:
        self._pool = pool
        self._connect_timeout_s = connect_timeout_s

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Headers | None = None,
        body: bytes = b"",
        timeout_s: float,
        bytes_max: int = BODY_BYTES_MAX,
    ) -> Reply:
        """Ask for one bounded answer, whatever its status.

        Raises:
            BackendError: `unreachable`, also when it was not here within `timeout_s`; `bad_reply`.
        """
        with trio.move_on_after(timeout_s):
            async with self.stream(
                method, url, headers=headers, body=body, head_timeout_s=timeout_s
            ) as reply:
                whole = await reply.receive_all(bytes_max=bytes_max)
                return Reply(reply.status, reply.headers, whole)
        raise BackendError("unreachable", f"no answer within {timeout_s:g} s")

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Headers | None = None,
        body: bytes = b"",
        head_timeout_s: float,
    ) -> AsyncIterator[StreamedReply]:
        """Send one request and wait for the head of the answer.

        Leaving the block before the end of the body closes the connection.

        Raises:
            BackendError: `unreachable`; `bad_reply`; `stalled` when it was connected but sent no
                head within `head_timeout_s`.
        """
        response: httpcore.Response | None = None
        request = self._request(method, url, headers or {}, body)
        with trio.move_on_after(head_timeout_s), _weather():
            response = await self._pool.handle_async_request(request)
        if response is None:
            raise BackendError("stalled", f"no answer within {head_timeout_s:g} s")
        reply = StreamedReply(response)
        try:
            yield reply
        finally:
            await reply.aclose()

    def _request(self, method: str, url: str, headers: Headers, body: bytes) -> httpcore.Request:
        timeouts = {"connect": self._connect_timeout_s, "pool": self._connect_timeout_s}
        try:
            all_headers = {
                "Host": urlsplit(url).netloc.rpartition("@")[2],
                "User-Agent": "kowalski-node",
                "Accept": "*/*",
                **headers,
            }
            if body:
                all_headers["Content-Length"] = str(len(body))
            return httpcore.Request(
                method,
                url,
                headers=list(all_headers.items()),
                content=body,
                extensions={"timeout": timeouts},
            )
        except (ValueError, TypeError) as error:
            raise BackendError("unreachable", f"bad address {excerpt(url)}") from error


@contextlib.asynccontextmanager
async def open_http(
    *,
    connections_max: int = 128,
    connect_timeout_s: float = 3.0,
    network: httpcore.AsyncNetworkBackend | None = None,
) -> AsyncIterator[HttpClient]:
    """Open a pool; the connections end with the block. `network` None: that of this machine."""
    async with httpcore.AsyncConnectionPool(
        max_connections=connections_max,
        max_keepalive_connections=16,
        keepalive_expiry=KEEPALIVE_S,
        network_backend=network,
    ) as pool:
        yield HttpClient(pool, connect_timeout_s=connect_timeout_s)


def retry_after_s(headers: Headers) -> float | None:
    """What `Retry-After` asks for: seconds or a date (RFC 9110, 10.2.3), at most an hour."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    # Not `min(max(...))` alone: a NaN passes through it.
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX) if seconds == seconds else None  # noqa: PLR0124


@contextlib.contextmanager
def _weather() -> Iterator[None]:
    """Turn httpcore's errors into ours."""
    try:
        yield
    except httpcore.PoolTimeout as error:
        raise BackendError("overloaded", "all connections to it are in use") from error
    except (httpcore.TimeoutException, httpcore.NetworkError) as error:
        raise BackendError("unreachable", _words(error)) from error
    except httpcore.RemoteProtocolError as error:
        words = _words(error)
        # One class for "hung up" and for "this is no HTTP"; only the text tells them apart.
        is_hang_up = "disconnected" in words or "closed connection" in words
        raise BackendError("unreachable" if is_hang_up else "bad_reply", words) from error
    except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError) as error:
        raise BackendError("unreachable", f"bad address or header: {_words(error)}") from error


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
