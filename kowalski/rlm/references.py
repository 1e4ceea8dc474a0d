"""Which contents a journal refers to: what has to be kept as long as the journal is."""

from __future__ import annotations

from collections.abc import Iterator

from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages.base import Record
from kowalski.protocol.messages.content import ContentRef


def refs_of(record: Record) -> Iterator[ContentRef]:
    """Every `ContentRef` in a message or record, however deep."""
    if isinstance(record, ContentRef):
        yield record
        return
    for name in type(record).model_fields:
        yield from _refs_in(getattr(record, name))


def _refs_in(value: object) -> Iterator[ContentRef]:
    if isinstance(value, Record):
        yield from refs_of(value)
    elif isinstance(value, tuple):
        for item in value:
            yield from _refs_in(item)


def contents_of(record: Record) -> frozenset[ContentHash]:
    """The hashes of all of them."""
    return frozenset(ref.hash for ref in refs_of(record))
