"""Exchanges without a wire: what is asked is given, what is answered is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from kowalski.node.http.exchange import Exchange, HttpError, Request


@dataclass
class Recorder:
    """A `Writer` that keeps what is written."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    is_ended: bool = False

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        await trio.lowlevel.checkpoint()
        self.status = status
        self.headers = dict(headers)

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        self.pieces.append(data)
        self.is_ended = is_last

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def events(self) -> list[tuple[str, object]]:
        """Server-sent events: name and data; comments are left out."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
            if "data" in lines:
                text = lines["data"]
                value = text if text == "[DONE]" else json.loads(text)
                found.append((lines.get("event", ""), value))
        return found


def exchange(
    method: str,
    target: str,
    body: object = None,
    *,
    client: str = "127.0.0.1",
    **headers: str,
) -> tuple[Exchange, Recorder]:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()

    async def read(bytes_max: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if len(data) > bytes_max:
            raise HttpError(413, "too_large", "")
        return data

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    recorder = Recorder()
    request = Request(method, target, {"host": "localhost:4171", **named}, client)
    return Exchange(request, read, recorder), recorder
