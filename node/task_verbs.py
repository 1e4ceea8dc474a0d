"""The verbs about tasks: to submit one here, and to look at and steer any of the mesh."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.mesh import Mesh
from kowalski.node import control_messages as asked
from kowalski.node.control import Emit
from kowalski.node.core.task_ledger import Task
from kowalski.node.mesh_verbs import find_peer
from kowalski.node.plain_files import check_is_plain
from kowalski.node.services.following import follow_here
from kowalski.node.services.following_afar import Place
from kowalski.node.services.mesh_tasks import MeshTasks
from kowalski.node.services.submitter import Seen, SubmitterRoom
from kowalski.node.task_request import check, spec_of
from kowalski.node.task_view import Event, TaskView, headline, headline_elsewhere, journal_lines
from kowalski.protocol import ids
from kowalski.protocol.errors import ConfigError, PeerUnreachableError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.detached import GROUP_SIZE
from kowalski.protocol.messages.repl import Input
from kowalski.protocol.messages.task import Entry, TaskSpec
from kowalski.rlm.journal import event_of
from kowalski.rlm.trajectory import as_text, trajectory

Reply = dict[str, object]


class TaskVerbs:
    def __init__(
        self,
        mesh: Mesh,
        submitter: SubmitterRoom,
        tasks: MeshTasks,
        store: ContentStore,
        unix_clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._submitter = submitter
        self._tasks = tasks
        self._store = store
        self._unix_clock = unix_clock

    # --- looking --------------------------------------------------------------------------------

    async def tasks(self, raw: Reply, _emit: Emit) -> Reply:
        """Those that were submitted here, and those that others have announced."""
        request = asked.parse(asked.TasksRequest, raw)
        await trio.lowlevel.checkpoint()
        now, name_of = self._unix_clock(), self._mesh.name_of
        ours = self._submitter.latest(request.limit)
        rows = [headline(task, name_of, now, submitter=self._mesh.me) for task in ours]
        rows += [
            headline(one.find(one.key[1]), name_of, now, submitter=one.key[0])
            for one in self._tasks.detached_here()
        ]
        rows += [headline_elsewhere(one, name_of) for one in self._tasks.elsewhere()]
        rows.sort(key=lambda row: float(str(row["submitted_s_ago"])))
        return {"tasks": rows[: request.limit]}

    async def task(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.TaskRequest, raw)
        place, task, entries = await self.look(request.task)
        row = headline(task, self._mesh.name_of, self._unix_clock(), submitter=place.submitter)
        return {**row, **await self._result(task, entries)}

    async def trace(self, raw: Reply, emit: Emit) -> Reply:
        """The journal, entry by entry, and what the ledger did about the task."""
        request = asked.parse(asked.TraceRequest, raw)
        place, task, entries = await self.look(request.task)
        if request.as_trajectory:
            for line in trajectory(task.spec, [event_of(entry) for entry in entries]):
                await emit({"kind": "line", "text": as_text(line)})
            return {"task": task.id, "state": task.state}
        return {
            "task": task.id,
            "state": task.state,
            "submitter": place.submitter,
            "submitter_name": self._mesh.name_of(place.submitter),
            "journal": journal_lines(task.id, entries, self._mesh.name_of),
            "ledger": list(await self._tasks.trace(place)),
        }

    # --- submitting and following ---------------------------------------------------------------

    async def submit(self, raw: Reply, emit: Emit) -> Reply:
        """Take a task in, and follow it; hanging up leaves it going."""
        request = asked.parse(asked.SubmitRequest, raw)
        spec = await self.keep_spec(request)
        entropy = secrets.token_bytes(10)
        name = request.task_id or ids.task_id(int(self._unix_clock() * 1000), entropy)
        if request.detach:
            return await self._detach(name, spec)
        task = self._submitter.submit(name, spec)
        await emit({"kind": "submitted", "task": task.id, "mode": spec.mode})
        if not request.follow:
            return {"task": task.id, "state": task.state}
        told = task.entries  # of a task that was here already: its past is not news
        view = self._view(self._submitter.entries(name)[:told])
        ended = await follow_here(self._submitter, name, told, _emitting(view, emit))
        return await self._result(ended, self._submitter.entries(name))

    async def _detach(self, name: TaskId, spec: TaskSpec) -> Reply:
        """Pass it on to three peers; where there are not so many, keep it here."""
        group = await self._tasks.detach(name, spec)
        if len(group) == GROUP_SIZE:
            names = [self._mesh.name_of(peer) for peer in group]
            return {"task": name, "state": "running", "kept_by": names}
        task = self._submitter.submit(name, spec)
        words = f"{GROUP_SIZE} devices that coordinate are needed to keep it, there are"
        note = f"{words} {len(group)}: it wants this device back for its answer"
        return {"task": task.id, "state": task.state, "kept_by": [], "note": note}

    async def attach(self, raw: Reply, emit: Emit) -> Reply:
        """Follow a task, wherever it was submitted, from its beginning."""
        request = asked.parse(asked.AttachRequest, raw)
        place = await self._find(request.task)
        entries: list[Entry] = []
        tell = _emitting(self._view([]), emit)

        async def on_seen(seen: Seen) -> None:
            if seen.entry is not None:
                entries.append(seen.entry)
            await tell(seen)

        await emit({"kind": "submitted", "task": place.task, "mode": ""})
        task = await self._tasks.follow(place, on_seen)
        return await self._result(task, entries)

    async def cancel(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.CancelRequest, raw)
        place = await self._find(request.task)
        task = await self._tasks.cancel(place, "cancelled by its owner")
        return {"task": task.id, "state": task.state, "answer": await self._answer(task)}

    async def resume(self, raw: Reply, _emit: Emit) -> Reply:
        """Go on with a task that waits, or with what one left that did not end well."""
        request = asked.parse(asked.ResumeRequest, raw)
        place = await self._find(request.task)
        name = await self._tasks.resume(
            place, timeout_s=request.timeout_s, max_iterations=request.max_iterations
        )
        return {"task": name, "resumes": place.task, "is_new": name != place.task}

    async def journal(self, task: str) -> list[Entry]:
        """Raises RequestRefusedError: `unknown`."""
        _, _, entries = await self.look(task)
        return entries

    async def look(self, task: str) -> tuple[Place, Task, list[Entry]]:
        """Where it is, how it stands, its journal. Raises what a conversation raises.

        Raises:
            RequestRefusedError: `unknown`, `ambiguous`.
        """
        place = await self._find(task)
        return place, *await self._tasks.look(place)

    async def _find(self, wanted: str) -> Place:
        """`NAME`, or `NAME@SUBMITTER` where several submitters call theirs so."""
        name, _, whose = wanted.partition("@")
        submitter = find_peer(self._mesh, whose) if whose else None
        return await self._tasks.find(TaskId(name), submitter)

    def _view(self, entries: list[Entry]) -> TaskView:
        view = TaskView(self._mesh.name_of)
        view.read(entries)
        return view

    async def _result(self, task: Task, entries: list[Entry]) -> Reply:
        return self._view(entries).result(task, await self._answer(task))

    async def keep_spec(self, request: asked.SubmitRequest) -> TaskSpec:
        """What a request asks, its files kept here. Raises ConfigError: it cannot be."""
        check(request)
        inputs = [
            Input(name=one.name, content=await self._keep_file(Path(one.path)))
            for one in request.context
        ]
        return spec_of(request, tuple(inputs))

    async def _keep_file(self, path: Path) -> ContentRef:
        try:
            await check_is_plain(path)
            return await self._store.put_file(path)
        except OSError as error:
            raise ConfigError(f"context file {path}: {error.strerror or error}") from error

    async def _answer(self, task: Task) -> str:
        """All of it, wherever it lies."""
        closed = task.answer
        if closed is None or closed.full is None:
            return closed.answer if closed else ""
        try:
            await self._store.fetch(closed.full, self._mesh)
        except (PeerUnreachableError, RequestRefusedError) as lost:
            return f"{closed.answer}\n[the rest cannot be had: {lost}]"
        return (await self._store.read(closed.full)).decode(errors="replace")


def _emitting(view: TaskView, emit: Emit) -> Callable[[Seen], Awaitable[None]]:
    """Tells what is seen of a task as events of the command line."""

    async def on_seen(seen: Seen) -> None:
        shown: list[Event] = list(view.events(seen))
        await trio.lowlevel.checkpoint()
        for event in shown:
            await emit(event)

    return on_seen
