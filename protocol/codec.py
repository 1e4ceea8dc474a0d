"""Frames: `[wire version, kind, body]` in canonical CBOR (RFC 8949, section 4.2.1).

On a stream each frame is preceded by its length and the number of the request it belongs to, so
that many requests share one stream. No I/O here: bytes in, frames out.
"""

from __future__ import annotations

import io
import reprlib
import struct
from dataclasses import dataclass

import cbor2
from pydantic import ValidationError

from kowalski.protocol.errors import LocalProtocolError, RemoteProtocolError
from kowalski.protocol.limits import DEPTH_MAX, FRAME_BYTES_MAX, WIRE_VERSION
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.registry import MESSAGES

_HEAD = struct.Struct("!II")


def encode(message: Message) -> bytes:
    """The canonical frame of `message`.

    Fields at their default are left out, so that a new optional field does not change the bytes of
    what has been said so far. Hence a default never changes within a wire version.

    Raises:
        LocalProtocolError: the frame is larger than its kind allows.
    """
    body = message.model_dump(exclude_defaults=True)
    frame = cbor2.dumps([WIRE_VERSION, message.KIND, body], canonical=True)
    if len(frame) > message.FRAME_BYTES_MAX:
        raise LocalProtocolError(f"{message.KIND} frame of {len(frame)} bytes")
    return frame


def decode(frame: bytes) -> Message:
    """The message in `frame`.

    The body is not looked at before its kind is known to be ours and no larger than that kind may
    be, so that a stranger's small message costs little.

    Raises:
        RemoteProtocolError: anything else than one well-formed frame of a known kind.
    """
    if len(frame) > FRAME_BYTES_MAX:
        raise RemoteProtocolError(f"frame of {len(frame)} bytes")
    if frame[:1] != _ARRAY_OF_THREE:
        raise RemoteProtocolError(f"a frame is [version, kind, body], not {frame[:16].hex()!r}")
    items = _Items(frame, start=1)
    version = items.next(_UNSIGNED)
    if version != WIRE_VERSION:
        raise RemoteProtocolError(f"wire version {version!r}, ours is {WIRE_VERSION}")
    kind = items.next(_TEXT)
    message_type = MESSAGES.get(kind) if isinstance(kind, str) else None
    if message_type is None:
        raise RemoteProtocolError(f"unknown kind {kind!r:.80}")
    if len(frame) > message_type.FRAME_BYTES_MAX:
        raise RemoteProtocolError(f"{kind} frame of {len(frame)} bytes")
    body = items.next(_MAP)
    items.expect_end()
    try:
        return message_type.model_validate(body)
    except ValidationError as invalid:
        raise RemoteProtocolError(f"{kind}: {invalid_field(invalid)}") from None


def invalid_field(invalid: ValidationError, *, shows_value: bool = True) -> str:
    """The first complaint in a line: which field, what is wrong, and with which value."""
    if invalid.error_count() > _COMPLAINTS_MAX:
        return f"{invalid.error_count()} fields are wrong"
    first = invalid.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part)[:40] for part in first["loc"][:6])
    words = f"{field}: {first['msg']}" if field else first["msg"]
    return f"{words}, got {reprlib.repr(first['input']):.60}" if shows_value else words


def encode_plain(value: object) -> bytes:
    """Canonical CBOR of maps, arrays, texts, bytes and numbers, without a frame around."""
    return cbor2.dumps(value, canonical=True)


def decode_plain(data: bytes) -> object:
    """The one item in `data`, read under the same rules as a frame.

    Raises:
        RemoteProtocolError: not exactly one well-formed item, or one that this wire does not use.
    """
    items = _Items(data, start=0)
    item = items.next()
    items.expect_end()
    return item


def _refuse_tag(_decoder: object, _tag: object = None) -> object:
    raise RemoteProtocolError("no tags on this wire")


# The tags that cbor2 decodes by itself (dates, big numbers, shared references, sets, ...); the
# tag_hook only sees the others.
_TAGS = "0 1 2 3 4 5 25 28 29 30 35 36 37 52 54 100 256 258 260 261 1004 43000 55799"
_REFUSED_TAGS = dict.fromkeys(map(int, _TAGS.split()), _refuse_tag)

_COMPLAINTS_MAX = 100  # pydantic explains all of them or none, at 2 microseconds each

_ARRAY_OF_THREE = b"\x83"
_UNSIGNED, _TEXT, _MAP = 0, 3, 5  # major types, RFC 8949 section 3.1
_MAJOR_NAMES = {_UNSIGNED: "number", _TEXT: "text", _MAP: "map"}

_UNREADABLE = (
    cbor2.CBORError,
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


class _Items:
    """CBOR items one after the other."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._stream = io.BytesIO(data)
        self._stream.seek(start)
        self._decoder = cbor2.CBORDecoder(
            self._stream,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSED_TAGS,
            max_depth=DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )

    def next(self, major: int | None = None) -> object:
        """The next item; with `major`, one of another major type is refused unread."""
        at = self._stream.tell()
        if major is not None and at < len(self._data) and self._data[at] >> 5 != major:
            raise RemoteProtocolError(f"expected a {_MAJOR_NAMES[major]} at byte {at}")
        try:
            return self._decoder.decode()
        except _UNREADABLE as unreadable:
            refused = unreadable.__cause__
            cause = refused if isinstance(refused, RemoteProtocolError) else unreadable
            raise RemoteProtocolError(f"not CBOR: {cause!s:.120}") from None

    def expect_end(self) -> None:
        left = len(self._data) - self._stream.tell()
        if left:
            raise RemoteProtocolError(f"{left} bytes after the end")


LAST = 2**31
"""The top bit of an envelope's request number: its sender says no more about this request."""

REQUEST_MAX = LAST - 1
"""Requests are numbered from 1 to this by their asker, then from 1 again."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One frame on a stream, and the request, numbered by the asker, that it belongs to."""

    request: int
    frame: bytes
    is_last: bool = False


def seal(envelope: Envelope) -> bytes:
    """Two big-endian 32-bit words (frame length; request number and flag `LAST`), the frame."""
    flags = LAST if envelope.is_last else 0
    return _HEAD.pack(len(envelope.frame), envelope.request | flags) + envelope.frame


class EnvelopeReader:
    """Cuts a byte stream into envelopes. Holds at most one frame."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._frame_bytes_max = frame_bytes_max

    def feed(self, data: bytes) -> list[Envelope]:
        """The envelopes completed by `data`, in order.

        Raises:
            RemoteProtocolError: a length above the maximum; the stream cannot be read any further.
        """
        if not self._buffer and (whole := self._whole(data)) is not None:
            return [whole]
        self._buffer += data
        complete: list[Envelope] = []
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            length, word = _HEAD.unpack_from(self._buffer, at)
            if length > self._frame_bytes_max:
                raise RemoteProtocolError(f"frame of {length} bytes")
            end = at + _HEAD.size + length
            if len(self._buffer) < end:
                break
            frame = bytes(self._buffer[at + _HEAD.size : end])
            complete.append(Envelope(word & REQUEST_MAX, frame, bool(word & LAST)))
            at = end
        del self._buffer[:at]
        return complete

    def _whole(self, data: bytes) -> Envelope | None:
        """The envelope, where `data` is just that: as it nearly always is."""
        if len(data) < _HEAD.size:
            return None
        length, word = _HEAD.unpack_from(data)
        if len(data) != _HEAD.size + length or length > self._frame_bytes_max:
            return None
        return Envelope(word & REQUEST_MAX, bytes(data[_HEAD.size :]), bool(word & LAST))

    @property
    def is_inside_a_frame(self) -> bool:
        """Whether the stream would be torn if it ended here."""
        return bool(self._buffer)
