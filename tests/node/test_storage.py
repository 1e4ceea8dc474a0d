"""The ledger's disk: what was acknowledged is there again, whatever happened to the process."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from kowalski.node.core.task_ledger import Task
from kowalski.node.storage import (
    MIGRATIONS,
    LedgerStorage,
    StorageError,
    open_ledger_storage,
)
from kowalski.protocol import codec
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import PeerId, TaskId, content_hash
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.journal import Closed
from kowalski.protocol.messages.repl import Input
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.journal import check_chain
from tests.node.ledger_writer import TASK, fresh_task, next_of

WRITER = Path(__file__).with_name("ledger_writer.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.sqlite"


@pytest.fixture
def storage(path: Path) -> Iterator[LedgerStorage]:
    with open_ledger_storage(path) as opened:
        yield opened


def reopened(path: Path) -> list[Task]:
    with open_ledger_storage(path) as storage:
        return storage.tasks()


def append(storage: LedgerStorage, task: Task) -> Task:
    after, entry = next_of(task)
    storage.append(after, entry, after.last_digest)
    return after


# --- round trips --------------------------------------------------------------------------------

FULL_SPEC = TaskSpec(
    prompt="prompt with \N{SNOWMAN} and\r\nlines",
    mode="rlm",
    model="qwen3:8b",
    inputs=(
        Input(
            name="a.txt",
            content=ContentRef(
                hash=content_hash(b"a"), bytes_total=1, holders=(PeerId("12D3KooWabcdefgh"),)
            ),
        ),
    ),
    max_iterations=7,
    cell_timeout_s=1.5,
    timeout_s=0.1,
    seed=2**53,
)
CLOSED = Closed(outcome="answered", answer="42", full=None, detail="extracted: so")


@pytest.mark.parametrize(
    "task",
    [
        Task(TaskId("t"), FULL_SPEC, 1_800_000_000),
        Task(TaskId("t"), FULL_SPEC, 1, state="running", term=3),
        Task(TaskId("t"), FULL_SPEC, 1, state="running", term=3, cancel_reason="enough"),
        Task(TaskId("t"), FULL_SPEC, 1, state="answered", term=16, answer=CLOSED),
        Task(TaskId("t"), FULL_SPEC, 1, state="failed", term=2**40, answer=CLOSED),
    ],
    ids=["waiting", "running", "cancel asked", "answered", "failed"],
)
def test_a_task_comes_back_as_it_was_saved(path: Path, task: Task) -> None:
    with open_ledger_storage(path) as storage:
        storage.save(task)
    assert reopened(path) == [task]


def test_the_coordinator_of_a_running_task_does_not_come_back(storage: LedgerStorage) -> None:
    task = Task(
        TaskId("t"), FULL_SPEC, 1, state="running", term=1, coordinator=PeerId("12D3KooWabcdefgh")
    )
    storage.save(task)
    assert storage.tasks() == [replace(task, coordinator=None)]


def test_entries_come_back_in_order_with_the_digests_that_the_task_knows(path: Path) -> None:
    with open_ledger_storage(path) as storage:
        task = fresh_task()
        storage.save(task)
        for _ in range(25):
            task = append(storage, task)
    assert reopened(path) == [task]
    with open_ledger_storage(path) as storage:
        entries = storage.entries(TASK)
        assert check_chain(TASK, entries) == task.last_digest
        assert storage.entries(TASK, 10, 5) == entries[10:15]
        assert storage.entries(TASK, 25) == []
        assert storage.entries(TaskId("other")) == []


def test_tasks_come_back_oldest_first(storage: LedgerStorage) -> None:
    for name, at in (("b", 2), ("c", 1), ("a", 2)):
        storage.save(Task(TaskId(name), FULL_SPEC, at))
    assert [task.id for task in storage.tasks()] == ["c", "a", "b"]


def test_what_was_asked_never_changes(storage: LedgerStorage) -> None:
    first = fresh_task()
    storage.save(first)
    storage.save(replace(first, spec=FULL_SPEC, submitted_unix_s=5, term=1))
    assert storage.tasks() == [replace(first, term=1)]


def test_an_entry_twice_is_refused_and_changes_nothing(storage: LedgerStorage) -> None:
    storage.save(fresh_task())
    task, entry = next_of(fresh_task())
    storage.append(task, entry, task.last_digest)
    with pytest.raises(StorageError):
        storage.append(replace(task, term=9), entry, task.last_digest)
    assert storage.tasks() == [task]


def test_an_entry_whose_row_cannot_be_written_is_not_there_either(storage: LedgerStorage) -> None:
    storage.save(fresh_task())
    task, entry = next_of(fresh_task())
    no_row = replace(task, state=None)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="NOT NULL"):
        storage.append(no_row, entry, task.last_digest)
    assert storage.entries(TASK) == []
    storage.append(task, entry, task.last_digest)
    assert storage.tasks() == [task]


def test_writes_wait_for_the_disk_itself(storage: LedgerStorage) -> None:
    """What a power cut would show."""
    settings = {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}
    for name, value in settings.items():
        assert storage._database._connection.execute(f"PRAGMA {name}").fetchone() == (value,)


# --- other ends than a clean one ----------------------------------------------------------------


def start_writer(path: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(path), *map(str, arguments)]
    root = str(WRITER.parents[2])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )


@pytest.mark.parametrize("acknowledged", [0, 1, 7, 40])
def test_what_was_acknowledged_survives_a_kill(path: Path, acknowledged: int) -> None:
    with start_writer(path, 100_000) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= acknowledged:
                break
        writer.kill()
        last = max([acknowledged, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    (task,) = reopened(path)
    assert task.entries >= last
    assert task.entries - last <= 1, "at most the one that was being written"
    assert task.term == task.entries, "the row and its last entry were written together"
    with open_ledger_storage(path) as storage:
        assert check_chain(TASK, storage.entries(TASK)) == task.last_digest


def test_the_files_as_they_are_between_any_two_writes_hold_all_that_was_written(
    path: Path, tmp_path: Path
) -> None:
    with open_ledger_storage(path) as storage:
        task = fresh_task()
        storage.save(task)
        for number in range(30):
            copy = shutil.copytree(path.parent, tmp_path / f"copy-{number}")
            assert reopened(copy / path.name) == [task]
            task = append(storage, task)


def test_a_torn_last_write_is_as_if_it_had_never_begun(path: Path, tmp_path: Path) -> None:
    with open_ledger_storage(path) as storage:
        storage.save(fresh_task())
        first = append(storage, fresh_task())
        wal = path.with_name(f"{path.name}-wal")
        size = wal.stat().st_size
        second = append(storage, first)
        grown = wal.stat().st_size - size
        for cut in range(1, grown, grown // 7):
            copy = shutil.copytree(path.parent, tmp_path / f"torn-{cut}")
            with (copy / wal.name).open("r+b") as file:
                file.truncate(size + grown - cut)
            assert reopened(copy / path.name) == [first]
        assert storage.tasks() == [second]


def test_when_the_disk_is_full_writes_fail_typed_and_go_on_once_there_is_room(path: Path) -> None:
    with start_writer(path, 60, 100_000) as writer:
        assert writer.stdout is not None
        lines = writer.stdout.read().split("\n")
    assert writer.returncode == 0
    refused = [line for line in lines if line.startswith("full ")]
    assert len(refused) == 1
    at = lines.index(refused[0])
    assert 1 < at < 60
    assert lines[at + 1] == str(int(lines[at - 1]) + 1), "the same entry, again"
    (task,) = reopened(path)
    assert task.entries == 60


def test_nothing_of_a_write_that_failed_is_there(storage: LedgerStorage) -> None:
    storage.save(fresh_task())
    storage._database._connection.execute("PRAGMA max_page_count = 1")
    task = fresh_task()
    with suppress(StorageError):
        while task.entries < 1000:
            task = append(storage, task)
    with pytest.raises(StorageError, match="full"):
        append(storage, task)
    assert storage.tasks() == [task]
    storage._database._connection.execute("PRAGMA max_page_count = 1000000")
    assert append(storage, task).entries == task.entries + 1


def test_a_closed_ledger_says_so_typed(path: Path) -> None:
    with open_ledger_storage(path) as storage:
        pass
    with pytest.raises(StorageError):
        storage.save(fresh_task())
    with pytest.raises(StorageError):
        storage.entries(TASK)


# --- files that will not do ---------------------------------------------------------------------


def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    with open_ledger_storage(path) as storage:
        storage.save(fresh_task())
        storage._database._connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="newer kowalski-node"), open_ledger_storage(path):
        pass
    assert path.read_bytes() == before


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"shopping list\n" * 100)
    complaint = r"ledger\.sqlite: file is not a database"
    with pytest.raises(ConfigError, match=complaint), open_ledger_storage(path):
        pass
    assert path.read_bytes().startswith(b"shopping list")


def test_a_damaged_row_is_named(path: Path) -> None:
    with open_ledger_storage(path) as storage:
        storage.save(fresh_task())
        with storage._database._connection as connection:
            connection.execute("UPDATE tasks SET spec = '{}'")
        with pytest.raises(ConfigError, match="task task is damaged"):
            storage.tasks()


def test_a_damaged_page_is_the_operators_to_hear_of(path: Path) -> None:
    with open_ledger_storage(path) as storage:
        task = fresh_task()
        storage.save(task)
        for _ in range(50):
            task = append(storage, task)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="malformed"), open_ledger_storage(path) as storage:
        storage.tasks()


def test_a_folder_that_cannot_be_made_is_the_operators_to_hear_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    inside = tmp_path / "file" / "ledger.sqlite"
    with pytest.raises(ConfigError, match="file"), open_ledger_storage(inside):
        pass


def test_a_folder_that_may_only_be_read_is_the_operators_to_hear_of(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    # Root may write wherever files are written at all.
    path = (tmp_path if os.geteuid() else Path("/proc")) / "ledger.sqlite"
    with pytest.raises(ConfigError, match="unable to open"), open_ledger_storage(path):
        pass


def test_a_file_that_may_only_be_read_refuses_writes_typed(path: Path) -> None:
    with open_ledger_storage(path) as storage:
        storage.save(fresh_task())
        storage._database._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(StorageError, match="readonly"):
            storage.save(replace(fresh_task(), term=1))
        assert storage.tasks() == [fresh_task()]


def test_errors_of_those_who_use_the_ledger_stay_their_own(path: Path) -> None:
    with pytest.raises(OSError, match="port in use"), open_ledger_storage(path):
        raise OSError("port in use")
    with pytest.raises(sqlite3.Error, match="other"), open_ledger_storage(path):
        raise sqlite3.Error("other")


def test_the_folder_is_open_to_nobody_else(path: Path) -> None:
    with open_ledger_storage(path):
        assert path.parent.stat().st_mode & 0o077 == 0


# --- what is looked up --------------------------------------------------------------------------


def test_tasks_are_looked_up_by_name_by_being_open_and_by_being_the_latest(
    storage: LedgerStorage,
) -> None:
    for number, name in enumerate("abcd"):
        task = Task(TaskId(name), FULL_SPEC, number)
        over = replace(task, state="answered", answer=CLOSED)
        storage.save(over if name in "bd" else task)
    assert [task.id for task in storage.open_tasks()] == ["a", "c"]
    assert [task.id for task in storage.latest(2)] == ["d", "c"]
    found = storage.task(TaskId("b"))
    assert found is not None
    assert found.state == "answered"
    assert storage.task(TaskId("x")) is None


def test_who_asked_who_held_and_how_often_it_was_lost_come_back(storage: LedgerStorage) -> None:
    task = replace(
        fresh_task(),
        client="a key",
        retries=3,
        holders=(PeerId("12D3KooWabcdefgh"), PeerId("12D3KooWabcdefgi")),
    )
    storage.save(task)
    assert storage.tasks() == [task]


def test_what_tasks_refer_to_is_known_as_long_as_they_are(storage: LedgerStorage) -> None:
    inputs = [one.content for one in FULL_SPEC.inputs]
    task = replace(fresh_task(), spec=FULL_SPEC)
    storage.save(task)
    assert storage.contents() == {TASK: inputs}
    after, entry = next_of(task)
    output = ContentRef(hash=content_hash(b"output"), bytes_total=6)
    storage.append(after, entry, after.last_digest, [output])
    assert sorted(ref.hash for ref in storage.contents()[TASK]) == sorted(
        ref.hash for ref in [*inputs, output]
    )
    storage.delete([TASK])
    assert storage.contents() == {}
    assert storage.tasks() == []
    assert storage.entries(TASK) == []


def test_ended_tasks_are_told_with_when_they_ended_and_what_they_weigh(path: Path) -> None:
    now = [100.0]
    with open_ledger_storage(path, unix_clock=lambda: now[0]) as storage:
        task = append_to_new(storage, "one")
        storage.save(replace(task, state="answered", answer=CLOSED))
        append_to_new(storage, "open")
        now[0] = 200.0
        storage.save(replace(task, state="answered", answer=CLOSED, term=9))
        (ended,) = storage.ended()
        assert (ended.task, ended.unix_s) == ("one", 100.0)
        body = len(storage.entries(TaskId("one"))[0].body)
        spec = len(task.spec.model_dump_json(exclude_defaults=True))
        assert ended.size_bytes == body + spec


def test_a_task_and_its_past_are_there_together_or_not_at_all(storage: LedgerStorage) -> None:
    first, entry = next_of(fresh_task())
    second, other = next_of(first)
    task = replace(second, term=1, state="waiting")
    storage.save_with_past(task, [entry, other], [])
    assert storage.tasks() == [task]
    with pytest.raises(StorageError, match="UNIQUE"):
        storage.save_with_past(replace(task, term=9), [entry, other], [])
    assert storage.tasks() == [task]
    broken = replace(task, id=TaskId("b"), digests=(task.digests[0], None))  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="NOT NULL"):
        storage.save_with_past(broken, [entry, other], [])
    assert storage.task(TaskId("b")) is None


def append_to_new(storage: LedgerStorage, name: str) -> Task:
    task = replace(fresh_task(), id=TaskId(name))
    storage.save(task)
    after, entry = next_of(task)
    after = replace(after, id=TaskId(name))
    storage.append(after, entry, after.last_digest)
    return after


# --- ledgers of earlier versions ----------------------------------------------------------------


def test_a_ledger_of_the_first_version_comes_along_with_all_it_holds(path: Path) -> None:
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.executescript(f"{MIGRATIONS[0]} PRAGMA user_version = 1;")
    spec = FULL_SPEC.model_dump_json(exclude_none=True)
    over = codec.encode(CLOSED)
    old.execute("INSERT INTO tasks VALUES ('a', ?, 1, 'running', 2, 'x', NULL, NULL)", (spec,))
    old.execute("INSERT INTO tasks VALUES ('b', ?, 2, 'answered', 3, 'x', NULL, ?)", (spec, over))
    task, entry = next_of(replace(fresh_task(), id=TaskId("a")))
    old.execute(
        "INSERT INTO entries VALUES ('a', 0, 1, ?, ?, ?)",
        (entry.parent, task.last_digest, entry.body),
    )
    old.commit()
    old.close()
    with open_ledger_storage(path) as storage:
        one, other = storage.tasks()
        assert (one.state, one.term, one.digests) == ("running", 2, task.digests)
        assert (one.client, one.retries, one.holders) == ("", 0, ())
        assert (other.state, other.answer) == ("answered", CLOSED)
        (ended,) = storage.ended()
        assert ended.task == "b"
        assert ended.unix_s > 1_700_000_000, "as if it had ended now: it is kept for its time"
