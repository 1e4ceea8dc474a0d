"""One HTTP connection: requests read, bounded and timed, answers written.

Every wait for a client has a deadline: for its head, for its body, for its reading of the answer. A
request that can be read in one way only is read without h11, see `plain_requests`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
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
    stopping,
)
from kowalski.node.http.hang_ups import HangUps, Watch
from kowalski.node.http.idling import Idling
from kowalski.node.http.plain_requests import Phase, PlainTurn, header_value, plain_turn
from kowalski.node.ready_streams import READ_BYTES, ReadyStream

log = structlog.get_logger(__name__)

REQUEST_ID_CHARS_MAX = 128
LAST_WORDS_S = 1.0


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


class BodyRoom:
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


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of one server have in common."""

    limits: Limits
    room: BodyRoom
    hang_ups: HangUps
    idling: Idling
    stopping: trio.Event = field(default_factory=trio.Event)
    """Set when nothing more is taken on."""


class Connection:
    """One connection: requests one after the other, each answered before the next is read."""

    def __init__(
        self, stream: trio.SocketStream, client: str, shared: Shared, *, server: str
    ) -> None:
        self._stream = stream
        self._ready = ReadyStream(stream)
        self._hang_ups = shared.hang_ups
        self._idling = shared.idling
        self._client = client
        self._server = server
        self._limits = shared.limits
        self._room = shared.room
        self._scope = trio.CancelScope()
        """Cancelled when the client hangs up, or asks for nothing for too long."""
        self._held = 0
        """Bytes of the body that is being answered."""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        self._plain: PlainTurn | None = None
        """The request that is being answered, where h11 has nothing to do with it."""
        self._ahead = b""
        """Sent before the answer to a plain request had ended; h11 has nothing then."""
        self._unsent = b""
        self._is_gone = False
        self._stopping = shared.stopping
        self._exchange: Exchange | None = None
        """What is being answered."""

    # --- the life of a connection -----------------------------------------------------------------

    async def serve(self, handler: Handler) -> None:
        with self._scope:
            await self._serve(handler)
        # In place of the answer that was being made.
        if self._stopping.is_set() and self._exchange is not None and not self._is_gone:
            with trio.move_on_after(LAST_WORDS_S):
                await self._refuse(stopping(), self._exchange)
                await self._linger()

    @property
    def is_answering(self) -> bool:
        """Whether a client waits for an answer that has an end."""
        return self._exchange is not None and not self._exchange.is_endless

    def stop(self) -> None:
        """Answer nothing more. Streams say how they end; what has not begun is refused."""
        if self._exchange is None or not self._exchange.has_begun:
            self._scope.cancel()
        else:
            self._exchange.stop()

    async def _serve(self, handler: Handler) -> None:
        while True:
            try:
                request = await self._next_request()
            except HttpError as wrong:
                await self._refuse(wrong)
                await self._linger()
                return
            except ClientGoneError:
                return
            if request is None:
                return
            await self._exchanging(request, handler)
            if self._stopping.is_set() or not await self._is_reusable():
                await self._linger()
                return

    async def turn_away(self) -> None:
        """Say that there is no room, without reading what was asked."""
        full = HttpError(503, "busy", "too many connections", headers=(("retry-after", "1"),))
        await self._refuse(full)
        await self._linger()

    async def _is_reusable(self) -> bool:
        """Whether the next request may come; reads what is left of this one's body."""
        if self._is_gone or self._phase != "over":
            return False
        if self._plain is not None and self._plain.is_taken:
            return True
        try:
            await self._read_body(self._limits.ahead_bytes)
        except (HttpError, ClientGoneError):
            return False
        finally:
            self._room.give_back(self._held)
            self._held = 0
        if not self._is_read:
            return False
        if self._plain is None:
            self._http.start_next_cycle()
        return True

    @property
    def _phase(self) -> Phase:
        """How far the answer is."""
        if self._plain is not None:
            return self._plain.phase
        return _PHASES.get(self._http.our_state, "closing")

    @property
    def _is_read(self) -> bool:
        """Whether all of the request has been taken."""
        if self._plain is not None:
            return self._plain.is_taken
        return self._http.their_state is h11.DONE

    async def _linger(self) -> None:
        """Let the client read our last words before the connection is torn down."""
        if self._is_gone:
            return
        with trio.move_on_after(1.0), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
            while await self._stream.receive_some(READ_BYTES):
                pass

    # --- reading ----------------------------------------------------------------------------------

    async def _next_request(self) -> Request | None:
        """The next request, None when the client has no more.

        Raises:
            HttpError: what came is no HTTP, too long, or too slow.
            ClientGoneError: it left.
        """
        self._plain = None
        if self._ahead or self._http.trailing_data[0]:
            # Who sends ahead waits for nobody, but others wait for this task.
            await trio.lowlevel.checkpoint()
        if not self._http.trailing_data[0]:
            data = self._ahead or await self._idle()
            self._ahead = b""
            if (found := plain_turn(data, self._limits.head_bytes)) is not None:
                self._plain, self._ahead = plain, _ = found
                ends = self._client, self._server
                return Request(plain.method, plain.target, plain.headers, *ends)
            self._http.receive_data(data)
        head = await self._next_head()
        return None if head is None else _request(head, self._client, self._server)

    async def _idle(self) -> bytes:
        """The first bytes of the next request. Raises ClientGoneError."""
        self._idling.begin(self._scope)
        try:
            return await self._receive()
        finally:
            self._idling.end(self._scope)

    async def _next_head(self) -> h11.Request | None:
        """Of a request that has begun, by h11. Raises as `_next_request`."""
        with trio.move_on_after(self._limits.head_s):
            while True:
                event = self._next_event()
                if isinstance(event, h11.Request):
                    return self._bounded(event)
                if event is not h11.NEED_DATA:
                    return None
                self._http.receive_data(await self._receive())
        raise HttpError(408, "timeout", f"no request within {self._limits.head_s:g} s")

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
        """Raises HttpError: 408, 413, 503, 400; ClientGoneError."""
        if self._plain is not None:
            return await self._read_plain_body(self._plain, bytes_max)
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
                    self._hold(len(event.data))
                    pieces.append(bytes(event.data))
                elif event is h11.NEED_DATA:
                    data = await self._receive()
                    if not data:
                        raise ClientGoneError
                    self._http.receive_data(data)
                else:
                    return b"".join(pieces)  # the end, or a pause before the next request
        raise self._late()

    async def _read_plain_body(self, plain: PlainTurn, bytes_max: int) -> bytes:
        """Raises as `_read_body`."""
        if plain.at_hand + plain.unread > bytes_max:
            raise HttpError(413, "too_large", f"a body of over {bytes_max} bytes")
        self._hold(plain.at_hand)
        if not plain.unread:
            return plain.take_body()
        with trio.move_on_after(self._limits.body_s):
            while plain.unread:
                data = await self._receive()
                if not data:
                    raise ClientGoneError
                self._hold(min(len(data), plain.unread))
                self._ahead = plain.receive(data)
            return plain.take_body()
        raise self._late()

    def _hold(self, size: int) -> None:
        """So many bytes of a body more. Raises HttpError: 503."""
        if not self._room.take(size):
            raise HttpError(503, "busy", "too much is being sent to this node")
        self._held += size

    def _late(self) -> HttpError:
        return HttpError(408, "timeout", f"no whole body within {self._limits.body_s:g} s")

    # --- answering --------------------------------------------------------------------------------

    async def _exchanging(self, request: Request, handler: Handler) -> None:
        body: list[bytes] = []
        watch = Watch(self._watch)
        if not _has_body(request):
            self._hang_ups.add(watch)

        async def read_body(bytes_max: int) -> bytes:
            if not body:
                if _told_bytes(request) > bytes_max:  # before it is sent, and waited for
                    raise HttpError(413, "too_large", f"a body of over {bytes_max} bytes")
                body.append(await self._read_body(bytes_max))
                self._hang_ups.add(watch)
            return body[0]

        exchange = self._exchange = Exchange(request, read_body, self)
        exchange.extra.append(("x-request-id", _request_id(request)))
        try:
            await self._answer(exchange, handler)
            if self._is_gone:
                return
            if self._phase == "under way":
                await self.write(b"", is_last=True)
            self._exchange = None
        except ClientGoneError:
            self._is_gone = True
        except HttpError as no:
            await self._refuse(no, exchange)
            self._exchange = None
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

    async def _watch(self) -> None:
        """End it all when the client hangs up; what it sends meanwhile is kept, to a bound."""
        kept = 0
        while kept < self._limits.ahead_bytes:
            try:
                data = await self._receive()
            except ClientGoneError:
                data = b""
            if not data:
                self._is_gone = True
                self._scope.cancel()
                return
            kept += len(data)
            if self._plain is None:
                self._http.receive_data(data)
            else:
                self._ahead += data

    async def _refuse(self, no: HttpError, exchange: Exchange | None = None) -> None:
        """Answer with an error; an answer that has begun is broken off, so that it looks broken."""
        if self._is_gone or self._phase != "before":
            self._is_gone = True
            return
        # Where nothing is left to be read the next request may follow.
        is_last = not self._is_read and (exchange is None or _has_body(exchange.request))
        exchange = exchange or Exchange(Request("", ""), self._read_body, self)
        if is_last:
            exchange.extra.append(("connection", "close"))
        with suppress(ClientGoneError):
            if exchange.tell is not None:
                await exchange.tell(exchange, no)
                return
            said = dump({"error": {"message": no.message, "type": no.code, "code": no.code}})
            await exchange.answer(Response(no.status, said, headers=no.headers))

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """See `exchange.Writer`."""
        if self._plain is not None:
            self._unsent = self._plain.begin(status, headers)
            return
        wire = [(name.encode("ascii"), header_value(value).encode()) for name, value in headers]
        reason = HTTPStatus(status).phrase.encode() if status in _STATUSES else b""
        # It goes out with what follows it, in one piece.
        self._unsent = (
            self._http.send(h11.Response(status_code=status, headers=wire, reason=reason)) or b""
        )

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """See `exchange.Writer`."""
        if (plain := self._plain) is not None:
            said = plain.data(data) + (plain.end() if is_last else b"")
        else:
            said = (self._http.send(h11.Data(data=data)) or b"") if data else b""
            if is_last:
                said += self._http.send(h11.EndOfMessage()) or b""
        said, self._unsent = self._unsent + said, b""
        await self._send(said)

    async def _send(self, data: bytes) -> None:
        if self._is_gone:
            raise ClientGoneError
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


_PHASES: dict[object, Phase] = {
    h11.IDLE: "before",
    h11.SEND_RESPONSE: "before",
    h11.SEND_BODY: "under way",
    h11.DONE: "over",
}
_STATUSES = frozenset(int(status) for status in HTTPStatus)


def _request(event: h11.Request, client: str, server: str) -> Request:
    headers: dict[str, str] = {}
    for name, value in event.headers:
        headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
    target = event.target.decode("ascii", "replace")
    return Request(event.method.decode("ascii"), target, headers, client, server)


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
