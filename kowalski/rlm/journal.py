"""Chains what happened in a task: entries, their digests, and what makes a chain whole.

An entry's digest covers the task, its place and the digest before it, so two journals that end in
the same digest are the same from the first entry on. Who may append, and where entries are kept,
is decided elsewhere (`kowalski.node.core`).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import ContentHash, TaskId
from kowalski.protocol.messages.journal import SessionEvent
from kowalski.protocol.messages.task import Digest, Entry

GENESIS: Final[Digest] = ContentHash("0" * 64)
"""The parent of the first entry."""

_DOMAIN: Final = b"kowalski/journal/entry/1\0"  # no other thing that we hash begins so
_PLACE: Final = struct.Struct("!QQ")  # term, index
_LENGTH: Final = struct.Struct("!Q")


def digest(task: TaskId, entry: Entry) -> Digest:
    """SHA-256 over the task's name, the term, the index, the parent and the body.

    Everything of variable length is preceded by its length, so no two entries share their bytes.
    """
    name = task.encode()
    hasher = hashlib.sha256(_DOMAIN)
    hasher.update(_LENGTH.pack(len(name)) + name)
    hasher.update(_PLACE.pack(entry.term, entry.index) + bytes.fromhex(entry.parent))
    hasher.update(_LENGTH.pack(len(entry.body)) + entry.body)
    return ContentHash(hasher.hexdigest())


def entry_of(term: int, index: int, parent: Digest, event: SessionEvent) -> Entry:
    """The entry that records `event` on top of the entry with digest `parent`."""
    return Entry(term=term, index=index, parent=parent, body=codec.encode(event))


def event_of(entry: Entry) -> SessionEvent:
    """What an entry records.

    Raises:
        RemoteProtocolError: the body is no message, or one that has no place in a journal.
    """
    message = codec.decode(entry.body)
    if isinstance(message, SessionEvent):
        return message
    raise RemoteProtocolError(f"{message.KIND} in a journal")


def check_chain(
    task: TaskId,
    entries: Iterable[Entry],
    *,
    parent: Digest = GENESIS,
    index: int = 0,
    term: int = 1,
) -> Digest:
    """The digest of the last entry, after making sure that each stands on the one before.

    `parent`, `index` and `term` say what the first one must stand on, for a journal that comes in
    pieces. Without entries the answer is `parent`. Terms may stay or rise, never fall.

    Raises:
        RemoteProtocolError: an entry is missing, out of order, altered, or of an older term.
    """
    for entry in entries:
        if entry.index != index:
            raise RemoteProtocolError(f"entry {entry.index} where {index} was due")
        if entry.parent != parent:
            raise RemoteProtocolError(f"entry {index} stands on {entry.parent}, not on {parent}")
        if entry.term < term:
            raise RemoteProtocolError(f"entry {index} of term {entry.term} after term {term}")
        parent, index, term = digest(task, entry), index + 1, entry.term
    return parent
