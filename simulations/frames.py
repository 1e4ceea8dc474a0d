"""Frames that no node of ours would make: other versions, unknown kinds, altered bodies.

The one place beside `protocol.codec` that knows CBOR: what it makes, the codec has to stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2

Alter = Callable[[str, dict[str, Any]], dict[str, Any]]
"""What becomes of the body of a message of some kind."""


def made(version: int, kind: str, body: dict[str, Any]) -> bytes:
    """A well-formed frame, whatever it says."""
    return cbor2.dumps([version, kind, body], canonical=True)


def altered(frame: bytes, alter: Alter) -> bytes:
    """A good frame with another body."""
    version, kind, body = cbor2.loads(frame)
    return made(version, kind, alter(kind, body))


def kind_of(frame: bytes) -> str:
    """What a good frame calls itself."""
    _, kind, _ = cbor2.loads(frame)
    return str(kind)
