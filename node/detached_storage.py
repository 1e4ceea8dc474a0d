"""The disk of those who keep detached tasks: delegations, votes and journals, in the ledger's file.

What a member has said, it must still know after a kill and a power cut: two of three keep a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kowalski.node.core.detached_state import Member
from kowalski.node.core.fences import TaskKey
from kowalski.node.database import Database
from kowalski.node.journal_tables import JournalTables
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.detached import Delegated
from kowalski.protocol.messages.task import Digest, Entry

SCHEMA = """
CREATE TABLE detached_tasks (
    submitter TEXT NOT NULL,
    task TEXT NOT NULL,
    frame BLOB NOT NULL,
    signature BLOB NOT NULL,
    received_unix_s INTEGER NOT NULL,
    ended_unix_s INTEGER,
    term INTEGER NOT NULL DEFAULT 0,
    voted_for TEXT,
    confirmed INTEGER NOT NULL DEFAULT 0,
    committed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (submitter, task)
) STRICT, WITHOUT ROWID;
CREATE TABLE detached_entries (
    submitter TEXT NOT NULL,
    task TEXT NOT NULL,
    idx INTEGER NOT NULL,
    term INTEGER NOT NULL,
    parent TEXT NOT NULL,
    digest TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (submitter, task, idx),
    FOREIGN KEY (submitter, task) REFERENCES detached_tasks (submitter, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE detached_contents (
    submitter TEXT NOT NULL,
    task TEXT NOT NULL,
    hash TEXT NOT NULL,
    ref TEXT NOT NULL,
    PRIMARY KEY (submitter, task, hash),
    FOREIGN KEY (submitter, task) REFERENCES detached_tasks (submitter, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
"""


RETRIES = "ALTER TABLE detached_tasks ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;"


@dataclass(frozen=True, slots=True)
class Row:
    """A delegation as it is kept, and what its member had on disk."""

    key: TaskKey
    delegated: Delegated
    received_unix_s: int
    ended_unix_s: int | None
    term: int = 0
    voted_for: PeerId | None = None
    confirmed: int = 0
    committed: int = 0
    retries: int = 0
    marks: tuple[Digest, ...] = ()


class DetachedStorage:
    """On the ledger's own database: durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._journals = JournalTables(
            database,
            entries="detached_entries",
            contents="detached_contents",
            whose="detached",
        )

    def take(self, key: TaskKey, delegated: Delegated, unix_s: int) -> None:
        """A new delegation. Raises StorageError."""
        with self._database.writing() as cursor:
            cursor.execute(
                "INSERT INTO detached_tasks (submitter, task, frame, signature, received_unix_s)"
                " VALUES (?, ?, ?, ?, ?)",
                (*key, delegated.frame, delegated.signature, unix_s),
            )

    def save(
        self,
        key: TaskKey,
        member: Member,
        *,
        cut_to: int | None = None,
        entries: Sequence[Entry] = (),
        contents: Iterable[ContentRef] = (),
    ) -> None:
        """What a member is, and its entries from `cut_to` on; or nothing. Raises StorageError."""
        with self._database.writing() as cursor:
            cursor.execute(
                "UPDATE detached_tasks SET term = ?, voted_for = ?, confirmed = ?, committed = ?,"
                " retries = ? WHERE submitter = ? AND task = ?",
                (
                    member.term,
                    member.voted_for,
                    member.confirmed,
                    member.committed,
                    member.retries,
                    *key,
                ),
            )
            if cut_to is None:
                return
            self._journals.replace_tail(cursor, key, cut_to, entries, member.marks[cut_to:])
            self._journals.refer_to(cursor, key, contents)

    def end(self, key: TaskKey, unix_s: int) -> None:
        """It is over since. Raises StorageError."""
        with self._database.writing() as cursor:
            cursor.execute(
                "UPDATE detached_tasks SET ended_unix_s = coalesce(ended_unix_s, ?)"
                " WHERE submitter = ? AND task = ?",
                (unix_s, *key),
            )

    def delete(self, key: TaskKey) -> None:
        """With all that belongs to it. Raises StorageError."""
        with self._database.writing() as cursor:
            cursor.execute("DELETE FROM detached_tasks WHERE submitter = ? AND task = ?", key)

    def rows(self) -> list[Row]:
        """All of them. Raises StorageError."""
        found = self._database.read(
            "SELECT submitter, task, frame, signature, received_unix_s, ended_unix_s, term,"
            " voted_for, confirmed, committed, retries"
            " FROM detached_tasks ORDER BY received_unix_s, task"
        )
        return [
            Row(
                (PeerId(submitter), TaskId(task)),
                Delegated(frame=frame, signature=signature),
                received,
                ended,
                term,
                PeerId(voted_for) if voted_for is not None else None,
                confirmed,
                committed,
                retries,
                tuple(mark for mark, _ in self._journals.marks((PeerId(submitter), TaskId(task)))),
            )
            for (
                submitter,
                task,
                frame,
                signature,
                received,
                ended,
                term,
                voted_for,
                confirmed,
                committed,
                retries,
            ) in found
        ]

    def entries(self, key: TaskKey, start: int, limit: int = 1_000_000) -> list[Entry]:
        """Raises StorageError."""
        return self._journals.entries(key, start, limit)

    def contents(self, key: TaskKey) -> list[ContentRef]:
        """What its entries refer to. Raises StorageError."""
        return self._journals.contents(key)
