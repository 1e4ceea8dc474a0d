"""The verbs that say why: what a task's choices were made from, and what they would be now."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.mesh import Mesh
from kowalski.node import control_messages as asked
from kowalski.node.control import Emit, Verb
from kowalski.node.control_line import ExitCode
from kowalski.node.core.explanations import appointment_told, need_in_words
from kowalski.node.services.dry_run import ALL_FULL, rehearse
from kowalski.node.services.explaining import By, Explaining, Explanation
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.node.task_verbs import TaskVerbs
from kowalski.node.task_view import NOBODY_CAN, TaskView
from kowalski.protocol import ids
from kowalski.protocol.messages.explaining import AppointmentTold
from kowalski.rlm.opening import CannotOpen

Reply = dict[str, object]

LATEST = 20
"""Choices that are told where no task is named."""


class ExplainVerbs:
    def __init__(
        self,
        mesh: Mesh,
        *,
        store: ContentStore,
        work: PlacedWork,
        submitter: SubmitterRoom,
        tasks: TaskVerbs,
        unix_clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._store = store
        self._work = work
        self._submitter = submitter
        self._tasks = tasks
        self._unix_clock = unix_clock
        self._explaining = Explaining(mesh, work.placing.dispatch, submitter)

    def offered(self) -> Mapping[str, Verb]:
        return {"explain": self.explain, "dry_run": self.dry_run}

    async def explain(self, raw: Reply, _emit: Emit) -> Reply:
        """Why a task went where it did; without one, the last choices of this node."""
        request = asked.parse(asked.ExplainRequest, raw)
        if request.task is None:
            await trio.lowlevel.checkpoint()
            return self._reasons(self._explaining.latest(LATEST))
        place, task, entries = await self._tasks.look(request.task)
        found = await self._explaining.explain(
            place.task, place.submitter, place.holder, task.coordinator
        )
        name_of = self._mesh.name_of
        view = TaskView(name_of)
        view.read(entries)
        return {
            "task": task.id,
            "state": task.state,
            "submitter": place.submitter,
            "submitter_name": name_of(place.submitter),
            "term": task.term,
            "coordinator": task.coordinator,
            "coordinator_name": name_of(task.coordinator) if task.coordinator else None,
            "ran": list(view.ran.values()),
            **self._reasons(found),
        }

    async def dry_run(self, raw: Reply, _emit: Emit) -> Reply:
        """Where a task would go if it were submitted now. Nothing is begun, no place is held."""
        request = asked.parse(asked.DryRunRequest, raw)
        spec = await self._tasks.keep_spec(request)
        entropy = secrets.token_bytes(10)
        name = request.task_id or ids.task_id(int(self._unix_clock() * 1000), entropy)
        would = await rehearse(
            name,
            spec,
            mesh=self._mesh,
            store=self._store,
            work=self._work,
            submitter=self._submitter,
        )
        found = Explanation(decisions=[By(would.seen_by, one) for one in would.decisions])
        if would.appointment is not None:
            now, name_of = trio.current_time(), self._mesh.name_of
            found.appointments.append(appointment_told(name, would.appointment, now, name_of))
        opened, no = would.opened, would.obstacle
        return {
            "task": name,
            "is_named": request.task_id is not None,
            "mode": opened.mode if opened else spec.mode,
            "model": opened.model if opened else spec.model,
            "why": opened.why if opened else "",
            "obstacle": {"code": no.code, "detail": no.detail} if no else None,
            "exit_code": _exit_code(no),
            "seen_by": would.seen_by,
            "seen_by_name": self._mesh.name_of(would.seen_by),
            "seen_here_because": would.instead,
            **self._reasons(found),
        }

    def _reasons(self, found: Explanation) -> Reply:
        terms = sorted(found.appointments, key=lambda one: one.term)
        return {
            "appointments": [self._appointment(one) for one in terms],
            "decisions": [self._decision(one) for one in found.in_order()],
            "unknown": [
                {"peer": peer, "name": self._mesh.name_of(peer), "why": why}
                for peer, why in found.silent.items()
            ],
            "forgotten": [
                {"peer": peer, "name": self._mesh.name_of(peer), "count": count}
                for peer, count in found.forgotten.items()
            ],
        }

    def _appointment(self, told: AppointmentTold) -> Reply:
        total = sum(one.weight for one in told.candidates if not one.is_excluded)
        said = told.model_dump(mode="json", exclude_none=True)
        for row, one in zip(said["candidates"], told.candidates, strict=True):
            row["share"] = 0.0 if one.is_excluded or not total else one.weight / total
        return {**said, "name": self._mesh.name_of(told.chosen)}

    def _decision(self, by: By) -> Reply:
        told, name_of = by.told, self._mesh.name_of
        said = told.model_dump(mode="json", exclude_none=True, exclude={"candidates"})
        return {
            "wanted": need_in_words(told.kind, told.language, told.model),
            "by": by.peer,
            "by_name": name_of(by.peer),
            "name": name_of(told.chosen) if told.chosen else None,
            **said,
            # Of who could not, there is nothing to be recomputed.
            "candidates": [
                one.model_dump(mode="json", exclude_none=True, exclude_defaults=one.score is None)
                for one in told.candidates
            ],
        }


def _exit_code(obstacle: CannotOpen | None) -> ExitCode:
    """What `submit` would end with, as far as it can be told."""
    if obstacle is None:
        return ExitCode.OK
    has_nobody = obstacle.code in NOBODY_CAN or obstacle.code == ALL_FULL
    return ExitCode.NO_CAPACITY if has_nobody else ExitCode.FAILED
