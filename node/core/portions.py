"""How much of a journal, or of a long list, travels in one message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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


def spans(weights: Sequence[int], *, bytes_max: int, count_max: int) -> Iterator[tuple[int, int]]:
    """Where to cut a list of things that weigh so much: (start, end) of each part, in order.

    No part weighs more than `bytes_max`, unless one thing alone does.
    """
    start = size = 0
    for at, weight in enumerate(weights):
        if at > start and (size + weight > bytes_max or at - start == count_max):
            yield start, at
            start, size = at, 0
        size += weight
    if start < len(weights):
        yield start, len(weights)
