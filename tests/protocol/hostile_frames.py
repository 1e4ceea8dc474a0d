"""Frames as someone makes them who means no good, written byte by byte."""

from __future__ import annotations

import struct

import cbor2


def framed(body: bytes, *, kind: str = "base/refused", version: bytes = b"\x01") -> bytes:
    """A frame around `body`, which is CBOR or claims to be."""
    return b"\x83" + version + cbor2.dumps(kind) + body


def refused_with(raw: bytes, *, key: str = "x") -> bytes:
    """A `base/refused` that is fine, but for one more field holding the CBOR item `raw`."""
    return framed(b"\xa2" + cbor2.dumps("reason") + cbor2.dumps("busy") + cbor2.dumps(key) + raw)


def list_of(item: bytes, count: int) -> bytes:
    return b"\x9a" + struct.pack("!I", count) + item * count


def nested(depth: int) -> bytes:
    """`depth` arrays, one in the other, around a zero."""
    return b"\x81" * depth + b"\x00"
