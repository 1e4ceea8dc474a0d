"""The ledger's disk: tasks and their entries in SQLite, one writer, durable when a call returns.

WAL with synchronous=FULL: what was acknowledged survives a kill and a power cut. Writes are one
short transaction each, on the calling thread: effects reach the disk in the order performed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import ValidationError

from kowalski.node.core.task_ledger import Task, TaskState
from kowalski.protocol import codec
from kowalski.protocol.errors import ConfigError, KowalskiError, RemoteProtocolError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import Digest, Entry, TaskSpec

SCHEMA_VERSION = 1

_SCHEMA = """
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

_SAVE = """
INSERT INTO tasks (id, spec, submitted_unix_s, state, term, coordinator, cancel_reason, closed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, term = excluded.term,
    coordinator = excluded.coordinator, cancel_reason = excluded.cancel_reason,
    closed = excluded.closed
"""


class StorageError(KowalskiError):
    """The disk said no: full, read-only, or damaged. Nothing of the failed write is there."""


class LedgerStorage:
    """Made by `open_ledger_storage`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def save(self, task: Task) -> None:
        """Raises StorageError."""
        with self._transaction() as cursor:
            _save(cursor, task)

    def append(self, task: Task, entry: Entry, digest: Digest) -> None:
        """The entry, and the task's row with it, or neither. Raises StorageError."""
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO entries (task, idx, term, parent, digest, body) VALUES (?,?,?,?,?,?)",
                (task.id, entry.index, entry.term, entry.parent, digest, entry.body),
            )
            _save(cursor, task)

    def tasks(self) -> list[Task]:
        """Every task, oldest first, as `task_ledger.Restored` wants it.

        Raises:
            ConfigError: the file is damaged.
        """
        with _telling(self._path):
            rows = self._connection.execute(
                "SELECT id, spec, submitted_unix_s, state, term, cancel_reason, closed"
                " FROM tasks ORDER BY submitted_unix_s, id"
            )
            return [self._task(row) for row in rows]

    def _task(self, row: tuple[str, str, int, TaskState, int, str | None, bytes | None]) -> Task:
        name, spec, submitted_unix_s, state, term, cancel_reason, closed = row
        digests = self._connection.execute(
            "SELECT digest FROM entries WHERE task = ? ORDER BY idx", (name,)
        )
        marks = tuple(mark for (mark,) in digests)
        try:
            answer = codec.decode(closed) if closed is not None else None
            return Task(
                id=TaskId(name),
                spec=TaskSpec.model_validate_json(spec),
                submitted_unix_s=submitted_unix_s,
                state=state,
                term=term,
                entries=len(marks),
                digests=marks,
                answer=answer if isinstance(answer, journal.Closed) else None,
                cancel_reason=cancel_reason,
            )
        except (ValidationError, RemoteProtocolError) as damage:
            raise ConfigError(f"{self._path}: task {name} is damaged: {damage}") from damage

    def entries(self, task: TaskId, start: int = 0, limit: int = 1_000_000) -> list[Entry]:
        """Raises StorageError."""
        try:
            rows = self._connection.execute(
                "SELECT term, idx, parent, body FROM entries"
                " WHERE task = ? AND idx >= ? ORDER BY idx LIMIT ?",
                (task, start, limit),
            )
            return [
                Entry(term=term, index=index, parent=parent, body=body)
                for term, index, parent, body in rows
            ]
        except (sqlite3.Error, ValidationError) as error:
            raise StorageError(f"{self._path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        try:
            with self._connection:
                yield self._connection.cursor()
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error


def _save(cursor: sqlite3.Cursor, task: Task) -> None:
    closed = codec.encode(task.answer) if task.answer is not None else None
    cursor.execute(
        _SAVE,
        (
            task.id,
            task.spec.model_dump_json(exclude_none=True),
            task.submitted_unix_s,
            task.state,
            task.term,
            task.coordinator,
            task.cancel_reason,
            closed,
        ),
    )


@contextmanager
def open_ledger_storage(path: Path) -> Iterator[LedgerStorage]:
    """Open the file, or make it.

    Raises:
        ConfigError: it cannot be opened, is no ledger, or was written by a newer version.
    """
    with _telling(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
    with closing(connection):
        with _telling(path):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            _prepare(connection, path)
        yield LedgerStorage(connection, path)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """What the file system or SQLite says, as the operator's."""
    try:
        yield
    except sqlite3.Error as error:
        raise ConfigError(f"ledger {path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"ledger {path}: {error.strerror or error}") from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"ledger {path} was written by a newer kowalski-node (schema {version}, ours is "
            f"{SCHEMA_VERSION}); upgrade, or choose another data folder"
        )
    if version == 0:
        with connection:
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
