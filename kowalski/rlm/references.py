"""Which contents a journal refers to: what has to be kept as long as the journal is."""

from __future__ import annotations

from collections.abc import Iterator

from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages.base import Record
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.journal import ChildHappened
from kowalski.rlm.budget import child_event


def refs_of(record: Record) -> Iterator[ContentRef]:
    """Every `ContentRef` in a message or record, however deep, and in what happened in a child."""
    if isinstance(record, ContentRef):
        yield record
        return
    if isinstance(record, ChildHappened):
        inner = child_event(record)
        if inner is not None:
            yield from refs_of(inner)
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
