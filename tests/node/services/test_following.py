"""Following a task where it is kept: every entry once, in order, however it becomes visible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trio

from kowalski.node.core.task_ledger import Task
from kowalski.node.services.following import follow_here, unheeded
from kowalski.node.services.onlookers import Onlookers, Seen
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.task import Entry, TaskSpec
from tests.node.core.ledger_world import OPENED, Coordinator, closed

pytestmark = pytest.mark.trio

NAME = TaskId("t")


class Shelf:
    """A keeper of one task that tests write to; `is_telling` is off where news is lost."""

    def __init__(self) -> None:
        spec = TaskSpec(prompt="x", max_iterations=1, timeout_s=5.0)
        self.task = Task(NAME, spec, 0, state="running")
        self.onlookers = Onlookers()
        self.kept: list[Entry] = []
        self.is_telling = True
        self._leading = Coordinator(NAME, 1, PeerId("12D3KooWsomebody"), 0, self.task.last_digest)

    def write(self, *, ends: bool = False) -> None:
        event = closed() if ends else OPENED
        entry = self._leading.write(event)
        self.kept.append(entry)
        self.task = replace(self.task, entries=len(self.kept))
        if ends:
            self.task = replace(self.task, state="answered", answer=closed())
        if self.is_telling:
            self.onlookers.show(Seen(self.task, entry))

    def find(self, _task: TaskId) -> Task:
        return self.task

    def entries(self, _task: TaskId, start: int = 0) -> list[Entry]:
        return self.kept[start:]

    @contextmanager
    def watch(self, task: TaskId) -> Iterator[trio.MemoryReceiveChannel[Seen]]:
        with self.onlookers.watch(task) as seen:
            yield seen


async def test_what_is_there_and_what_comes_is_told_once_and_in_order(
    autojump_clock: object,
) -> None:
    shelf, told = Shelf(), list[int]()

    async def on_seen(seen: Seen) -> None:
        await trio.lowlevel.checkpoint()
        if seen.entry is not None:
            told.append(seen.entry.index)

    shelf.write()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_here, shelf, NAME, 0, on_seen)
        await trio.sleep(1)
        shelf.write()
        shelf.is_telling = False
        shelf.write()
        shelf.is_telling = True
        shelf.write(ends=True)
    assert told == [0, 1, 2, 3], "one that nobody was told of comes before the next"


async def test_what_is_over_ends_at_once(autojump_clock: object) -> None:
    shelf = Shelf()
    shelf.write(ends=True)
    with trio.fail_after(1):
        assert (await follow_here(shelf, NAME, 0, unheeded)).state == "answered"
