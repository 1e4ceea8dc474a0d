"""A file with a schema that grows: every version is brought up to date, or left alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from kowalski.node.database import Database, StorageError, open_database
from kowalski.protocol.errors import ConfigError

FIRST = "CREATE TABLE t (a INTEGER PRIMARY KEY) STRICT;"
SECOND = "ALTER TABLE t ADD COLUMN b TEXT NOT NULL DEFAULT 'b'; UPDATE t SET b = 'old';"
BROKEN = "ALTER TABLE t ADD COLUMN c TEXT; UPDATE nowhere SET c = 1;"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "some.sqlite"


def version_of(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(version)


def test_a_new_file_gets_every_migration_and_keeps_what_is_written(path: Path) -> None:
    with open_database(path, (FIRST, SECOND), what="thing") as database:
        with database.writing() as cursor:
            cursor.execute("INSERT INTO t (a) VALUES (1)")
        assert database.read("SELECT a, b FROM t") == [(1, "b")]
    assert version_of(path) == 2
    with open_database(path, (FIRST, SECOND), what="thing") as database:
        assert database.read("SELECT a FROM t WHERE a = ?", (1,)) == [(1,)]


def test_what_is_written_ahead_stays_small_however_much_is_written(path: Path) -> None:
    ahead = path.with_name(f"{path.name}-wal")
    with open_database(path, (FIRST, SECOND), what="thing") as database:
        for number in range(400):
            with database.writing() as cursor:
                cursor.execute("INSERT INTO t (a, b) VALUES (?, ?)", (number, "b" * 10_000))
            assert ahead.stat().st_size < 1_000_000


def test_an_older_file_is_migrated_from_where_it_is(path: Path) -> None:
    with open_database(path, (FIRST,), what="thing") as database, database.writing() as cursor:
        cursor.execute("INSERT INTO t (a) VALUES (1)")
    with open_database(path, (FIRST, SECOND), what="thing") as database:
        assert database.read("SELECT a, b FROM t") == [(1, "old")]
    assert version_of(path) == 2


def test_a_migration_that_fails_leaves_the_version_before_it_whole(path: Path) -> None:
    with open_database(path, (FIRST,), what="thing"):
        pass
    wanted = (FIRST, BROKEN)
    complaint = pytest.raises(ConfigError, match=r"thing .*some\.sqlite: no such table: nowhere")
    with complaint, open_database(path, wanted, what="thing"):
        pass
    assert version_of(path) == 1
    with open_database(path, (FIRST, SECOND), what="thing") as database:
        assert database.read("SELECT * FROM t") == []


def test_a_newer_file_is_refused(path: Path) -> None:
    with open_database(path, (FIRST, SECOND), what="thing"):
        pass
    complaint = pytest.raises(ConfigError, match="schema 2, ours is 1")
    with complaint, open_database(path, (FIRST,), what="thing"):
        pass


def test_a_block_that_fails_has_written_nothing_and_its_error_stays_its_own(path: Path) -> None:
    with open_database(path, (FIRST,), what="thing") as database:
        with pytest.raises(KeyError):
            write(database, "INSERT INTO t (a) VALUES (1)", KeyError())
        with pytest.raises(StorageError, match="UNIQUE"):
            write(database, "INSERT INTO t (a) VALUES (2), (2)")
        assert database.read("SELECT * FROM t") == []


def write(database: Database, sql: str, error: Exception | None = None) -> None:
    with database.writing() as cursor:
        cursor.execute("INSERT INTO t (a) VALUES (7)")
        cursor.execute(sql)
        if error is not None:
            raise error


@pytest.mark.parametrize(("survives", "synchronous"), [(True, 2), (False, 1)])
def test_how_long_writes_wait_for_the_disk_is_the_rooms_choice(
    path: Path, survives: bool, synchronous: int
) -> None:
    with open_database(path, (FIRST,), what="thing", survives_power_cuts=survives) as database:
        assert database.read("PRAGMA synchronous") == [(synchronous,)]
        assert database.read("PRAGMA journal_mode") == [("wal",)]
