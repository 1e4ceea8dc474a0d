"""The join line: what an owner carries from one device to the next, `kw1:` and some text.

The text is url-safe base64 without padding over canonical CBOR, an array in the order of the fields
of `JoinLine` (the mesh as its 20 bytes), and the first 4 bytes of the SHA-256 of that CBOR against
typing errors. A later `kw1` may append elements. Whether the line has expired is for those to
judge who have a clock.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Annotated, Final

from pydantic import Field, ValidationError

from kowalski.protocol.codec import decode_plain, encode_plain, invalid_field
from kowalski.protocol.errors import ConfigError, RemoteProtocolError
from kowalski.protocol.ids import MeshIdField, PeerIdField
from kowalski.protocol.messages.base import Count, Record
from kowalski.protocol.messages.trust import Addresses, Roles

PREFIX: Final = "kw1:"
CHARS_MAX: Final = 8192
"""Sixteen addresses of the greatest length fit."""

_CHECKSUM_BYTES = 4
_FIELDS = ("mesh", "inviter", "addresses", "invite", "secret", "not_after_unix_s", "roles")
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb<>"
_COPY_AGAIN = "copy the whole line again"

Invite = Annotated[bytes, Field(min_length=16, max_length=16)]
Secret = Annotated[bytes, Field(min_length=16, max_length=16, repr=False)]


class JoinLine(Record):
    """What a newcomer must know to be let in; `secret` admits whoever has it."""

    mesh: MeshIdField
    inviter: PeerIdField
    addresses: Addresses
    invite: Invite
    secret: Secret
    not_after_unix_s: Count
    roles: Roles

    def render(self) -> str:
        """The line, safe in a shell, in a URL and in a chat."""
        values = self.model_dump() | {"mesh": _mesh_bytes(self.mesh)}
        content = encode_plain([values[name] for name in _FIELDS])
        packed = base64.urlsafe_b64encode(content + _checksum(content))
        return PREFIX + packed.decode().rstrip("=")


def parse(text: str) -> JoinLine:
    """The line in `text`; quotes around it and white space anywhere are no matter.

    Raises:
        ConfigError: says what is wrong, without repeating the line, which holds a secret.
    """
    if len(text) > CHARS_MAX:
        raise ConfigError(f"not a join line: {len(text)} characters")
    line = "".join(text.split()).strip(_QUOTES)
    content = _checked_content(_packed(line))
    try:
        values = decode_plain(content)
    except RemoteProtocolError as unreadable:
        raise ConfigError(f"join line from a program unlike this one: {unreadable}") from None
    if not isinstance(values, list) or len(values) < len(_FIELDS):
        raise ConfigError("join line from a program unlike this one: fields are missing")
    fields = dict(zip(_FIELDS, values, strict=False))
    mesh = fields["mesh"]
    fields["mesh"] = base64.b32encode(mesh).decode().lower() if isinstance(mesh, bytes) else None
    try:
        return JoinLine.model_validate(fields)
    except ValidationError as invalid:
        complaint = invalid_field(invalid, shows_value=False)
        raise ConfigError(
            f"join line with contents that this version does not know ({complaint}): "
            "it may come from a newer version; update this node"
        ) from None


def _packed(line: str) -> str:
    """What follows the prefix, in base64."""
    if not line:
        raise ConfigError("the join line is empty")
    prefix = re.match(r"kw(\d{1,4}):", line)
    if prefix is None:
        raise ConfigError(f"not a join line: one begins with {PREFIX}")
    if prefix[0] != PREFIX:
        raise ConfigError(
            f"join line made by another version ({prefix[0]} where this one reads {PREFIX}): "
            "update the older of the two nodes"
        )
    packed = line[len(PREFIX) :]
    stranger = re.search(r"[^A-Za-z0-9_-]", packed)
    if stranger is not None:
        place = len(PREFIX) + stranger.start() + 1
        raise ConfigError(
            f"join line mistyped: {stranger[0]!r} (character {place}) is never in one; "
            + _COPY_AGAIN
        )
    return packed


def _checked_content(packed: str) -> bytes:
    if len(packed) % 4 == 1:  # no number of bytes gives this many characters
        raise ConfigError(f"join line cut short or mistyped: {_COPY_AGAIN}")
    data = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
    content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if not content or checksum != _checksum(content):
        raise ConfigError(f"join line cut short or mistyped (its checksum is off): {_COPY_AGAIN}")
    return content


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECKSUM_BYTES]


def _mesh_bytes(mesh: str) -> bytes:
    return base64.b32decode(mesh.upper())
