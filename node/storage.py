"""The ledger's disk: tasks and their entries in SQLite, durable when a call returns.

WAL with synchronous=FULL: what was acknowledged survives a kill and a power cut.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from kowalski.node import detached_storage
from kowalski.node.core.retention import Ended
from kowalski.node.core.task_ledger import Task
from kowalski.node.database import (
    Counted,
    Cursor,
    Database,
    Row,
    StorageError,
    Whose,
    open_database,
)
from kowalski.protocol import codec
from kowalski.protocol.errors import ConfigError, RemoteProtocolError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.task import Digest, Entry, TaskSpec

__all__ = ["MIGRATIONS", "LedgerStorage", "StorageError", "open_ledger_storage"]

_FIRST = """
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    submitted_unix_s INTEGER NOT NULL,
    state TEXT NOT NULL,
    term INTEGER NOT NULL,
    coordinator TEXT,
    cancel_reason TEXT,
    closed BLOB
) STRICT;
CREATE TABLE entries (
    task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    idx INTEGER NOT NULL,
    term INTEGER NOT NULL,
    parent TEXT NOT NULL,
    digest TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (task, idx)
) STRICT, WITHOUT ROWID;
"""

_TURNS_COPIES_AND_REFERENCES = """
ALTER TABLE tasks ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN holders TEXT NOT NULL DEFAULT '[]';
ALTER TABLE tasks ADD COLUMN ended_unix_s INTEGER;
UPDATE tasks SET ended_unix_s = CAST(strftime('%s', 'now') AS INTEGER) WHERE closed IS NOT NULL;
CREATE INDEX tasks_by_time ON tasks (submitted_unix_s, id);
CREATE INDEX tasks_ended ON tasks (ended_unix_s) WHERE ended_unix_s IS NOT NULL;
CREATE TABLE contents (
    task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    hash TEXT NOT NULL,
    PRIMARY KEY (task, hash)
) STRICT, WITHOUT ROWID;
"""

_REFERENCES_WITH_HOLDERS = """
DROP TABLE contents;
CREATE TABLE contents (
    task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    hash TEXT NOT NULL,
    ref TEXT NOT NULL,
    PRIMARY KEY (task, hash)
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS = (
    _FIRST,
    _TURNS_COPIES_AND_REFERENCES,
    _REFERENCES_WITH_HOLDERS,
    detached_storage.SCHEMA,
    detached_storage.RETRIES,
)

_COLUMNS = (
    "id, spec, submitted_unix_s, state, term, cancel_reason, closed, client, retries, holders"
)
_INSERT = """
INSERT INTO tasks (state, term, coordinator, cancel_reason, closed, retries, holders, ended_unix_s,
    id, spec, submitted_unix_s, client)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
UPDATE tasks SET state = ?, term = ?, coordinator = ?, cancel_reason = ?, closed = ?, retries = ?,
    holders = ?, ended_unix_s = coalesce(ended_unix_s, ?)
WHERE id = ?
"""


class LedgerStorage:
    """Made by `open_ledger_storage`."""

    def __init__(self, database: Database, path: Path, *, unix_clock: Callable[[], float]) -> None:
        self._database = database
        self._path = path
        self._unix_clock = unix_clock

    @property
    def detached(self) -> detached_storage.DetachedStorage:
        """The detached tasks of this node, in the same file."""
        return detached_storage.DetachedStorage(self._database)

    @property
    def journalled(self) -> Counter[tuple[Whose, Counted]]:
        """Detached tasks included; see `Database.journalled`."""
        return self._database.journalled

    # --- writing --------------------------------------------------------------------------------

    def save(self, task: Task) -> None:
        """The task's row. Raises StorageError."""
        with self._database.writing() as cursor:
            self._save(cursor, task)

    def append(
        self, task: Task, entry: Entry, digest: Digest, contents: Iterable[ContentRef] = ()
    ) -> None:
        """The entry, what it refers to, and the task's row with it; or nothing.

        Raises:
            StorageError: also for an entry that is there already.
        """
        with self._database.writing() as cursor:
            _append(cursor, task.id, entry, digest)
            self._database.count("own", (entry.body,))
            self._save(cursor, task)
            _refer(cursor, task.id, contents)

    def save_with_past(
        self, task: Task, entries: Iterable[Entry], contents: Iterable[ContentRef]
    ) -> None:
        """A new task with its first entries, which end in the task's digests; or nothing.

        Raises:
            StorageError: also for a task that is there already.
        """
        with self._database.writing() as cursor:
            self._save(cursor, task)
            for entry, digest in zip(entries, task.digests, strict=True):
                _append(cursor, task.id, entry, digest)
                self._database.count("own", (entry.body,))
            _refer(cursor, task.id, contents)

    def delete(self, tasks: Iterable[TaskId]) -> None:
        """Tasks with all that belongs to them. Raises StorageError."""
        with self._database.writing() as cursor:
            cursor.executemany("DELETE FROM tasks WHERE id = ?", [(name,) for name in tasks])

    def _save(self, cursor: Cursor, task: Task) -> None:
        is_over = task.answer is not None
        changing = (
            task.state,
            task.term,
            task.coordinator,
            task.cancel_reason,
            codec.encode(task.answer) if task.answer is not None else None,
            task.retries,
            json.dumps(task.holders),
            int(self._unix_clock()) if is_over else None,
        )
        cursor.execute(_UPDATE, (*changing, task.id))
        if not cursor.rowcount:
            spec = task.spec.model_dump_json(exclude_defaults=True)
            fixed = (task.id, spec, task.submitted_unix_s, task.client)
            cursor.execute(_INSERT, (*changing, *fixed))
            _refer(cursor, task.id, (one.content for one in task.spec.inputs))

    # --- reading --------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """Every task, oldest first, as `task_ledger.Restored` wants it.

        Raises:
            ConfigError: the file is damaged.
        """
        return self._tasks("ORDER BY submitted_unix_s, id")

    def open_tasks(self) -> list[Task]:
        """Those that have not ended, oldest first. Raises ConfigError."""
        return self._tasks("WHERE closed IS NULL ORDER BY submitted_unix_s, id")

    def latest(self, limit: int) -> list[Task]:
        """The latest first, with how many entries each has, but no digests. Raises ConfigError."""
        which = "ORDER BY submitted_unix_s DESC, id DESC LIMIT ?"
        return self._tasks(which, limit, has_digests=False)

    def task(self, name: TaskId) -> Task | None:
        """Raises ConfigError."""
        return next(iter(self._tasks("WHERE id = ?", name)), None)

    def _tasks(self, which: str, *parameters: object, has_digests: bool = True) -> list[Task]:
        try:
            rows = self._database.read(f"SELECT {_COLUMNS} FROM tasks {which}", parameters)  # noqa: S608 constants
            return [self._task(row, has_digests=has_digests) for row in rows]
        except StorageError as error:
            raise ConfigError(f"ledger {error}") from error

    def _task(self, row: Row, *, has_digests: bool) -> Task:
        name, spec, submitted_unix_s, state, term, cancel_reason, closed, *more = row
        client, retries, holders = more
        chosen = "digest" if has_digests else "count(*)"
        found = self._database.read(
            f"SELECT {chosen} FROM entries WHERE task = ? ORDER BY idx",  # noqa: S608 constants
            (name,),
        )
        marks = tuple(mark for (mark,) in found) if has_digests else ()
        try:
            answer = codec.decode(closed) if closed is not None else None
            return Task(
                id=TaskId(name),
                spec=TaskSpec.model_validate_json(spec),
                submitted_unix_s=submitted_unix_s,
                state=state,
                term=term,
                entries=len(marks) if has_digests else found[0][0],
                digests=marks,
                answer=answer if isinstance(answer, journal.Closed) else None,
                cancel_reason=cancel_reason,
                client=client,
                retries=retries,
                holders=tuple(PeerId(peer) for peer in json.loads(holders)),
            )
        except (ValueError, ValidationError, RemoteProtocolError) as damage:
            raise ConfigError(f"{self._path}: task {name} is damaged: {damage}") from damage

    def entries(self, task: TaskId, start: int = 0, limit: int = 1_000_000) -> list[Entry]:
        """Raises StorageError."""
        rows = self._database.read(
            "SELECT term, idx, parent, body FROM entries"
            " WHERE task = ? AND idx >= ? ORDER BY idx LIMIT ?",
            (task, start, limit),
        )
        try:
            return [
                Entry(term=term, index=index, parent=parent, body=body)
                for term, index, parent, body in rows
            ]
        except ValidationError as error:
            raise StorageError(f"{self._path}: {error}") from error

    def contents(self) -> dict[TaskId, list[ContentRef]]:
        """What each task's inputs and entries refer to. Raises StorageError."""
        found: dict[TaskId, list[ContentRef]] = {}
        for task, ref in self._database.read("SELECT task, ref FROM contents ORDER BY task, hash"):
            found.setdefault(TaskId(task), []).append(ContentRef.model_validate_json(ref))
        return found

    def ended(self) -> list[Ended]:
        """The tasks that have ended, the first of them first. Raises StorageError."""
        rows = self._database.read(
            "SELECT id, ended_unix_s, length(spec) + (SELECT coalesce(sum(length(body)), 0)"
            " FROM entries WHERE task = id) FROM tasks"
            " WHERE ended_unix_s IS NOT NULL ORDER BY ended_unix_s, id"
        )
        return [Ended(TaskId(name), at, size) for name, at, size in rows]


def _append(cursor: Cursor, task: TaskId, entry: Entry, digest: Digest) -> None:
    cursor.execute(
        "INSERT INTO entries (task, idx, term, parent, digest, body) VALUES (?,?,?,?,?,?)",
        (task, entry.index, entry.term, entry.parent, digest, entry.body),
    )


def _refer(cursor: Cursor, task: TaskId, contents: Iterable[ContentRef]) -> None:
    cursor.executemany(
        "INSERT OR IGNORE INTO contents (task, hash, ref) VALUES (?, ?, ?)",
        [(task, ref.hash, ref.model_dump_json()) for ref in contents],
    )


@contextmanager
def open_ledger_storage(
    path: Path, *, unix_clock: Callable[[], float] = time.time
) -> Iterator[LedgerStorage]:
    """Open the file, or make it.

    Raises:
        ConfigError: it cannot be opened, is no ledger, or was written by a newer version.
    """
    with open_database(path, MIGRATIONS, what="ledger") as database:
        yield LedgerStorage(database, path, unix_clock=unix_clock)
