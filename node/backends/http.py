"""HTTP to the model servers: pooled, bounded, every wait with a deadline.

It turns weather into `BackendError` and leaves the meaning of statuses and bodies to its callers.
"""

from __future__ import annotations

import contextlib
import email.utils
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

import trio

from kowalski.node.backends.http_answers import Head, request_head, with_body
from kowalski.node.backends.http_pool import (
    Connect,
    Connection,
    Origin,
    Pool,
    connect_tcp,
    origin_and_target,
)
from kowalski.node.backends.seam import BackendError

T = TypeVar("T")

Headers: TypeAlias = Mapping[str, str]

BODY_BYTES_MAX = 4 * 1024 * 1024
RETRY_AFTER_S_MAX = 3600.0
# uvicorn closes an idle connection after 5 s: do not meet it in that moment.
KEEPALIVE_S = 4.0
KEPT_MAX = 16
BEGINNINGS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names are in lower case."""

    status: int
    headers: Headers
    body: bytes


class StreamedReply:
    """An answer whose body is still coming; header names are in lower case."""

    def __init__(self, head: Head, connection: Connection) -> None:
        self.status = head.status
        self.headers: Headers = head.headers
        self._connection = connection
        self._is_over = False

    async def receive(self, *, until: float = math.inf) -> bytes:
        """What there is of the body, `b""` at its end. Waits until that time, and no longer.

        Raises:
            BackendError: `unreachable`, the connection broke; `bad_reply`, this is no HTTP;
                `stalled`.
        """
        if (piece := self.receive_now()) is None:
            self._is_over = True  # stays so after an error or a cancellation
            piece = await self._connection.receive(until=until)
            self._is_over = not piece
        return piece

    def receive_now(self) -> bytes | None:
        """As `receive`, of what has come already; None: nothing of it."""
        if self._is_over:
            return b""
        self._is_over = True  # stays so after an error
        piece = self._connection.receive_now()
        self._is_over = piece == b""
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
        if self._connection.is_whole:
            return
        with contextlib.suppress(BackendError):
            while self.receive_now():
                pass
            if not self._is_over:
                with trio.move_on_after(timeout_s):
                    while await self.receive():
                        pass


class HttpClient:
    """A pool of connections. Use `open_http`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

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

    async def connect(self, url: str, *, timeout_s: float) -> None:
        """Find out whether anybody takes connections there; the next request has this one.

        Raises:
            BackendError: `unreachable`, nobody does, or not within `timeout_s`; `overloaded`.
        """
        origin, _ = origin_and_target(url)
        with trio.move_on_after(timeout_s):
            await self._pool.open_ahead(origin)
            return
        raise BackendError("unreachable", f"no connection within {timeout_s:g} s")

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Headers | None = None,
        body: bytes = b"",
        head_timeout_s: float,
    ) -> contextlib.AbstractAsyncContextManager[StreamedReply]:
        """Send one request and wait for the head of the answer.

        Leaving the block before the end of the body closes the connection.

        Raises:
            BackendError: `unreachable`; `bad_reply`; `stalled` when it was connected but sent no
                head within `head_timeout_s`.
        """
        return self.begin(
            method, url, _as_it_is, headers=headers, body=body, head_timeout_s=head_timeout_s
        )

    def begin(
        self,
        method: str,
        url: str,
        read: Callable[[StreamedReply], Awaitable[T]],
        *,
        headers: Headers | None = None,
        body: bytes = b"",
        head_timeout_s: float,
    ) -> contextlib.AbstractAsyncContextManager[T]:
        """As `stream`; the block is given what `read` makes of the answer."""
        origin, head = _beginning(method, url, tuple((headers or {}).items()))
        return _UnderWay(self._pool, origin, with_body(head, body), read, head_timeout_s)


async def _as_it_is(reply: StreamedReply) -> StreamedReply:
    return reply


class _UnderWay(Generic[T]):
    """One request and its answer. A class, since a generator costs half as much as the asking."""

    def __init__(
        self,
        pool: Pool,
        origin: Origin,
        request: bytes,
        read: Callable[[StreamedReply], Awaitable[T]],
        head_timeout_s: float,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._request = request
        self._read = read
        self._head_timeout_s = head_timeout_s
        self._connection: Connection | None = None

    async def __aenter__(self) -> T:
        try:
            return await self._read(await self._ask())
        except BaseException:
            await self._give_back()
            raise

    async def __aexit__(self, *_how: object) -> None:
        await self._give_back()

    async def _ask(self) -> StreamedReply:
        ends = trio.current_time() + self._head_timeout_s
        self._connection = self._pool.take_now(self._origin)
        if self._connection is None:
            with trio.move_on_at(ends):
                self._connection = await self._pool.take(self._origin)
        try:
            if self._connection is not None:
                head = await self._connection.ask(self._request, until=ends)
                return StreamedReply(head, self._connection)
        except BackendError as error:
            if error.code != "stalled":
                raise
        raise BackendError("stalled", f"no answer within {self._head_timeout_s:g} s")

    async def _give_back(self) -> None:
        if self._connection is not None:
            await self._pool.give_back(self._connection)


@lru_cache(maxsize=BEGINNINGS_KEPT)
def _beginning(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> tuple[Origin, bytes]:
    """Whom to ask, and how the request begins: checked once, since most are sent many times."""
    origin, target = origin_and_target(url)
    told = {
        "Host": urlsplit(url).netloc.rpartition("@")[2],
        "User-Agent": "kowalski-node",
        "Accept": "*/*",
    }
    return origin, request_head(method, target, told | dict(headers))


@contextlib.asynccontextmanager
async def open_http(
    *,
    connections_max: int = 128,
    connect_timeout_s: float = 3.0,
    connect: Connect = connect_tcp,
) -> AsyncIterator[HttpClient]:
    """Open a pool; the connections that it keeps end with the block."""
    pool = Pool(
        connect,
        connections_max=connections_max,
        kept_max=KEPT_MAX,
        kept_s=KEEPALIVE_S,
        connect_timeout_s=connect_timeout_s,
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.silences.run)
            try:
                yield HttpClient(pool)
            finally:
                await pool.aclose()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0]  # noqa: B904 it is the block's: the clock has none


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
