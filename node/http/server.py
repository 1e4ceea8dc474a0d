"""HTTP/1.1 on h11 and trio: bounded, and with the client's hanging up as a cancellation.

It parses, limits and times; which handler answers is decided by whoever serves. Every wait for a
client has a deadline: for its head, for its body, for its reading of the answer.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

import h11
import structlog
import trio

from kowalski.node.http.exchange import (
    ClientGoneError,
    Exchange,
    Handler,
    HttpError,
    Request,
    Response,
    dump,
)
from kowalski.node.http.hang_ups import HangUps, Watch
from kowalski.node.ready_streams import READ_BYTES, ReadyStream
from kowalski.protocol.errors import ConfigError

log = structlog.get_logger(__name__)

REQUEST_ID_CHARS_MAX = 128


@dataclass(frozen=True, slots=True)
class Limits:
    """What the clients of one server may cost it. Seconds where it does not say otherwise."""

    connections: int = 1024
    connections_of_one: int = 512
    """From one address that is not this machine's own."""
    head_bytes: int = 32 * 1024
    head_s: float = 10.0
    """From the first byte of a request to the end of its head."""
    body_s: float = 60.0
    bodies_bytes: int = 256 * 1024 * 1024
    """Of all requests that are being answered."""
    idle_s: float = 75.0
    """How long a connection may wait for its next request."""
    write_s: float = 60.0
    """How long a client may take to read a piece of an answer."""
    ahead_bytes: int = 64 * 1024
    """Read of the next request while this one is being answered."""


class _BodyRoom:
    """How many bytes of bodies all connections together may hold."""

    def __init__(self, bytes_max: int) -> None:
        self._free = bytes_max

    def take(self, size: int) -> bool:
        if size > self._free:
            return False
        self._free -= size
        return True

    def give_back(self, size: int) -> None:
        self._free += size


class HttpServer:
    """Made by `open_http_server`."""

    def __init__(self, handler: Handler, limits: Limits, hang_ups: HangUps) -> None:
        self._handler = handler
        self._limits = limits
        self._hang_ups = hang_ups
        self._room = _BodyRoom(limits.bodies_bytes)
        self._open = 0
        self._open_of: dict[str, int] = {}

    @property
    def connections(self) -> int:
        return self._open

    async def serve(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        """Accept until cancelled."""
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}:
                    raise
                log.warning("http-accept", error=str(error))
                await trio.sleep(0.1)  # until somebody closes a file
            else:
                nursery.start_soon(self._serve_connection, stream)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(OSError):  # it may be gone already
                client = str(stream.socket.getpeername()[0])
                connection = _Connection(stream, client, self._limits, self._room, self._hang_ups)
                if not self._admits(client):
                    await connection.turn_away()
                    return
                self._open += 1
                self._open_of[client] = self._open_of.get(client, 0) + 1
                try:
                    await connection.serve(self._handler)
                except Exception:  # one connection must not end a node
                    log.exception("http-connection-died", client=client)
                finally:
                    self._open -= 1
                    self._open_of[client] -= 1
                    if not self._open_of[client]:
                        del self._open_of[client]

    def _admits(self, client: str) -> bool:
        if self._open >= self._limits.connections:
            return False
        is_ours = client in {"127.0.0.1", "::1"}
        return is_ours or self._open_of.get(client, 0) < self._limits.connections_of_one


class _Connection:
    """One connection: requests one after the other, each answered before the next is read."""

    def __init__(
        self,
        stream: trio.SocketStream,
        client: str,
        limits: Limits,
        room: _BodyRoom,
        hang_ups: HangUps,
    ) -> None:
        self._stream = stream
        self._ready = ReadyStream(stream)
        self._hang_ups = hang_ups
        self._client = client
        self._limits = limits
        self._room = room
        self._held = 0
        """Bytes of the body that is being answered."""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._unsent = b""
        self._is_gone = False

    # --- the life of a connection -----------------------------------------------------------------

    async def serve(self, handler: Handler) -> None:
        while True:
            try:
                event = await self._next_head()
            except HttpError as wrong:
                await self._refuse(wrong)
                await self._linger()
                return
            except ClientGoneError:
                return
            if event is None:
                return
            await self._exchange(_request(event, self._client), handler)
            if not await self._is_reusable():
                await self._linger()
                return

    async def turn_away(self) -> None:
        """Say that there is no room, without reading what was asked."""
        full = HttpError(503, "busy", "too many connections", headers=(("retry-after", "1"),))
        await self._refuse(full)
        await self._linger()

    async def _is_reusable(self) -> bool:
        """Whether the next request may come; reads what is left of this one's body."""
        if self._is_gone or self._http.our_state is not h11.DONE:
            return False
        try:
            await self._read_body(self._limits.ahead_bytes)
        except (HttpError, ClientGoneError):
            return False
        finally:
            self._room.give_back(self._held)
            self._held = 0
        if self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _linger(self) -> None:
        """Let the client read our last words before the connection is torn down."""
        if self._is_gone:
            return
        with trio.move_on_after(1.0), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
            while await self._stream.receive_some(READ_BYTES):
                pass

    # --- reading ----------------------------------------------------------------------------------

    async def _next_head(self) -> h11.Request | None:
        """The next request's head, None when the client has no more.

        Raises:
            HttpError: what came is no HTTP, too long, or too slow.
            ClientGoneError: it fell silent, or left in the middle.
        """
        has_begun = bool(self._http.trailing_data[0])
        if has_begun:  # who sends ahead waits for nobody, but others wait for this task
            await trio.lowlevel.checkpoint()
        with trio.move_on_after(self._limits.idle_s) as patience:
            if has_begun:
                patience.deadline = trio.current_time() + self._limits.head_s
            while True:
                event = self._next_event()
                if isinstance(event, h11.Request):
                    return self._bounded(event)
                if isinstance(event, h11.ConnectionClosed):
                    return None
                if event is not h11.NEED_DATA:
                    return None
                data = await self._receive()
                if data and not has_begun:
                    has_begun = True
                    patience.deadline = trio.current_time() + self._limits.head_s
                self._http.receive_data(data)
        if has_begun:
            raise HttpError(408, "timeout", f"no request within {self._limits.head_s:g} s")
        raise ClientGoneError

    def _bounded(self, head: h11.Request) -> h11.Request:
        """`head`; h11 bounds only what has not come whole. Raises HttpError: 431."""
        size = len(head.target) + sum(len(name) + len(value) for name, value in head.headers)
        if size > self._limits.head_bytes:
            raise HttpError(431, "head_too_large", f"a head of {size} bytes")
        return head

    def _next_event(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            code = {431: "head_too_large", 501: "not_implemented"}.get(status, "bad_request")
            raise HttpError(status, code, str(error)) from error

    async def _receive(self) -> bytes:
        try:
            return await self._ready.receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGoneError from error

    async def _read_body(self, bytes_max: int) -> bytes:
        """Raises HttpError: 408, 413, 400; ClientGoneError."""
        pieces: list[bytes] = []
        size = 0
        with trio.move_on_after(self._limits.body_s):
            while True:
                if self._http.they_are_waiting_for_100_continue:
                    going_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._send(self._http.send(going_on) or b"")
                event = self._next_event()
                if isinstance(event, h11.Data):
                    size += len(event.data)
                    if size > bytes_max:
                        raise HttpError(413, "too_large", f"a body of over {bytes_max} bytes")
                    if not self._room.take(len(event.data)):
                        raise HttpError(503, "busy", "too much is being sent to this node")
                    self._held += len(event.data)
                    pieces.append(bytes(event.data))
                elif event is h11.NEED_DATA:
                    data = await self._receive()
                    if not data:
                        raise ClientGoneError
                    self._http.receive_data(data)
                else:
                    return b"".join(pieces)  # the end, or a pause before the next request
        raise HttpError(408, "timeout", f"no whole body within {self._limits.body_s:g} s")

    # --- answering --------------------------------------------------------------------------------

    async def _exchange(self, request: Request, handler: Handler) -> None:
        body: list[bytes] = []
        scope = trio.CancelScope()
        watch = Watch(lambda: self._watch(scope))
        if not _has_body(request):
            self._hang_ups.add(watch)

        async def read_body(bytes_max: int) -> bytes:
            if not body:
                if _told_bytes(request) > bytes_max:  # before it is sent, and waited for
                    raise HttpError(413, "too_large", f"a body of over {bytes_max} bytes")
                body.append(await self._read_body(bytes_max))
                self._hang_ups.add(watch)
            return body[0]

        exchange = Exchange(request, read_body, self)
        exchange.extra.append(("x-request-id", _request_id(request)))
        try:
            with scope:
                await self._answer(exchange, handler)
            if self._is_gone:
                return
            if self._http.our_state is h11.SEND_BODY:
                await self.write(b"", is_last=True)
        except ClientGoneError:
            self._is_gone = True
        except HttpError as no:
            await self._refuse(no, exchange)
        finally:
            self._room.give_back(self._held)
            self._held = 0
            await self._hang_ups.end(watch)

    async def _answer(self, exchange: Exchange, handler: Handler) -> None:
        try:
            await handler(exchange)
        except (HttpError, ClientGoneError):
            raise
        except Exception as bug:
            log.exception("http-request-died", path=exchange.request.path)
            raise HttpError(500, "internal", "a defect of the node; it has logged what") from bug

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the client hangs up; what it sends meanwhile is kept, to a bound."""
        kept = 0
        while kept < self._limits.ahead_bytes:
            try:
                data = await self._receive()
            except ClientGoneError:
                data = b""
            if not data:
                self._is_gone = True
                scope.cancel()
                return
            kept += len(data)
            self._http.receive_data(data)

    async def _refuse(self, no: HttpError, exchange: Exchange | None = None) -> None:
        """Answer with an error; an answer that has begun is broken off, so that it looks broken."""
        if self._is_gone or self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self._is_gone = True
            return
        said = dump({"error": {"message": no.message, "type": no.code, "code": no.code}})
        exchange = exchange or Exchange(Request("", ""), self._read_body, self)
        if self._http.their_state is not h11.DONE:
            exchange.extra.append(("connection", "close"))
        with suppress(ClientGoneError):
            await exchange.answer(Response(no.status, said, headers=no.headers))

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """See `exchange.Writer`."""
        wire = [(name.encode("ascii"), _header_value(value)) for name, value in headers]
        reason = HTTPStatus(status).phrase.encode() if status in _STATUSES else b""
        # It goes out with what follows it, in one piece.
        self._unsent = (
            self._http.send(h11.Response(status_code=status, headers=wire, reason=reason)) or b""
        )

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """See `exchange.Writer`."""
        said = (self._http.send(h11.Data(data=data)) or b"") if data else b""
        if is_last:
            said += self._http.send(h11.EndOfMessage()) or b""
        said, self._unsent = self._unsent + said, b""
        await self._send(said)

    async def _send(self, data: bytes) -> None:
        try:
            sent = self._ready.send_now(data)
            if sent < len(data):
                await self._send_rest(data[sent:])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._is_gone = True
            raise ClientGoneError from error

    async def _send_rest(self, data: bytes) -> None:
        # Stays so if the write is cancelled half-way, or fails: nothing may follow it.
        was_gone, self._is_gone = self._is_gone, True
        with trio.move_on_after(self._limits.write_s):
            await self._ready.send_all(data)
            self._is_gone = was_gone
            return
        raise ClientGoneError


_STATUSES = frozenset(int(status) for status in HTTPStatus)


def _request(event: h11.Request, client: str) -> Request:
    headers: dict[str, str] = {}
    for name, value in event.headers:
        headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
    target = event.target.decode("ascii", "replace")
    return Request(event.method.decode("ascii"), target, headers, client)


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or length.strip() not in {"", "0"}


def _told_bytes(request: Request) -> int:
    """Of its body, where it tells; h11 has seen to it that it is a number."""
    return int(request.headers.get("content-length", "0"))


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    is_usable = given.isascii() and given.isprintable() and " " not in given
    return given[:REQUEST_ID_CHARS_MAX] if given and is_usable else secrets.token_hex(8)


def _header_value(value: str) -> bytes:
    """One line of printable characters, whatever a peer called itself."""
    if not value.isprintable():
        value = "".join(char if char.isprintable() else " " for char in value)
    return value.strip().encode("ascii", "replace")


@asynccontextmanager
async def open_http_server(
    host: str, port: int, handler: Handler, *, limits: Limits | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    """Serve for the length of the block; gives the server and the port it listens on.

    Raises:
        ConfigError: the address is taken or cannot be listened on.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=1024)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"http_port {port} is in use on {host}; take another with --http-port, 0 for any"
            ) from error
        raise ConfigError(f"http_host {host}, http_port {port}: {error}") from error
    bound = int(listeners[0].socket.getsockname()[1])
    try:
        async with trio.open_nursery() as nursery:
            hang_ups = HangUps(nursery)
            nursery.start_soon(hang_ups.run)
            server = HttpServer(handler, limits or Limits(), hang_ups)
            # Of a name with two addresses and port 0 the first one's port is the server's.
            for listener in listeners[:1] if port == 0 else listeners:
                nursery.start_soon(server.serve, listener, nursery)
            yield server, bound
            nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            with suppress(OSError):
                listener.socket.close()
