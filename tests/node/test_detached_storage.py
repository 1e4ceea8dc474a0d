"""The disk of detached tasks: what was said is known after the process is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.core.detached_state import Member
from kowalski.node.database import StorageError
from kowalski.node.storage import open_ledger_storage
from kowalski.protocol.codec import encode
from kowalski.protocol.messages.detached import Delegated
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import digest
from tests.node.core.detached_world import GROUP, TASK
from tests.node.core.ledger_world import OPENED, Coordinator
from tests.protocol.examples import DELEGATION, REF

KEY = (GROUP[0], TASK)
DELEGATED = Delegated(frame=encode(DELEGATION), signature=bytes(64))


def journal(count: int, term: int = 1) -> list[Entry]:
    leading = Coordinator(TASK, term, GROUP[0], 0, "0" * 64)  # type: ignore[arg-type]
    return [leading.write(OPENED) for _ in range(count)]


def a_member(entries: list[Entry], **more: object) -> Member:
    marks = tuple(digest(TASK, entry) for entry in entries)
    return Member(GROUP[0], GROUP, marks=marks, **more)  # type: ignore[arg-type]


def test_votes_and_entries_are_there_after_a_restart(tmp_path: Path) -> None:
    entries = journal(3)
    voted = a_member(entries, term=4, voted_for=GROUP[1], confirmed=3, committed=2, retries=5)
    with open_ledger_storage(tmp_path / "ledger") as ledger:
        ledger.detached.take(KEY, DELEGATED, 100)
        ledger.detached.save(KEY, voted, cut_to=0, entries=entries, contents=[REF])
    with open_ledger_storage(tmp_path / "ledger") as ledger:
        (row,) = ledger.detached.rows()
        assert (row.key, row.delegated, row.received_unix_s) == (KEY, DELEGATED, 100)
        known = (row.term, row.voted_for, row.confirmed, row.committed, row.retries, row.marks)
        assert known == (4, GROUP[1], 3, 2, 5, voted.marks)
        assert ledger.detached.entries(KEY, 1) == entries[1:]
        assert ledger.detached.contents(KEY) == [REF]


def test_entries_that_contradict_a_leader_are_replaced(tmp_path: Path) -> None:
    old, new = journal(3), journal(2, term=2)
    with open_ledger_storage(tmp_path / "ledger") as ledger:
        ledger.detached.take(KEY, DELEGATED, 100)
        ledger.detached.save(KEY, a_member(old), cut_to=0, entries=old)
        ledger.detached.save(KEY, a_member(new), cut_to=0, entries=new)
        assert ledger.detached.entries(KEY, 0) == new


def test_what_is_over_says_since_when_and_goes_as_a_whole(tmp_path: Path) -> None:
    entries = journal(2)
    with open_ledger_storage(tmp_path / "ledger") as ledger:
        ledger.detached.take(KEY, DELEGATED, 100)
        ledger.detached.save(KEY, a_member(entries), cut_to=0, entries=entries, contents=[REF])
        ledger.detached.end(KEY, 200)
        ledger.detached.end(KEY, 300)
        assert [row.ended_unix_s for row in ledger.detached.rows()] == [200]
        ledger.detached.delete(KEY)
        assert (ledger.detached.rows(), ledger.detached.entries(KEY, 0)) == ([], [])


def test_a_name_is_delegated_once(tmp_path: Path) -> None:
    with open_ledger_storage(tmp_path / "ledger") as ledger:
        ledger.detached.take(KEY, DELEGATED, 100)
        with pytest.raises(StorageError):
            ledger.detached.take(KEY, DELEGATED, 101)
