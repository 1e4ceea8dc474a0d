"""Following a task at the node that keeps it, whoever may have submitted it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol

import trio

from kowalski.node.core.task_ledger import Task
from kowalski.node.services.onlookers import Seen
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.task import Entry

OnSeen = Callable[[Seen], Awaitable[None]]


class Keeper(Protocol):
    """What shows a task: the submitter's room, or a detached task that is kept here."""

    def find(self, task: TaskId, /) -> Task: ...
    def entries(self, task: TaskId, /, start: int = 0) -> list[Entry]: ...
    def watch(self, task: TaskId, /) -> AbstractContextManager[trio.MemoryReceiveChannel[Seen]]: ...


async def unheeded(_seen: Seen) -> None:
    await trio.lowlevel.checkpoint()


async def follow_here(submitter: Keeper, task: TaskId, start: int, on_seen: OnSeen) -> Task:
    """Tell what happens to one of our tasks, from entry `start` on, until it is over.

    Every entry is told once and in order, however slowly; of progress some may be left out.
    """
    told = start
    while True:
        with submitter.watch(task) as seen:
            now = submitter.find(task)
            for entry in submitter.entries(task, told):
                await on_seen(Seen(now, entry))
                told += 1
            if (now := submitter.find(task)).is_over and told >= now.entries:
                return now
            async for one in seen:
                if one.entry is not None and one.entry.index < told:
                    continue
                if one.entry is not None and one.entry.index > told:
                    break  # more happened than was kept for us
                told += one.entry is not None
                await on_seen(one)
                if one.task.is_over and told >= one.task.entries:
                    return one.task
