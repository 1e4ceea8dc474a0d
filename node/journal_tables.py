"""Journals of several tasks in one database: their entries, and the content these refer to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from kowalski.node.core.fences import TaskKey
from kowalski.node.database import Cursor, Database, StorageError, Whose
from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.task import Digest, Entry


class JournalTables:
    """Two tables by the names that their owner's schema gives them.

    Entries have the columns submitter, task, idx, term, parent, digest and body; contents have
    submitter, task, hash and ref.
    """

    def __init__(self, database: Database, *, entries: str, contents: str, whose: Whose) -> None:
        self._database = database
        self._whose: Whose = whose
        of_task = "WHERE submitter = ? AND task = ?"
        self._cut = f"DELETE FROM {entries} {of_task} AND idx >= ?"  # noqa: S608 our own names
        self._add = (
            f"INSERT INTO {entries} (submitter, task, idx, term, parent, digest, body)"  # noqa: S608
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        self._add_content = (
            f"INSERT OR IGNORE INTO {contents} (submitter, task, hash, ref)"  # noqa: S608
            " VALUES (?, ?, ?, ?)"
        )
        self._marks = f"SELECT digest, length(body) FROM {entries} {of_task} ORDER BY idx"  # noqa: S608
        self._entries = (
            f"SELECT term, idx, parent, body FROM {entries}"  # noqa: S608
            f" {of_task} AND idx >= ? ORDER BY idx LIMIT ?"
        )
        self._contents = f"SELECT ref FROM {contents} {of_task}"  # noqa: S608

    def replace_tail(
        self,
        cursor: Cursor,
        key: TaskKey,
        cut_to: int,
        entries: Sequence[Entry],
        marks: Sequence[Digest],
    ) -> None:
        """Let `entries`, of the digests `marks`, be what stands from entry `cut_to` on."""
        cursor.execute(self._cut, (*key, cut_to))
        cursor.executemany(
            self._add,
            [
                (*key, one.index, one.term, one.parent, mark, one.body)
                for one, mark in zip(entries, marks, strict=True)
            ],
        )
        self._database.count(self._whose, (one.body for one in entries))

    def refer_to(self, cursor: Cursor, key: TaskKey, contents: Iterable[ContentRef]) -> None:
        cursor.executemany(
            self._add_content, [(*key, ref.hash, ref.model_dump_json()) for ref in contents]
        )

    def marks(self, key: TaskKey) -> list[tuple[Digest, int]]:
        """The digest of each entry, and how many bytes its body has. Raises StorageError."""
        rows = self._database.read(self._marks, key)
        return [(ContentHash(mark), size) for mark, size in rows]

    def entries(self, key: TaskKey, start: int, limit: int) -> list[Entry]:
        """Raises StorageError."""
        rows = self._database.read(self._entries, (*key, start, limit))
        try:
            return [Entry(term=t, index=i, parent=p, body=b) for t, i, p, b in rows]
        except ValidationError as error:
            raise StorageError(f"{self._whose}: task {key[1]}: {error}") from error

    def contents(self, key: TaskKey) -> list[ContentRef]:
        """What its entries refer to. Raises StorageError."""
        rows = self._database.read(self._contents, key)
        return [ContentRef.model_validate_json(ref) for (ref,) in rows]
