"""One request and its answer, as the rooms behind the HTTP server see them.

No sockets: what writes the bytes is given by `server`, or by a test.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import trio

JSON_TYPE = "application/json"
BODY_BYTES_MAX = 32 * 1024 * 1024
JSON_DEPTH_MAX = 64

Headers = tuple[tuple[str, str], ...]


class HttpError(Exception):
    """A no, as a status. `code` is a word for programs, the message is for people.

    `field` names what of the request it is about, where it is about one.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Headers = (),
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.field = field


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. Header names are lower case; of repeated ones the first counts."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    client: str = "127.0.0.1"
    """The address it came from."""
    server: str = "127.0.0.1"
    """The address it came to, of those that this machine has."""

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        pairs = (pair.partition("=") for pair in self.headers.get("cookie", "").split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Headers = ()


class Writer(Protocol):
    """What carries an answer to the client. Raises `ClientGoneError` when nobody reads it."""

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """The head of an answer; it may wait for the first write."""
        ...

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """More of its body, which goes out at once; also if it is empty."""
        ...


class ClientGoneError(Exception):
    """The client hung up, or reads too slowly."""


class HeadToldError(Exception):
    """All that a request for the head of a stream wants has been said; the stream ends here."""


class Exchange:
    """A request being answered: with `answer`, or with `begin`, any number of `send`, and `end`."""

    def __init__(
        self, request: Request, read_body: Callable[[int], Awaitable[bytes]], writer: Writer
    ) -> None:
        self.request = request
        self.has_begun = False
        self.status = 0
        self.extra: list[tuple[str, str]] = []
        """Headers that go with whatever answer is given."""
        self.is_endless = False
        """Whether its answer tells what happens, for as long as somebody listens."""
        self.tell: Callable[[Exchange, HttpError], Awaitable[None]] | None = None
        """Answers with an error in the client's language, where somebody knows it."""
        self._is_stopping = False
        self._on_stop: Callable[[], None] | None = None
        self._read_body = read_body
        self._writer = writer

    async def body(self, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        """Raises HttpError: 413."""
        return await self._read_body(bytes_max)

    async def json(self, bytes_max: int = BODY_BYTES_MAX) -> dict[str, object]:
        """The body as an object; an empty one is `{}`.

        Raises:
            HttpError: 400, it is no object in JSON; 413.
        """
        return json_object(await self.body(bytes_max))

    @contextmanager
    def until_stopping(self) -> Iterator[None]:
        """What is done in the block ends when the node stops, so that last words can be said.

        Raises:
            HttpError: 503, it stops.
        """
        with trio.CancelScope() as scope:
            self.heed_stop(scope.cancel)
            try:
                yield
            finally:
                self._on_stop = None
        if scope.cancelled_caught:
            raise stopping()

    def heed_stop(self, heed: Callable[[], None]) -> None:
        """Have `heed` called when the node stops, in place of who was to be called before."""
        self._on_stop = heed
        if self._is_stopping:
            heed()

    def stop(self) -> None:
        """The node stops: whoever is telling something is to come to an end."""
        self._is_stopping = True
        if self._on_stop is not None:
            self._on_stop()

    async def answer(self, response: Response) -> None:
        headers = [("content-type", response.content_type), *response.headers]
        headers.append(("content-length", str(len(response.body))))
        await self._begin(response.status, headers)
        await self._writer.write(b"" if self._wants_head else response.body, is_last=True)

    async def answer_json(self, value: object, status: int = 200, *, headers: Headers = ()) -> None:
        await self.answer(Response(status, dump(value), headers=headers))

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Begin an answer in pieces; `send(b"")` sends the head alone.

        Raises:
            HeadToldError: that is all there is to an answer to HEAD, which is sent.
        """
        await self._begin(status, headers)
        if self._wants_head:
            await self._writer.write(b"", is_last=True)
            raise HeadToldError

    @property
    def _wants_head(self) -> bool:
        return self.request.method == "HEAD"

    async def _begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        self.has_begun = True
        self.status = status
        await self._writer.begin(status, (*headers, *self.extra))

    async def send(self, data: bytes) -> None:
        await self._writer.write(data)

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        await self._writer.write(data, is_last=True)


Handler = Callable[[Exchange], Awaitable[None]]
"""Answers one exchange. Cancelled when the client hangs up; may raise HttpError before it began."""


def stopping() -> HttpError:
    return HttpError(503, "stopping", "this node is stopping", headers=(("retry-after", "5"),))


def dump(value: object) -> bytes:
    """JSON, compact; halves of characters and the like are escaped."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def json_object(data: bytes) -> dict[str, object]:
    """Raises HttpError: 400, it is no object in JSON."""
    if not data.strip():
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, "bad_json", f"the body is no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise HttpError(400, "bad_json", f"the body is a {type(value).__name__}, not an object")
    brackets = data.count(b"{") + data.count(b"[")
    if brackets > JSON_DEPTH_MAX and _is_deeper(value, JSON_DEPTH_MAX):
        raise HttpError(400, "bad_json", f"the body nests more than {JSON_DEPTH_MAX} levels")
    return value


def _is_deeper(value: object, levels: int) -> bool:
    level: list[object] = [value]
    while level:
        if levels < 0:
            return True
        levels -= 1
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    return False
