"""A disk that is full, slow, or gone in the middle; and one that is only watched."""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kowalski.node.core.task_ledger import Task
from kowalski.node.storage import StorageError, open_ledger_storage
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.detached import Delegated
from kowalski.protocol.messages.task import TaskSpec
from simulations.disks import Disk, on_disk

TASK = Task(TaskId("task"), TaskSpec(prompt="x", max_iterations=1, timeout_s=1.0), 0)


class Notes:
    def __init__(self) -> None:
        self.stored_: list[tuple[int, str, tuple[object, ...]]] = []
        self.halted = 0
        self.stalled: list[float] = []

    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        self.stored_.append((number, method, arguments))

    def halt(self) -> None:
        self.halted += 1


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def disk(notes: Notes) -> Disk:
    return Disk(7, halt=notes.halt, stall=notes.stalled.append, watchers=[notes])


def saved(tmp_path: Path, disk: Disk) -> list[Task]:
    """What is there after an attempt to save a task."""
    with open_ledger_storage(tmp_path / "ledger.db", unix_clock=lambda: 0.0) as storage:
        try:
            on_disk(storage, disk).save(TASK)
        finally:
            found = storage.tasks()
    return found


def test_the_detached_tasks_of_a_node_are_on_the_same_disk(
    tmp_path: Path, disk: Disk, notes: Notes
) -> None:
    key, delegated = (PeerId("a" * 46), TASK.id), Delegated(frame=b"x", signature=bytes(64))
    with open_ledger_storage(tmp_path / "ledger.db", unix_clock=lambda: 0.0) as storage:
        kept = on_disk(storage, disk).detached
        kept.take(key, delegated, unix_s=7)
        assert notes.stored_ == [(7, "detached.take", (key, delegated, 7))]
        assert [row.key for row in kept.rows()] == [key]
        disk.is_full += 1
        with pytest.raises(StorageError, match="full"):
            kept.delete(key)
        assert [row.key for row in kept.rows()] == [key]


def test_writes_are_watched_and_reads_go_through(tmp_path: Path, disk: Disk, notes: Notes) -> None:
    with open_ledger_storage(tmp_path / "ledger.db", unix_clock=lambda: 0.0) as storage:
        watched = on_disk(storage, disk)
        watched.save(TASK)
        assert [one.id for one in watched.tasks()] == ["task"]
        assert watched.entries(TASK.id) == []
    assert notes.stored_ == [(7, "save", (TASK,))]


def test_a_full_disk_takes_nothing(tmp_path: Path, disk: Disk, notes: Notes) -> None:
    disk.is_full = 1
    with pytest.raises(StorageError, match="full"):
        saved(tmp_path, disk)
    assert not notes.stored_


def test_a_slow_disk_holds_its_node_up(tmp_path: Path, disk: Disk, notes: Notes) -> None:
    disk.slow_s = 2.5
    assert saved(tmp_path, disk)
    assert notes.stalled == [2.5]


@pytest.mark.parametrize(("left", "is_there"), [(0.5, False), (1.0, True)])
def test_a_node_dies_before_its_write_is_there_or_just_after(
    tmp_path: Path, disk: Disk, notes: Notes, left: float, is_there: bool
) -> None:
    disk.writes_left = left
    with pytest.raises(StorageError, match="dead"):
        saved(tmp_path, disk)
    assert notes.halted == 1
    with open_ledger_storage(tmp_path / "ledger.db", unix_clock=lambda: 0.0) as storage:
        assert bool(storage.tasks()) == is_there
        with pytest.raises(StorageError, match="dead"):
            on_disk(storage, disk).save(TASK)
        disk.begin()
        on_disk(storage, disk).save(TASK)


def _write() -> None:
    pass


def read() -> None:
    pass


def test_threads_that_write_meet_it_and_others_do_not(disk: Disk, notes: Notes) -> None:
    disk.is_full = 1
    disk.obstruct(read)
    for writing in (_write, partial(_write)):
        with pytest.raises(OSError, match="no space") as caught:
            disk.obstruct(writing)
        assert caught.value.errno == errno.ENOSPC
    disk.is_full, disk.slow_s = 0, 1.0
    disk.obstruct(_write)
    assert notes.stalled == [1.0]


def test_on_a_disk_with_errors_some_writes_are_refused_and_what_is_refused_is_not_there(
    tmp_path: Path, disk: Disk, notes: Notes
) -> None:
    disk.errors.append(random.Random(1))
    refused: list[str] = []
    with open_ledger_storage(tmp_path / "ledger.db", unix_clock=lambda: 0.0) as storage:
        for number in range(40):
            try:
                on_disk(storage, disk).save(replace(TASK, id=TaskId(f"task-{number}")))
            except StorageError as error:
                refused.append(str(error))
            assert len(storage.tasks()) == len(notes.stored_) == number + 1 - len(refused)
    assert set(refused) == {"simulated: disk I/O error"}
    assert 5 < len(refused) < 35


def test_threads_meet_the_errors_of_a_disk_too(disk: Disk) -> None:
    disk.errors.append(random.Random(1))
    met: list[int | None] = []
    for _ in range(20):
        try:
            disk.obstruct(Path.write_bytes)
        except OSError as error:
            met.append(error.errno)
    assert set(met) == {errno.EIO}
    assert 2 < len(met) < 18
