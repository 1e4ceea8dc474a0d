"""The disk of copies: what was kept is there after a kill, cut and appended as decided."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from kowalski.node.copy_storage import CopyStorage, open_copy_storage
from kowalski.node.core.copy_desk import Copy, CopyDesk, Keep, Offer, hear_offer
from kowalski.node.core.fences import TaskKey
from kowalski.node.database import StorageError
from kowalski.protocol.codec import encode
from kowalski.protocol.ids import ContentHash, PeerId, TaskId, content_hash
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.journal import CancelHeard
from kowalski.protocol.messages.repl import Input
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import GENESIS, digest

TASK = TaskId("task")
KEY: TaskKey = (PeerId("12D3KooWsubmitter"), TASK)
REF = ContentRef(hash=content_hash(b"a"), bytes_total=1, holders=(PeerId("12D3KooWabcdefgh"),))
INPUTS = (Input(name="a.txt", content=REF),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "copies.sqlite"


@pytest.fixture
def storage(path: Path) -> Iterator[CopyStorage]:
    with open_copy_storage(path) as opened:
        yield opened


def chain(words: str, *, start: int = 0, parent: ContentHash = GENESIS) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for at, word in enumerate(words):
        body = encode(CancelHeard(reason=word))
        entries.append(Entry(term=1, index=start + at, parent=parent, body=body))
        parent = digest(TASK, entries[-1])
    return tuple(entries)


def keep(
    storage: CopyStorage, desk: CopyDesk, entries: tuple[Entry, ...], key: TaskKey = KEY
) -> CopyDesk:
    offer = Offer(key, 1, entries[0].index, entries[0].parent, entries, INPUTS)
    desk, decision = hear_offer(desk, offer, 10.0)
    assert isinstance(decision, Keep)
    storage.keep(decision, [REF])
    return desk


def by_key(copies: list[Copy]) -> dict[TaskKey, Copy]:
    return {copy.key: copy for copy in copies}


def test_what_was_kept_comes_back_as_the_desk_knew_it(path: Path) -> None:
    with open_copy_storage(path) as storage:
        desk = keep(storage, CopyDesk(), chain("abc"))
        desk = keep(storage, desk, chain("x"), (KEY[0], TaskId("other")))
    with open_copy_storage(path) as storage:
        assert by_key(storage.copies()) == desk.copies
        assert storage.entries(KEY, 1) == list(chain("abc")[1:])
        assert storage.entries(KEY, 0, 2) == list(chain("abc")[:2])
        assert storage.contents(KEY) == [REF]


def test_the_end_of_a_copy_is_replaced_as_decided(storage: CopyStorage) -> None:
    desk = keep(storage, CopyDesk(), chain("abc"))
    first = chain("abc")[0]
    other = chain("xy", start=1, parent=digest(TASK, first))
    desk = keep(storage, desk, other)
    assert storage.entries(KEY, 0) == [first, *other]
    assert by_key(storage.copies()) == desk.copies


def test_what_is_dropped_is_gone_with_all_that_belongs_to_it(storage: CopyStorage) -> None:
    keep(storage, CopyDesk(), chain("abc"))
    storage.drop([KEY])
    assert storage.copies() == []
    assert storage.entries(KEY, 0) == []
    assert storage.contents(KEY) == []


def test_a_copy_whose_row_is_damaged_is_left_out_and_the_others_are_not(
    storage: CopyStorage,
) -> None:
    desk = keep(storage, CopyDesk(), chain("abc"))
    keep(storage, desk, chain("x"), (KEY[0], TaskId("other")))
    with storage._database.writing() as cursor:
        cursor.execute("UPDATE copies SET inputs = '[7]' WHERE task = 'other'")
    assert [copy.key for copy in storage.copies()] == [KEY]


def test_a_disk_that_refuses_says_so_and_nothing_of_it_is_there(storage: CopyStorage) -> None:
    desk = keep(storage, CopyDesk(), chain("abc"))
    storage._database._connection.execute("PRAGMA query_only = ON")
    more = chain("d", start=3, parent=digest(TASK, chain("abc")[-1]))
    with pytest.raises(StorageError):
        keep(storage, desk, more)
    assert len(storage.entries(KEY, 0)) == 3


def test_writes_do_not_wait_for_the_disk_itself(path: Path) -> None:
    with open_copy_storage(path) as storage:
        assert storage._database.read("PRAGMA synchronous") == [(1,)]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
