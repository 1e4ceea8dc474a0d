"""Journals of several tasks in two tables: each has its own end, and damage names whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kowalski.node.core.fences import TaskKey
from kowalski.node.database import Database, StorageError, open_database
from kowalski.node.journal_tables import JournalTables
from kowalski.protocol.ids import PeerId, TaskId, content_hash
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.task import Digest, Entry

SCHEMA = """
CREATE TABLE lines (
    submitter TEXT, task TEXT, idx INTEGER, term INTEGER, parent TEXT, digest TEXT, body BLOB
);
CREATE TABLE things (submitter TEXT, task TEXT, hash TEXT, ref TEXT, UNIQUE (task, hash));
"""
PEER = PeerId("12D3KooWsubmitter")
OURS: TaskKey = (PEER, TaskId("ours"))
THEIRS: TaskKey = (PEER, TaskId("theirs"))
REF = ContentRef(hash=content_hash(b"a"), bytes_total=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path / "journals.sqlite", (SCHEMA,), what="journals") as opened:
        yield opened


@pytest.fixture
def tables(database: Database) -> JournalTables:
    return JournalTables(database, entries="lines", contents="things", whose="copies")


def fail_after(_written: None) -> None:
    raise ZeroDivisionError


def marks(words: str) -> list[Digest]:
    return [content_hash(word.encode()) for word in words]


def entries(words: str, start: int = 0) -> list[Entry]:
    return [
        Entry(term=1, index=start + at, parent=content_hash(b""), body=word.encode())
        for at, word in enumerate(words)
    ]


def test_from_where_a_tail_is_replaced_nothing_older_is_left_and_other_tasks_keep_theirs(
    database: Database, tables: JournalTables
) -> None:
    with database.writing() as cursor:
        tables.replace_tail(cursor, OURS, 0, entries("abc"), marks("abc"))
        tables.replace_tail(cursor, THEIRS, 0, entries("xyz"), marks("xyz"))
    with database.writing() as cursor:
        tables.replace_tail(cursor, OURS, 1, entries("d", 1), marks("d"))
    assert tables.entries(OURS, 0, 10) == [*entries("a"), *entries("d", 1)]
    assert tables.marks(OURS) == [(mark, 1) for mark in marks("ad")]
    assert tables.entries(THEIRS, 1, 1) == entries("y", 1)


def test_content_that_is_referred_to_twice_is_told_once(
    database: Database, tables: JournalTables
) -> None:
    for _ in range(2):
        with database.writing() as cursor:
            tables.refer_to(cursor, OURS, [REF])
    assert tables.contents(OURS) == [REF]
    assert tables.contents(THEIRS) == []


def test_as_many_digests_as_entries_are_wanted_and_nothing_is_written_otherwise(
    database: Database, tables: JournalTables
) -> None:
    with pytest.raises(ValueError, match="shorter"), database.writing() as cursor:
        tables.replace_tail(cursor, OURS, 0, entries("ab"), marks("a"))
    assert tables.entries(OURS, 0, 10) == []


def test_what_was_written_is_counted_and_what_was_not_is_not(
    database: Database, tables: JournalTables
) -> None:
    with database.writing() as cursor:
        tables.replace_tail(cursor, OURS, 0, entries("ab"), marks("ab"))
    with pytest.raises(ZeroDivisionError), database.writing() as cursor:
        fail_after(tables.replace_tail(cursor, OURS, 2, entries("c", 2), marks("c")))
    with database.writing() as cursor:
        tables.replace_tail(cursor, OURS, 1, entries("x", 1), marks("x"))
    assert database.journalled == {("copies", "entries"): 3, ("copies", "bytes"): 3}


def test_a_damaged_entry_says_whose_it_is(database: Database, tables: JournalTables) -> None:
    with database.writing() as cursor:
        tables.replace_tail(cursor, OURS, 0, entries("a"), marks("a"))
        cursor.execute("UPDATE lines SET parent = 'nonsense'")
    with pytest.raises(StorageError, match="copies: task ours"):
        tables.entries(OURS, 0, 10)
