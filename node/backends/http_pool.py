"""HTTP/1.1 connections to the model servers, kept and used again.

Its own and no library's because most of what a node does passes through here: a pool that asks the
system about each kept connection at each request, and sends a head and its body apart, cost a
quarter of a model call (`docs/benchmarks.md`, the hot path). `http_answers` knows the protocol.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

import certifi
import trio
from trio.abc import Stream

from kowalski.node.backends.http_answers import AnswerReader, Head
from kowalski.node.backends.lines import excerpt
from kowalski.node.backends.seam import BackendError
from kowalski.node.backends.silences import Silences
from kowalski.node.ready_streams import ReadyStream

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a connection goes to."""

    scheme: str
    host: str
    port: int


Connect: TypeAlias = Callable[[Origin], Awaitable[Stream]]
"""Opens one connection. Raises OSError or trio.BrokenResourceError: there is none."""


def origin_and_target(url: str) -> tuple[Origin, bytes]:
    """Whom to ask, and for what.

    Raises:
        BackendError: `unreachable`, this is no address.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not host.isascii() or not (host and port):
            raise ValueError(url)
        return Origin(parts.scheme, host, port), target.encode("ascii")
    except ValueError as error:
        raise BackendError("unreachable", f"bad address {excerpt(url)}") from error


async def connect_tcp(origin: Origin) -> Stream:
    """As this machine's network does it. TCP_NODELAY is on (trio's default for TCP sockets)."""
    if origin.scheme not in _PORTS:
        raise OSError(f"{origin.scheme} is not spoken here")
    if origin.scheme == "http":
        return await trio.open_tcp_stream(origin.host, origin.port)
    # In a thread: reading all authorities takes longer than the event loop may stand still.
    context = await trio.to_thread.run_sync(_tls_context)
    stream = await trio.open_tcp_stream(origin.host, origin.port)
    secret = trio.SSLStream(stream, context, server_hostname=origin.host, https_compatible=True)
    try:
        await secret.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secret


def _tls_context() -> ssl.SSLContext:
    """The system's authorities, and those of a browser where a system has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


class Connection:
    """One connection, and the request and answer that are on it now. Made by `Pool`."""

    def __init__(self, origin: Origin, stream: Stream, silences: Silences) -> None:
        self.origin = origin
        self.kept_at = math.inf
        self._stream = stream
        self._silences = silences
        self._ready = ReadyStream(stream)
        self._is_broken = False
        self._is_given_up = False
        self._answer = AnswerReader()
        self._failure: BackendError | None = None

    async def ask(self, request: bytes, *, until: float) -> Head:
        """Send a request, in one piece, and wait for the head of its answer until that time.

        Raises:
            BackendError: `unreachable`, it hung up; `bad_reply`, that is no HTTP; `stalled`.
        """
        self._answer.end()
        answer = self._answer = AnswerReader()
        self._silences.begin(self, until)
        try:
            try:
                await self._ready.send_all(request)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._is_broken = True  # it may have answered before it hung up
            while answer.head is None:
                await self._read()
        finally:
            self._silences.end(self)
        return answer.head

    async def receive(self, *, until: float = math.inf) -> bytes:
        """What there is of the answer's body, `b""` at its end. Raises as `ask`."""
        if (data := self.receive_now()) is not None:
            return data
        self._silences.begin(self, until)
        try:
            while (data := self.receive_now()) is None:
                await self._read()
        finally:
            self._silences.end(self)
        return data

    def receive_now(self) -> bytes | None:
        """As `receive`, of what has come already; None: nothing of it."""
        if data := self._answer.take():
            return data
        if self._failure is not None:
            raise self._failure
        return b"" if self._answer.is_whole else None

    async def _read(self) -> None:
        data = b""
        try:
            data = await self._ready.receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if not self._is_given_up:
                raise BackendError("unreachable", str(error.__cause__ or error)) from error
        if self._is_given_up:
            raise BackendError("stalled", "no answer in time")
        try:
            self._answer.feed(data)
        except BackendError as error:
            if self._answer.head is None:
                raise
            self._failure = error  # after what came before it

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer has come, read or not."""
        return self._answer.is_whole

    def begin_anew(self) -> bool:
        """Whether another request may be sent: the answer was read to its end, and nothing more."""
        return self._answer.is_whole and not (self._answer.is_last or self._is_broken)

    @property
    def is_fallow(self) -> bool:
        """Of a kept one: whether nothing has come on it, which could only be its end."""
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return not (isinstance(stream, trio.SocketStream) and stream.socket.is_readable())

    async def give_up(self) -> None:
        """See `silences.Awaited`."""
        self._is_given_up = self._is_broken = True
        await self.aclose()

    async def aclose(self) -> None:
        """Close at once."""
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)


class Pool:
    """At most `connections_max` connections, of which `kept_max` wait for their next request."""

    def __init__(
        self,
        connect: Connect,
        *,
        connections_max: int,
        kept_max: int,
        kept_s: float,
        connect_timeout_s: float,
    ) -> None:
        self._connect = connect
        self._kept_max = kept_max
        self._kept_s = kept_s
        self._connect_timeout_s = connect_timeout_s
        self._places = trio.Semaphore(connections_max)
        self.silences = Silences()
        """Of the servers that are asked; whoever opens a pool runs it."""
        self._kept: list[Connection] = []
        """The one that was used last at the end: the others may be left to grow old."""

    def take_now(self, origin: Origin) -> Connection | None:
        """As `take`, where nothing has to be waited for; else None."""
        if not self._places.value or (kept := self._take_kept(origin)) is None:
            return None
        if trio.current_time() - kept.kept_at < self._kept_s and kept.is_fallow:
            self._places.acquire_nowait()
            return kept
        self._kept.append(kept)  # for `take` to close
        return None

    async def take(self, origin: Origin) -> Connection:
        """A connection, to be given back with `give_back`.

        Raises:
            BackendError: `overloaded`, all are in use, and were for the length of the timeout;
                `unreachable`, nobody is there, or does not answer within that.
        """
        await self._take_place()
        try:
            while (kept := self._take_kept(origin)) is not None:
                if trio.current_time() - kept.kept_at < self._kept_s and kept.is_fallow:
                    return kept
                await kept.aclose()
            if len(self._kept) > self._places.value:
                await self._kept.pop(0).aclose()
            return Connection(origin, await self._open(origin), self.silences)
        except BaseException:
            self._places.release()
            raise

    async def open_ahead(self, origin: Origin) -> None:
        """Have a connection for the next request. Raises as `take`."""
        connection = await self.take(origin)
        self._places.release()
        # One that was kept already grows no younger by this.
        await self._keep(connection, min(connection.kept_at, trio.current_time()))

    async def give_back(self, connection: Connection) -> None:
        """Keep it for the next request where its answer was read to the end, else close it."""
        self._places.release()
        if not connection.begin_anew():
            await connection.aclose()
            return
        await self._keep(connection, trio.current_time())

    async def aclose(self) -> None:
        """Close those that are kept."""
        while self._kept:
            await self._kept.pop().aclose()

    async def _keep(self, connection: Connection, kept_at: float) -> None:
        connection.kept_at = kept_at
        self._kept.append(connection)
        if len(self._kept) > self._kept_max:
            await self._kept.pop(0).aclose()

    async def _take_place(self) -> None:
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(self._connect_timeout_s) as patience:
                await self._places.acquire()
            if patience.cancelled_caught:
                raise BackendError("overloaded", "all connections to it are in use") from None

    def _take_kept(self, origin: Origin) -> Connection | None:
        for at in range(len(self._kept) - 1, -1, -1):
            if self._kept[at].origin == origin:
                return self._kept.pop(at)
        return None

    async def _open(self, origin: Origin) -> Stream:
        try:
            with trio.fail_after(self._connect_timeout_s):
                return await self._connect(origin)
        except trio.TooSlowError as error:
            what = f"no connection within {self._connect_timeout_s:g} s"
            raise BackendError("unreachable", what) from error
        except (OSError, trio.BrokenResourceError) as error:
            raise BackendError("unreachable", str(error.__cause__ or error)) from error
