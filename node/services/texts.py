"""Texts made to fit a message."""

from __future__ import annotations

from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.base import sayable


def fitting(text: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """As much of the beginning of `text` as fits `bytes_max` bytes of UTF-8."""
    return sayable(text).encode()[:bytes_max].decode(errors="ignore")
