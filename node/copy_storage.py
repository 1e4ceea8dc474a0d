"""The disk of those who hold copies of journals.

A copy is no truth, so writes do not wait for the disk: what was written survives a kill of the
process, and may be lost in a power cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from kowalski.node.core.copy_desk import Copy, Keep
from kowalski.node.core.fences import TaskKey
from kowalski.node.database import Counted, Cursor, Database, Whose, open_database
from kowalski.node.journal_tables import JournalTables
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.repl import Inputs
from kowalski.protocol.messages.task import Entry

MIGRATIONS = (
    """
CREATE TABLE copies (
    submitter TEXT NOT NULL,
    task TEXT NOT NULL,
    term INTEGER NOT NULL,
    heard_unix_s REAL NOT NULL,
    inputs TEXT NOT NULL,
    PRIMARY KEY (submitter, task)
) STRICT, WITHOUT ROWID;
CREATE TABLE entries (
    submitter TEXT NOT NULL,
    task TEXT NOT NULL,
    idx INTEGER NOT NULL,
    term INTEGER NOT NULL,
    parent TEXT NOT NULL,
    digest TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (submitter, task, idx),
    FOREIGN KEY (submitter, task) REFERENCES copies (submitter, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE contents (
    submitter TEXT NOT NULL,
    task TEXT NOT NULL,
    hash TEXT NOT NULL,
    ref TEXT NOT NULL,
    PRIMARY KEY (submitter, task, hash),
    FOREIGN KEY (submitter, task) REFERENCES copies (submitter, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
""",
)

_INPUTS: TypeAdapter[Inputs] = TypeAdapter(Inputs)

_SAVE = """
INSERT INTO copies (submitter, task, term, heard_unix_s, inputs) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (submitter, task) DO UPDATE
    SET term = excluded.term, heard_unix_s = excluded.heard_unix_s, inputs = excluded.inputs
"""


class CopyStorage:
    """Made by `open_copy_storage`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._journals = JournalTables(
            database, entries="entries", contents="contents", whose="copies"
        )

    @property
    def journalled(self) -> Counter[tuple[Whose, Counted]]:
        """See `Database.journalled`."""
        return self._database.journalled

    def keep(self, keep: Keep, contents: Iterable[ContentRef]) -> None:
        """All of it or nothing. Raises StorageError."""
        copy = keep.copy
        with self._database.writing() as cursor:
            self._drop(cursor, keep.forgotten)
            inputs = _INPUTS.dump_json(copy.inputs).decode()
            cursor.execute(_SAVE, (*copy.key, copy.term, copy.heard_unix_s, inputs))
            self._journals.replace_tail(cursor, copy.key, keep.cut_to, keep.entries, keep.digests)
            self._journals.refer_to(cursor, copy.key, contents)

    def drop(self, keys: Iterable[TaskKey]) -> None:
        """Raises StorageError."""
        with self._database.writing() as cursor:
            self._drop(cursor, keys)

    def _drop(self, cursor: Cursor, keys: Iterable[TaskKey]) -> None:
        cursor.executemany("DELETE FROM copies WHERE submitter = ? AND task = ?", list(keys))

    def copies(self) -> list[Copy]:
        """Every copy. One that is damaged is left out. Raises StorageError."""
        rows = self._database.read("SELECT submitter, task, term, heard_unix_s, inputs FROM copies")
        found: list[Copy] = []
        for submitter, task, term, heard_unix_s, inputs in rows:
            key = PeerId(submitter), TaskId(task)
            marks = self._journals.marks(key)
            sizes = tuple(size for _, size in marks)
            try:
                found.append(
                    Copy(
                        key,
                        term,
                        heard_unix_s,
                        tuple(mark for mark, _ in marks),
                        sizes,
                        sum(sizes),
                        _INPUTS.validate_json(inputs),
                    )
                )
            except ValidationError:
                continue
        return found

    def entries(self, key: TaskKey, start: int, limit: int = 1_000_000) -> list[Entry]:
        """Raises StorageError."""
        return self._journals.entries(key, start, limit)

    def contents(self, key: TaskKey) -> list[ContentRef]:
        """What a copy refers to. Raises StorageError."""
        return self._journals.contents(key)


@contextmanager
def open_copy_storage(path: Path) -> Iterator[CopyStorage]:
    """Open the file, or make it. Raises ConfigError, as `open_database` does."""
    with open_database(path, MIGRATIONS, what="copies", survives_power_cuts=False) as database:
        yield CopyStorage(database)
