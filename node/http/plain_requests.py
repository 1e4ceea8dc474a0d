"""The plainest of requests, which nearly all are, and their answers: read and written without h11.

Plain is what can be read in one way only: one line of method and path, each header once on a line
of its own, a body whose length is told in digits. Whatever else comes is left to h11, which knows
what is allowed and what to say of it; no request is refused here. Both say the same of a plain one.
A parser for everything costs a local model call a sixth of its time (`docs/benchmarks.md`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Literal

# RFC 9110, 5.6.2 and 5.5, without what is not ASCII; no part of it matches in two ways.
_LINE = rb"(GET|POST|PUT|DELETE) (/[\x21-\x7e]*) HTTP/1\.1\r\n"
_HEADER = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\x20-\x7e]*\r\n"
_HEAD = re.compile(_LINE + rb"((?:" + _HEADER + rb")+)\r\n")

_NOT_PLAIN = frozenset({"transfer-encoding", "expect", "upgrade", "te", "trailer"})
_LENGTH = re.compile(r"[0-9]{1,12}")
_WITHOUT_BODY = frozenset({204, 304})

_STATUS_LINES = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus
}

Phase = Literal["before", "under way", "over", "closing"]
"""Of an answer; `closing`: it is over, and no other can follow on its connection."""


class PlainTurn:
    """One request and its answer. Bytes in and out, no I/O; `phase` is that of the answer."""

    def __init__(self, method: str, target: str, headers: dict[str, str], length: int) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.unread = length
        """Bytes of the body that have not come."""
        self.phase: Phase = "before"
        self._pieces: list[bytes] = []
        self._is_chunked = False
        self._is_last = False

    @property
    def at_hand(self) -> int:
        """Bytes of the body that have come and are not taken yet."""
        return sum(map(len, self._pieces))

    @property
    def is_taken(self) -> bool:
        """Whether nothing is left of the body, here or on its way."""
        return not (self.unread or self._pieces)

    def receive(self, data: bytes) -> bytes:
        """Take what is of the body; gives what comes after it."""
        if not self.unread:
            return data
        mine = data[: self.unread]
        self.unread -= len(mine)
        self._pieces.append(mine)
        return data[len(mine) :]

    def take_body(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> bytes:
        """The head of the answer."""
        self.phase = "under way"
        told = list(headers)
        values = "".join([value for _, value in told])
        if not (values.isascii() and values.isprintable()):
            told = [(name, header_value(value)) for name, value in told]
        names = {name.lower() for name, _ in told}
        self._is_last = "connection" in names  # nothing else than `close` is said in it
        has_length = "content-length" in names
        self._is_chunked = not has_length and status not in _WITHOUT_BODY
        if self._is_chunked:
            told.append(("transfer-encoding", "chunked"))
        lines = "".join([f"{name}: {value}\r\n" for name, value in told])
        line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()
        return b"%b%b\r\n" % (line, lines.encode("ascii"))

    def data(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._is_chunked else data

    def end(self) -> bytes:
        self.phase = "closing" if self._is_last else "over"
        return b"0\r\n\r\n" if self._is_chunked else b""


def plain_turn(data: bytes, head_bytes_max: int) -> tuple[PlainTurn, bytes] | None:
    """The request that `data` begins with, and what comes after it; None where it is not plain."""
    head = _HEAD.match(data, 0, head_bytes_max)
    if head is None:
        return None
    method, target, lines = head.groups()
    headers: dict[str, str] = {}
    told = lines.decode("ascii").split("\r\n")
    told.pop()  # behind the last line's end
    for line in told:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" ")
    if len(headers) != len(told) or "host" not in headers or not _NOT_PLAIN.isdisjoint(headers):
        return None
    if headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    length = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        return None
    turn = PlainTurn(method.decode("ascii"), target.decode("ascii"), headers, int(length))
    return turn, turn.receive(data[head.end() :])


def header_value(value: str) -> str:
    """One line of printable characters, whatever a peer called itself."""
    if not (value.isascii() and value.isprintable()):
        value = "".join(char if char.isprintable() else " " for char in value)
        value = value.encode("ascii", "replace").decode("ascii")
    return value.strip()
