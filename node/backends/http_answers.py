"""Requests to model servers as bytes, and their answers out of bytes. No I/O.

llhttp, the parser of Node.js, reads them (httptools): strict, and in C, where a model server may
send every token by itself. What it does not bound is bounded here, and whose fault it is is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import httptools

from kowalski.node.backends.seam import BackendError

HEAD_BYTES_MAX = 100 * 1024
"""Of what is neither the body nor told yet: heads, trailers, what chunks say of themselves."""

# RFC 9110, 5.6.2 and 5.5; RFC 9112, 3.2: nothing here may end a line.
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_VERSIONS = frozenset({"1.0", "1.1"})


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins; header names are in lower case."""

    status: int
    headers: Mapping[str, str]


def request_head(method: str, target: bytes, headers: Mapping[str, str]) -> bytes:
    """The beginning of a request, which `with_body` makes whole.

    Raises:
        BackendError: `unreachable`, a header or the target is none.
    """
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise BackendError("unreachable", f"bad address or method: {method} {target[:80]!r}")
    lines = [f"{method} {target.decode('ascii')} HTTP/1.1"]
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BackendError("unreachable", f"bad address or header: {name[:80]!r}")
        lines.append(f"{name}: {value}")
    try:
        return "\r\n".join([*lines, ""]).encode("latin-1")
    except UnicodeEncodeError as error:
        raise BackendError("unreachable", f"bad address or header: {error}") from error


def with_body(head: bytes, body: bytes) -> bytes:
    """A request that can be sent, whole."""
    if not body:
        return head + b"\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


class AnswerReader:
    """One answer: bytes in, its head and what there is of its body out. Never of one to HEAD."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._untold_bytes = 0
        self._is_interim = False
        self._is_foreign = False
        self._ends_by_itself = False
        self.head: Head | None = None
        self.is_whole = False
        self.is_last = False
        """Nothing may be asked after it on this connection."""

    def feed(self, data: bytes) -> None:
        """Take what has come; `b""` when the connection has ended.

        Raises:
            BackendError: `bad_reply`, this is no HTTP; `unreachable`, it ended too early.
        """
        if not data:
            self._end()
            return
        self._untold_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BackendError("bad_reply", "it changes to another protocol") from None
        except httptools.HttpParserError as error:
            if not self.is_whole:
                raise BackendError("bad_reply", f"no HTTP: {error}") from error
            self.is_last = True  # nobody has asked for more
        if self._is_foreign:
            raise BackendError("bad_reply", "another version of HTTP")
        if self._untold_bytes > HEAD_BYTES_MAX and not self.is_whole:
            raise BackendError("bad_reply", f"{self._untold_bytes} bytes that say nothing")

    def end(self) -> None:
        """Nothing is fed any more: the parser and this, which know each other, part."""
        del self._parser

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end(self) -> None:
        self.is_last = True
        if self.head is None:
            raise BackendError("unreachable", "it hung up without an answer")
        if self._ends_by_itself and not self.is_whole:
            raise BackendError("unreachable", "it hung up in the middle of its answer")
        self.is_whole = True

    # --- what llhttp finds ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.is_whole:
            self.is_last = True  # what came uninvited would be taken for the next answer

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:  # else they are trailers
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.head is not None:
            return
        self._untold_bytes = 0
        status = self._parser.get_status_code()
        self._is_foreign = self._parser.get_http_version() not in _VERSIONS
        self._is_interim = 100 <= status < 200
        if self._is_interim:
            self._headers = {}
            return
        told = self._headers
        is_chunked = told.get("transfer-encoding", "").lower().endswith("chunked")
        self._ends_by_itself = is_chunked or "content-length" in told
        self.is_last = not self._parser.should_keep_alive()
        self.head = Head(status, told)

    def on_body(self, data: bytes) -> None:
        self._untold_bytes = 0
        if not self.is_whole:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        self.is_whole = not self._is_interim or self.is_whole
