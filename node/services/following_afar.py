"""Following a task at another peer: what it shows us, over one conversation after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

from kowalski.mesh.mesh import Mesh
from kowalski.node.core.task_ledger import Task, TaskState
from kowalski.node.services.following import OnSeen
from kowalski.node.services.onlookers import Seen
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import watching as wire

PROTOCOL = "/kowalski/tasks/1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task is: whom to ask for it, and whose it is."""

    holder: PeerId
    submitter: PeerId
    task: TaskId


class Watching:
    """One task as it stood when it was last shown to us."""

    def __init__(self, place: Place, unix_clock: Callable[[], float]) -> None:
        self.place = place
        self._unix_clock = unix_clock
        self._task: Task | None = None

    @property
    def is_open(self) -> bool:
        return self._task is not None

    @property
    def entries(self) -> int:
        return self._task.entries if self._task else 0

    def seen_lost(self, holder: str) -> Seen:
        assert self._task is not None
        words = f"{holder} cannot be reached; the task goes on without it"
        return Seen(replace(self._task, state="waiting", why_waiting=words))

    async def watch(self, mesh: Mesh, asked: wire.WatchAsked, on_seen: OnSeen) -> Task:
        """Until the other side has said its last; the task as it is then."""
        async with mesh.converse(self.place.holder, PROTOCOL, asked) as conversation:
            opened = await conversation.receive()
            if not isinstance(opened, wire.WatchOpened):
                raise RemoteProtocolError(f"{opened.KIND} in answer to {asked.KIND}")
            self._open(opened)
            while True:
                seen = await conversation.receive()
                if not isinstance(seen, wire.WatchSeen):
                    raise RemoteProtocolError(f"{seen.KIND} from one who shows a task")
                task = await self._take(seen, on_seen)
                if task.is_over or (not asked.is_following and not seen.entries):
                    return task

    def _open(self, opened: wire.WatchOpened) -> None:
        if self._task is None:
            submitted = int(self._unix_clock() - opened.age_s)
            self._task = Task(opened.task, opened.spec, submitted_unix_s=submitted)

    async def _take(self, seen: wire.WatchSeen, on_seen: OnSeen) -> Task:
        assert self._task is not None
        task = self._task = replace(
            self._task,
            state=state_of(seen.state),
            term=seen.term,
            coordinator=seen.coordinator,
            why_waiting=seen.why,
            answer=seen.answer,
        )
        for entry in seen.entries:
            if entry.index != task.entries:
                raise RemoteProtocolError(f"entry {entry.index} where {task.entries} was due")
            task = self._task = replace(task, entries=task.entries + 1)
            await on_seen(Seen(task, entry))
        if seen.progress is not None or not seen.entries:
            await on_seen(Seen(task, progress=seen.progress))
        return task


def state_of(word: str) -> TaskState:
    """A state that we do not know is one of a newer peer: as long as it is open, it runs."""
    return word if word in get_args(TaskState) else "running"  # type: ignore[return-value]
