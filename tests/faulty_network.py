"""A test double: model servers that give recorded answers, over wires that break where told.

No sockets: streams in memory, so that virtual time and thousands of faults a
second are possible. The recordings in `tests/node/backends/recordings/` were written by hand from
the references of each server; the line ends of their heads and their chunks are made here.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h11
import trio
from trio.abc import Stream

from kowalski.node.backends.http import HttpClient, open_http
from kowalski.node.backends.http_pool import Origin

FOLDER = Path(__file__).parent / "node" / "backends" / "recordings"
CHUNK_BYTES = 100

FaultKind = Literal["end", "close", "reset", "stall", "garble", "delay", "twice", "skip"]
"""At one byte: the connection ends, or breaks; nothing comes any more; the byte is another, or
comes five seconds late, or twice, or not at all. `close` is an end that looks like one in order: of
a body that goes on until the connection ends."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    at: int


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer of a server, as text."""

    head: str
    body: bytes
    goes_on_until_close: bool = False

    @classmethod
    def read(cls, name: str) -> Recording:
        head, _, body = (FOLDER / f"{name}.http").read_text(encoding="utf-8").partition("\n\n")
        return cls(head, body.encode())

    @property
    def raw(self) -> bytes:
        """As it goes over a wire; chunked in pieces that cut lines and characters."""
        head = self.head
        if self.goes_on_until_close:
            head, body = _without_framing(head), self.body
        elif "chunked" in head.lower():
            pieces = [
                self.body[at : at + CHUNK_BYTES] for at in range(0, len(self.body), CHUNK_BYTES)
            ]
            chunks = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]
            body = b"".join(chunks) + b"0\r\n\r\n"
        else:
            head += f"\nContent-Length: {len(self.body)}"
            body = self.body
        return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


def _without_framing(head: str) -> str:
    kept = [line for line in head.splitlines() if "chunked" not in line.lower()]
    return "\n".join([*kept, "Connection: close"])


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as a server saw it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"


Give = Callable[[Asked], "Recording | bytes | None"]


def giving(**answers: str) -> Give:
    """By `GET_api_tags="ollama-tags"`: underscores of a key stand for a space and slashes."""
    by_key = {key.replace("_", " ", 1).replace("_", "/"): name for key, name in answers.items()}
    return giving_by({key.replace(" ", " /", 1): name for key, name in by_key.items()})


def giving_by(answers: Mapping[str, str]) -> Give:
    """The recording named by `GET /api/tags`; nobody else gets an answer but 404."""
    return lambda asked: Recording.read(answers[asked.key]) if asked.key in answers else None


NOT_FOUND = Recording("HTTP/1.1 404 Not Found", b"404 page not found")


@dataclass
class FaultyNetwork:
    """Every connection reaches the server that `give` plays; `fault` strikes each answer.

    `piece_bytes` is how much comes at a time, with `second_per_piece` slowly. `asked` holds every
    request, `left` counts the connections that the client closed before their answer was over.
    """

    give: Give
    fault: Fault | None = None
    piece_bytes: int = 4096
    asked: list[Asked] = field(default_factory=list)
    left: int = 0
    refuses: bool = False
    second_per_piece: bool = False

    async def connect(self, _origin: Origin) -> Stream:
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise ConnectionRefusedError("connection refused")
        return _Wire(self)


class _Wire(Stream):
    """One connection: a request goes in, the bytes of its answer come out."""

    def __init__(self, network: FaultyNetwork) -> None:
        self._network = network
        self._server = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._answer = b""
        self._sent = 0
        self._fault: Fault | None = None
        self._closed = trio.Event()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if not data:
            return
        self._server.receive_data(bytes(data))
        while True:
            event = self._server.next_event()
            if isinstance(event, h11.Request):
                self._request = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._begin()
            else:
                return

    def _begin(self) -> None:
        assert self._request is not None
        headers = {name.decode(): value.decode() for name, value in self._request.headers}
        asked = Asked(
            self._request.method.decode(),
            self._request.target.decode(),
            headers,
            json.loads(self._body) if self._body else None,
        )
        self._network.asked.append(asked)
        given = self._network.give(asked) or NOT_FOUND
        self._answer = given if isinstance(given, bytes) else given.raw
        self._sent, self._body, self._fault = 0, bytearray(), self._network.fault
        # A connection that is used again speaks to a new server.
        self._server = h11.Connection(h11.SERVER)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._network.second_per_piece and self._sent:
            await self._sleep(1)
        fault = self._fault
        if fault is not None and self._sent == fault.at:
            self._fault = None
            match fault.kind:
                case "end" | "close":
                    self._answer = b""
                    return b""
                case "reset":
                    self._answer = b""
                    raise trio.BrokenResourceError("connection reset by peer")
                case "stall":
                    await self._sleep(math.inf)
                case "delay":
                    await self._sleep(5)
                case "garble":
                    self._sent += 1
                    return bytes([self._answer[fault.at] ^ 0x15])
                case "twice":
                    return self._answer[fault.at : fault.at + 1]
                case "skip":
                    self._sent += 1
        end = min(
            self._sent + min(max_bytes or CHUNK_BYTES, self._network.piece_bytes), len(self._answer)
        )
        if self._fault is not None and self._fault.at > self._sent:
            end = min(end, self._fault.at)
        piece = self._answer[self._sent : end]
        self._sent = end
        return piece

    async def _sleep(self, seconds: float) -> None:
        """As long, unless it is closed meanwhile, which ends a read of it as in any stream."""
        with trio.move_on_after(seconds):
            await self._closed.wait()
            raise trio.ClosedResourceError

    async def aclose(self) -> None:
        self._closed.set()
        if self._sent < len(self._answer):
            self._network.left += 1
        self._answer = b""
        await trio.lowlevel.checkpoint()


@contextlib.asynccontextmanager
async def open_faulty(
    give: Give, fault: Fault | None = None, *, piece_bytes: int = 4096
) -> AsyncIterator[tuple[FaultyNetwork, HttpClient]]:
    """The client that backends are made with, over such a network."""
    network = FaultyNetwork(give, fault, piece_bytes)
    async with open_http(connect=network.connect) as http:
        yield network, http
