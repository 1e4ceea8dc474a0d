"""Lines, server-sent events and JSON lines out of bytes that come in any pieces. No I/O.

SSE: the WHATWG HTML standard, section 9.2.6, reduced to the `data` field; comments, event names
and ids are dropped. Every reader is bounded and raises only `BackendError` ("bad_reply").
"""

from __future__ import annotations

import json
from typing import Final, TypeAlias, cast

from kowalski.node.backends.seam import BackendError

JsonObject: TypeAlias = dict[str, object]

# One chunk of a completion is about 300 bytes; a whole answer in one line may be megabytes.
LINE_BYTES_MAX = 4 * 1024 * 1024
EXCERPT_CHARS = 80

PROGRESS_BYTES_MAX = 256
_DECODER: Final = json.JSONDecoder()
_PROGRESS = b" prefill_progress"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def excerpt(value: object) -> str:
    """The value as it would be typed, short enough for a message to a person."""
    # Cut before repr: the value may be megabytes.
    if isinstance(value, str | bytes):
        shown = repr(value[:EXCERPT_CHARS])
        return f"{shown}..." if len(value) > EXCERPT_CHARS else shown
    shown = repr(value)
    return f"{shown[:EXCERPT_CHARS]}..." if len(shown) > EXCERPT_CHARS else shown


def parse_json(text: str | bytes) -> object:
    """Any JSON value.

    Raises:
        BackendError: `bad_reply`, with the beginning of what is no JSON.
    """
    try:
        if isinstance(text, str) and text.startswith("{"):
            # Nearly always: one object and nothing around it.
            value, end = _DECODER.raw_decode(text)
            if end == len(text):
                return cast("object", value)
        return cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise BackendError("bad_reply", f"no JSON: {excerpt(text)}") from error


def parse_json_object(text: str | bytes) -> JsonObject:
    """A JSON object, else `BackendError` as in `parse_json`."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise BackendError("bad_reply", f"no JSON object: {excerpt(text)}")
    return cast("JsonObject", value)


class LineSplitter:
    """Bytes in, the complete lines out, without the LF at their ends."""

    def __init__(self, *, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        if b"\n" not in data:
            self._rest += data
            self._check(len(self._rest))
            return []
        if self._rest:
            data = bytes(self._rest) + data
        lines = data.split(b"\n")
        self._rest = bytearray(lines.pop())
        if len(data) > self._line_bytes_max:
            for line in lines:
                self._check(len(line))
            self._check(len(self._rest))
        return lines

    @property
    def has_rest(self) -> bool:
        """Whether something came after the last line end."""
        return bool(self._rest)

    def finish(self) -> bytes:
        """What came after the last line end."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest

    def _check(self, length: int) -> None:
        if length > self._line_bytes_max:
            raise BackendError("bad_reply", f"line of more than {self._line_bytes_max} bytes")


class SseReader:
    """Bytes of a `text/event-stream` in, the data of each event out."""

    def __init__(self, *, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._splitter = LineSplitter(line_bytes_max=line_bytes_max)
        self._event_bytes_max = line_bytes_max
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._is_first_line = True
        self._ended_in_cr = False
        self.progress = b""
        """The last comment that tells how far the prompt is read; exo's."""

    def feed(self, data: bytes) -> list[str]:
        if not data:
            return []
        if (whole := self._whole_events(data)) is not None:
            return whole
        # CR, LF and CRLF all end a line, and a CRLF may be cut in two.
        if self._ended_in_cr and data.startswith(b"\n"):
            data = data[1:]
            self._ended_in_cr = False
            if not data:
                return []
        self._ended_in_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[str] = []
        for line in self._splitter.feed(data):
            self._take(line, events)
        return events

    def _whole_events(self, data: bytes) -> list[str] | None:
        """What nearly all servers send: events of one line of data each, none of them cut."""
        if not data.endswith(b"\n\n") or b"\r" in data or len(data) > self._event_bytes_max:
            return None
        if self._data or self._splitter.has_rest:
            return None
        blocks = data[:-2].split(b"\n\n")
        for block in blocks:
            if not block.startswith(b"data: ") or b"\n" in block:
                return None
        self._is_first_line = self._ended_in_cr = False
        return [_decode(block[6:]) for block in blocks]

    def finish(self) -> list[str]:
        """The event whose blank line never came.

        The standard drops it; servers that forget the last line end are common enough to keep it.
        """
        events: list[str] = []
        self._take(self._splitter.finish(), events)
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[str]) -> None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            if self._data:
                whole = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                events.append(_decode(whole))
                self._data.clear()
                self._data_bytes = 0
            return
        name, _, value = line.partition(b":")
        if not name and value.startswith(_PROGRESS):
            self.progress = value[:PROGRESS_BYTES_MAX]
        if name != b"data":
            return
        value = value.removeprefix(b" ")
        self._data.append(value)
        # The line end counts too: a million empty data lines are not free.
        self._data_bytes += len(value) + 1
        if self._data_bytes > self._event_bytes_max + 1:
            raise BackendError("bad_reply", f"event of more than {self._event_bytes_max} bytes")


class JsonLinesReader:
    """Bytes of `application/x-ndjson` in, one object per line out; blank lines are skipped."""

    def __init__(self, *, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._splitter = LineSplitter(line_bytes_max=line_bytes_max)

    def feed(self, data: bytes) -> list[JsonObject]:
        return [parse_json_object(line) for line in self._splitter.feed(data) if line.strip()]

    def finish(self) -> list[JsonObject]:
        """The last line, where its line end never came."""
        rest = self._splitter.finish()
        return [parse_json_object(rest)] if rest.strip() else []


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        around = data[max(0, error.start - 8) : error.start + 8]
        raise BackendError("bad_reply", f"no UTF-8: {excerpt(around)}") from error
