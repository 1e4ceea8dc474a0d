"""The language of the control socket: one JSON object a line, one request a connection.

    -> {"verb": "ask", "request": {...}}
    <- {"event": {...}}                     zero or more
    <- {"done": {...}}  or  {"error": {"code", "message", "exit_code", "hint"}}

Standard library only: the node (`control`) and the command line (`control_client`) share it.
"""

from __future__ import annotations

import enum
import json

from kowalski.protocol.errors import RemoteProtocolError

REQUEST_BYTES_MAX = 1 << 20

# A folded text or an answer comes back in one line; both are smaller than this by their budgets.
REPLY_BYTES_MAX = 16 << 20


class ExitCode(enum.IntEnum):
    """What the command line ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_ALLOWED = 4
    NO_CAPACITY = 5
    INTERRUPTED = 130


def encode(value: dict[str, object]) -> bytes:
    """One line, in ASCII, so that no text however odd can break it.

    Raises:
        TypeError, ValueError: something in `value` has no form in JSON (bytes, NaN).
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, object]:
    """The object in a line.

    Raises:
        RemoteProtocolError: it is not one JSON object in UTF-8.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"a line of {len(line)} bytes is not JSON") from error
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"expected a JSON object, not a {type(value).__name__}")
    return value


class LineBuffer:
    """Cuts what arrives into lines; never holds more than one line's bound and one read."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._bytes = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def next_line(self) -> bytes | None:
        """The next line without its end, or None until more bytes are fed.

        Raises:
            RemoteProtocolError: the line is longer than the bound.
        """
        end = self._bytes.find(b"\n", self._searched)
        if max(end, len(self._bytes) if end < 0 else 0) > self._line_bytes_max:
            raise RemoteProtocolError(f"a line of more than {self._line_bytes_max} bytes")
        if end < 0:
            self._searched = len(self._bytes)
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        self._searched = 0
        return line
