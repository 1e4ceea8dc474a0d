"""Those who look at tasks while they happen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from kowalski.node.core.task_ledger import Task
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import task as wire

WATCHED_MAX = 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """What an onlooker sees: the task as it is, and an entry or progress that is new."""

    task: Task
    entry: wire.Entry | None = None
    progress: wire.Progress | None = None


class Onlookers:
    def __init__(self) -> None:
        self._onlookers: dict[TaskId, list[trio.MemorySendChannel[Seen]]] = {}

    @contextmanager
    def watch(self, task: TaskId) -> Iterator[trio.MemoryReceiveChannel[Seen]]:
        """See everything that becomes visible from now on.

        A slow onlooker misses progress; the channel of one that reads nothing ends early.
        """
        seen_in, seen = trio.open_memory_channel[Seen](WATCHED_MAX)
        onlookers = self._onlookers.setdefault(task, [])
        onlookers.append(seen_in)
        try:
            yield seen
        finally:
            if seen_in in onlookers:
                onlookers.remove(seen_in)
            if not onlookers and self._onlookers.get(task) is onlookers:
                del self._onlookers[task]
            seen.close()

    def show(self, seen: Seen) -> None:
        for onlooker in tuple(self._onlookers.get(seen.task.id, ())):
            is_nearly_full = onlooker.statistics().current_buffer_used > WATCHED_MAX // 2
            if seen.progress is not None and is_nearly_full:
                continue
            try:
                onlooker.send_nowait(seen)
            except trio.WouldBlock:
                onlooker.close()  # it reads nothing; it may look again
                self._onlookers[seen.task.id].remove(onlooker)
