"""A SQLite file as the rooms want it: one writer, typed errors, schemas that grow.

The only module that imports sqlite3. Writes are one short transaction each, on the calling thread:
what a room writes reaches the disk in the order in which it was written.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from kowalski.protocol.errors import ConfigError, KowalskiError

Row = tuple[Any, ...]
Cursor = sqlite3.Cursor
Whose = Literal["own", "copies", "detached"]
"""Of journals: those of tasks submitted here, those kept for others, those of detached tasks."""

Counted = Literal["entries", "bytes"]

WRITTEN_AHEAD_PAGES = 128
"""Half a megabyte, and then it goes to its place: SQLite's own 4 MB would be most of what a task
of ten megabytes may take."""

PAGE_BYTES = 4096


class StorageError(KowalskiError):
    """The disk said no: full, read-only, or damaged. Nothing of the failed write is there."""


class Database:
    """Made by `open_database`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._to_be_counted: Counter[tuple[Whose, Counted]] = Counter()
        self.journalled: Counter[tuple[Whose, Counted]] = Counter()
        """What was written of journals since the file was opened."""

    @contextmanager
    def writing(self) -> Iterator[Cursor]:
        """One transaction: all that the block does, or nothing of it. Raises StorageError."""
        self._to_be_counted.clear()
        with self.telling(), self._connection:
            yield self._connection.cursor()
        self.journalled.update(self._to_be_counted)

    def count(self, whose: Whose, bodies: Iterable[bytes]) -> None:
        """Entries of a journal, by their bodies, that the transaction under way writes."""
        sizes = [len(body) for body in bodies]
        self._to_be_counted[whose, "entries"] += len(sizes)
        self._to_be_counted[whose, "bytes"] += sum(sizes)

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Raises StorageError."""
        with self.telling():
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What SQLite says in the block, as a StorageError."""
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error


@contextmanager
def open_database(
    path: Path, migrations: Sequence[str], *, what: str, survives_power_cuts: bool = True
) -> Iterator[Database]:
    """Open the file, or make it, and bring its schema up to date.

    `migrations` are scripts; a file of schema version n has seen the first n. What a call has
    written survives a kill of the process; a power cut too, at the price of waiting for the disk.

    Raises:
        ConfigError: it cannot be opened, is no such file, or was written by a newer version.
    """
    with _as_the_operators(path, what):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
    with closing(connection):
        with _as_the_operators(path, what):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                f"PRAGMA synchronous = {'FULL' if survives_power_cuts else 'NORMAL'}"
            )
            connection.execute(f"PRAGMA wal_autocheckpoint = {WRITTEN_AHEAD_PAGES}")
            limit_bytes = WRITTEN_AHEAD_PAGES * PAGE_BYTES
            connection.execute(f"PRAGMA journal_size_limit = {limit_bytes}")
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection, path, migrations, what)
        yield Database(connection, path)


@contextmanager
def _as_the_operators(path: Path, what: str) -> Iterator[None]:
    """What the file system or SQLite says, as the operator's."""
    try:
        yield
    except sqlite3.Error as error:
        raise ConfigError(f"{what} {path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{what} {path}: {error.strerror or error}") from error


def _migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[str], what: str
) -> None:
    """Each step in a transaction of its own, so that a kill leaves one version or the next."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise ConfigError(
            f"{what} {path} was written by a newer kowalski-node (schema {version}, ours is "
            f"{len(migrations)}); upgrade, or choose another data folder"
        )
    for number in range(version, len(migrations)):
        script = f"BEGIN; {migrations[number]} PRAGMA user_version = {number + 1}; COMMIT;"
        try:
            connection.executescript(script)
        except sqlite3.Error:
            connection.rollback()
            raise
