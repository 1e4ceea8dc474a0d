"""How much of a journal travels in one message."""

from __future__ import annotations

from collections.abc import Iterable

from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.task import Entry

ENTRIES_MAX = 64
BYTES_MAX = FRAME_BYTES_MAX // 2
_AROUND_A_BODY = 256
"""Bytes of an entry that are not its body: digest, numbers, names of fields."""


def portion(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The first of them, as many as one message should carry; at least one, if there are any."""
    chosen: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.body) + _AROUND_A_BODY
        if len(chosen) == ENTRIES_MAX or (chosen and size > BYTES_MAX):
            break
        chosen.append(entry)
    return tuple(chosen)
