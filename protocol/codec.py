"""Frames: `[wire version, kind, body]` in canonical CBOR (RFC 8949, section 4.2.1).

On a stream each frame is preceded by its length and the number of the request it belongs to, so
that many requests share one stream. No I/O here: bytes in, frames out.
"""

from __future__ import annotations

import io
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
    """The canonical frame of `message`; absent optional fields are left out.

    Raises:
        LocalProtocolError: the frame is larger than its kind allows.
    """
    body = message.model_dump(exclude_none=True)
    frame = cbor2.dumps([WIRE_VERSION, message.KIND, body], canonical=True)
    if len(frame) > message.FRAME_BYTES_MAX:
        raise LocalProtocolError(f"{message.KIND} frame of {len(frame)} bytes")
    return frame


def decode(frame: bytes) -> Message:
    """The message in `frame`.

    Raises:
        RemoteProtocolError: anything else than one well-formed frame of a known kind.
    """
    version, kind, body = _parts(frame)
    if version != WIRE_VERSION:
        raise RemoteProtocolError(f"wire version {version!r:.20}, ours is {WIRE_VERSION}")
    message_type = MESSAGES.get(kind) if isinstance(kind, str) else None
    if message_type is None:
        raise RemoteProtocolError(f"unknown kind {kind!r:.80}")
    if len(frame) > message_type.FRAME_BYTES_MAX:
        raise RemoteProtocolError(f"{kind} frame of {len(frame)} bytes")
    try:
        return message_type.model_validate(body)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part)[:40] for part in first["loc"][:6])
        value = f"{first['input']!r:.60}"
        raise RemoteProtocolError(f"{kind}: {field}: {first['msg']}, got {value}") from None
    except RecursionError:
        raise RemoteProtocolError(f"{kind}: nested too deep") from None


def _refuse_tag(_decoder: object, _tag: object = None) -> object:
    raise RemoteProtocolError("no tags on this wire")


# The tags that cbor2 decodes by itself (dates, big numbers, shared references, sets, ...); the
# tag_hook only sees the others.
_TAGS = "0 1 2 3 4 5 25 28 29 30 35 36 37 52 54 100 256 258 260 261 1004 43000 55799"
_REFUSED_TAGS = dict.fromkeys(map(int, _TAGS.split()), _refuse_tag)


_UNREADABLE = (
    cbor2.CBORError,
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


def _parts(frame: bytes) -> tuple[object, object, object]:
    if len(frame) > FRAME_BYTES_MAX:
        raise RemoteProtocolError(f"frame of {len(frame)} bytes")
    stream = io.BytesIO(frame)
    decoder = cbor2.CBORDecoder(
        stream,
        tag_hook=_refuse_tag,
        semantic_decoders=_REFUSED_TAGS,
        max_depth=DEPTH_MAX,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        decoded = decoder.decode()
    except RemoteProtocolError:
        raise
    except _UNREADABLE as unreadable:
        refused = unreadable.__cause__
        cause = refused if isinstance(refused, RemoteProtocolError) else unreadable
        raise RemoteProtocolError(f"not CBOR: {cause!s:.120}") from None
    if stream.tell() != len(frame):
        raise RemoteProtocolError(f"{len(frame) - stream.tell()} bytes after the frame")
    if not isinstance(decoded, list) or len(decoded) != 3:
        raise RemoteProtocolError("a frame is [version, kind, body]")
    return decoded[0], decoded[1], decoded[2]


@dataclass(frozen=True, slots=True)
class Envelope:
    """One frame on a stream and the request, numbered by the asker, that it belongs to."""

    request: int
    frame: bytes


def seal(request: int, frame: bytes) -> bytes:
    return _HEAD.pack(len(frame), request) + frame


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
        self._buffer += data
        complete: list[Envelope] = []
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            length, request = _HEAD.unpack_from(self._buffer, at)
            if length > self._frame_bytes_max:
                raise RemoteProtocolError(f"frame of {length} bytes")
            end = at + _HEAD.size + length
            if len(self._buffer) < end:
                break
            complete.append(Envelope(request, bytes(self._buffer[at + _HEAD.size : end])))
            at = end
        del self._buffer[:at]
        return complete

    @property
    def is_inside_a_frame(self) -> bool:
        """Whether the stream would be torn if it ended here."""
        return bool(self._buffer)
