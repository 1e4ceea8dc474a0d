"""What a session has run as one hash: the same cell numbers with other code are another past."""

from __future__ import annotations

from typing import Final

from kowalski.protocol.ids import ContentHash, content_hash

NOTHING: Final = content_hash(b"")
"""The past of a session that has run nothing yet."""


def past_with(past: ContentHash, cell: int, code: str) -> ContentHash:
    """The past of a session that has run one more cell: SHA-256 over `PAST CELL CODE` in UTF-8."""
    return content_hash(f"{past} {cell} {code}".encode(errors="replace"))
