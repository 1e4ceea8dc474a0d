"""The submitter's book: the only issuer of terms and the only acceptor of entries.

With one consumer of each result there is nothing to agree on: whoever submitted a task appoints
its coordinator, and takes what that one sends if it fits what was taken before. A term is saved
before it is granted, an entry before it is visible (docs/decisions/0004-the-submitter-issues-
terms.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from kowalski.mesh.core import rendezvous
from kowalski.node.core.task_ledger_events import (
    Accept,
    Append,
    CancelAsked,
    CoordinatorDeclined,
    CoordinatorHeard,
    CoordinatorLost,
    Effect,
    EntryHeard,
    Event,
    GrantTerm,
    PassCancel,
    Renew,
    Restored,
    Revoke,
    Save,
    SettledHeard,
    SettleTask,
    Show,
    Submitted,
    Task,
    TaskState,
    TimePassed,
    WeightsChanged,
)
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import Entry, TaskSpec
from kowalski.rlm.journal import digest, event_of

__all__ = [
    "Accept",
    "Append",
    "CancelAsked",
    "CoordinatorDeclined",
    "CoordinatorHeard",
    "CoordinatorLost",
    "Effect",
    "EntryHeard",
    "Event",
    "GrantTerm",
    "Params",
    "PassCancel",
    "Renew",
    "Restored",
    "Revoke",
    "Save",
    "SettleTask",
    "SettledHeard",
    "Show",
    "Submitted",
    "Task",
    "TaskLedger",
    "TaskState",
    "TimePassed",
    "WeightsChanged",
    "check",
    "step",
    "wake_at",
    "why_refused",
]

STANDBYS = 2


@dataclass(frozen=True, slots=True)
class Params:
    """Seconds. The lease is shorter than our patience: a cut-off coordinator stops first."""

    lease_s: float = 3.0
    renewal_s: float = 1.0
    silence_s: float = 4.0
    retry_s: float = 0.5
    busy_s_max: float = 8.0
    """The longest time between two tries at a coordinator that is full."""
    overtime_s: float = 10.0
    """How long after timeout or cancel the coordinator may take to say so."""
    terms_max: int = 16
    """Coordinators tried for one task before it fails."""
    tasks_open_max: int = 1000


@dataclass(frozen=True, slots=True)
class TaskLedger:
    params: Params = field(default_factory=Params)
    weights: Mapping[PeerId, float] = field(default_factory=dict)
    """Peers that may coordinate now, with how much of it they should get."""
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    fenced: int = 0
    """Entries refused because of their term, index or parent, so far."""


Step = tuple[TaskLedger, tuple[Effect, ...]]


def wake_at(state: TaskLedger) -> float:
    return min((_due(state, task) for task in state.tasks.values()), default=inf)


def _due(state: TaskLedger, task: Task) -> float:
    if task.is_over:
        return inf if task.is_settled else task.act_at
    if task.state == "waiting":
        return min(task.act_at, _end_by(state, task))
    return min(task.act_at, task.heard_at + state.params.silence_s, _end_by(state, task))


def _end_by(state: TaskLedger, task: Task) -> float:
    return min(task.deadline_at, task.cancelled_at) + state.params.overtime_s


def step(state: TaskLedger, event: Event, now: float) -> Step:
    match event:
        case Submitted():
            return _submitted(state, event, now)
        case Restored(task=task):
            return _restored(state, task, now)
        case WeightsChanged(weights=weights):
            return _weights_changed(replace(state, weights=weights), now)
        case TimePassed():
            return _time_passed(state, now)
        case _:
            known = state.tasks.get(event.task)
            return (state, ()) if known is None else _about(state, known, event, now)


EventOfTask = (
    CoordinatorHeard
    | EntryHeard
    | CoordinatorLost
    | CoordinatorDeclined
    | CancelAsked
    | SettledHeard
)


def _about(state: TaskLedger, task: Task, event: EventOfTask, now: float) -> Step:
    match event:
        case EntryHeard(entry=entry):
            return _entry_heard(state, task, entry, now)
        case CancelAsked(reason=reason):
            return _cancel_asked(state, task, reason, now)
        case _ if event.term != task.term:
            return state, ()
        case CoordinatorHeard():
            return _put(state, replace(task, heard_at=now, declined=0)), ()
        case CoordinatorLost(why=why):
            return _lost(state, task, why, now)
        case CoordinatorDeclined():
            return (state, ()) if task.is_over else _declined(state, task, event, now)
        case SettledHeard():
            return _settled(state, task)


def _put(state: TaskLedger, task: Task) -> TaskLedger:
    return replace(state, tasks={**state.tasks, task.id: task})


# --- the life of a task -------------------------------------------------------------------------


def why_refused(state: TaskLedger, task: TaskId, spec: TaskSpec) -> tuple[str, str] | None:
    """Why a submit would be refused, as (reason, detail); None if it would not."""
    known = state.tasks.get(task)
    if known is not None:
        if known.spec == spec:
            return None
        return "conflict", f"task {task} exists with another prompt or other options"
    open_now = sum(not one.is_over for one in state.tasks.values())
    if open_now >= state.params.tasks_open_max:
        return "busy", f"{open_now} tasks are open"
    return None


def _submitted(state: TaskLedger, event: Submitted, now: float) -> Step:
    if event.task in state.tasks or why_refused(state, event.task, event.spec):
        return state, ()  # the same task, or the shell should have asked
    task = Task(
        id=event.task,
        spec=event.spec,
        submitted_unix_s=event.unix_s,
        deadline_at=now + event.spec.timeout_s,
    )
    state, effects = _elect(state, task, "", now)
    # One write, so that a submit that fails has left nothing behind.
    is_saved = any(isinstance(effect, Save) for effect in effects)
    return state, effects if is_saved else (Save(task), *effects)


def _restored(state: TaskLedger, task: Task, now: float) -> Step:
    if task.is_over:
        return _put(state, replace(task, is_settled=True)), ()
    task = replace(
        task,
        state="waiting",
        coordinator=None,
        act_at=now + state.params.retry_s,
        deadline_at=now + task.spec.timeout_s,
        why_waiting="restarted",
    )
    return _put(state, task), ()


def _elect(state: TaskLedger, task: Task, why: str, now: float) -> Step:
    """Appoint the next coordinator: save the higher term, then grant it."""
    failed = (task.coordinator,) if task.coordinator else ()
    excluded = tuple(dict.fromkeys((*task.excluded, *failed)))
    revoke: tuple[Effect, ...] = (Revoke(task.id),) if task.coordinator else ()
    if task.cancel_reason is not None:
        return _end_here(state, task, "cancelled", task.cancel_reason)
    if task.term >= state.params.terms_max:
        detail = f"no_coordinator: {task.term} coordinators could not finish it; the last: {why}"
        state, effects = _end_here(state, task, "failed", detail)
        return state, (*revoke, *effects)
    order = rendezvous.order(task.id, state.weights, excluding=excluded)
    if not order:
        # Nobody is here, or everybody has failed once: then we start over, but not in a hurry.
        task = replace(
            task,
            state="waiting",
            coordinator=None,
            excluded=(),
            is_in_talks=False,
            act_at=now + state.params.retry_s,
            why_waiting=why or "no peer offers to coordinate",
        )
        return _put(state, task), (*revoke, Show(task))
    task = replace(
        task,
        state="running",
        term=task.term + 1,
        coordinator=order[0],
        excluded=excluded,
        is_in_talks=True,
        declined=0,
        heard_at=now,
        act_at=now + state.params.renewal_s,
        why_waiting=why,
    )
    grant = GrantTerm(task, order[1 : 1 + STANDBYS])
    return _put(state, task), (*revoke, Save(task), grant, Show(task))


def _lost(state: TaskLedger, task: Task, why: str, now: float) -> Step:
    if task.is_over:
        return _settled(state, task)
    if task.coordinator not in state.weights:
        return _elect(state, task, why, now)
    # It is still there: grant the same term again, until silence has lasted too long.
    task = replace(task, is_in_talks=False, act_at=now + state.params.retry_s, why_waiting=why)
    return _put(state, task), ()


def _declined(state: TaskLedger, task: Task, event: CoordinatorDeclined, now: float) -> Step:
    others = rendezvous.order(task.id, state.weights, excluding=(*task.excluded, task.coordinator))
    if not event.is_busy or others or task.coordinator not in state.weights:
        return _elect(state, task, event.why, now)
    # Everybody is full: the same term waits for a turn, longer every time.
    params = state.params
    wait_s = min(params.busy_s_max, params.retry_s * 2.0 ** min(task.declined, 10))
    task = replace(
        task,
        is_in_talks=False,
        declined=task.declined + 1,
        heard_at=now + wait_s,
        act_at=now + wait_s,
        why_waiting=event.why,
    )
    return _put(state, task), (Show(task),)


def _weights_changed(state: TaskLedger, now: float) -> Step:
    """Who has lost its coordinator is due from now on, and so is who waits for one."""
    due = {
        task.id: replace(task, act_at=min(task.act_at, now))
        for task in state.tasks.values()
        if (task.state == "running" and task.coordinator not in state.weights)
        or (task.state == "waiting" and state.weights)
    }
    return replace(state, tasks={**state.tasks, **due}), ()


def _entry_heard(state: TaskLedger, task: Task, entry: Entry, now: float) -> Step:
    if task.is_over or entry.term != task.term:
        return _fence(state, task, entry, now)
    if entry.index != task.entries or entry.parent != task.last_digest:
        return _fence(state, task, entry, now)
    try:
        event = event_of(entry)
    except RemoteProtocolError as broken:
        return _elect(state, task, f"its coordinator sent nonsense: {broken}", now)
    mark = digest(task.id, entry)
    task = replace(
        task,
        entries=task.entries + 1,
        digests=(*task.digests, mark),
        heard_at=now,
        declined=0,
    )
    accept = Accept(task.id, entry.term, entry.index, mark)
    if not isinstance(event, journal.Closed):
        return _put(state, task), (Append(task, entry), accept, Show(task, entry))
    task = replace(task, state=event.outcome, answer=event, act_at=now + state.params.renewal_s)
    settle = SettleTask(task.id, task.term)
    return _put(state, task), (Append(task, entry), accept, Show(task, entry), settle)


def _fence(state: TaskLedger, task: Task, entry: Entry, now: float) -> Step:
    """An entry that does not fit. One that is here already is acknowledged again."""
    is_known = entry.index < task.entries and digest(task.id, entry) == task.digests[entry.index]
    if is_known and entry.term == task.term:
        task = replace(task, heard_at=now)
        again = Accept(task.id, entry.term, entry.index, task.digests[entry.index])
        return _put(state, task), (again,)
    return replace(state, fenced=state.fenced + 1), ()


def _cancel_asked(state: TaskLedger, task: Task, reason: str, now: float) -> Step:
    if task.is_over or task.cancel_reason is not None:
        return state, ()
    task = replace(task, cancel_reason=reason)
    if task.state == "waiting":
        return _end_here(state, task, "cancelled", reason)
    # The coordinator records it, with what there is of an answer; if it cannot, we do.
    task = replace(task, cancelled_at=now)
    return _put(state, task), (Save(task), PassCancel(task.id, task.term, reason))


def _settled(state: TaskLedger, task: Task) -> Step:
    if not task.is_over:
        return state, ()
    return _put(state, replace(task, is_settled=True, act_at=inf)), ()


def _end_here(
    state: TaskLedger, task: Task, outcome: Literal["failed", "cancelled"], detail: str
) -> Step:
    """End a task that no coordinator can end."""
    closed = journal.Closed(outcome=outcome, answer="", detail=detail[:1024])
    task = replace(task, state=outcome, answer=closed, is_settled=True, act_at=inf)
    return _put(state, task), (Save(task), Revoke(task.id), Show(task))


def _time_passed(state: TaskLedger, now: float) -> Step:
    """Everything that is due, but at most one thing for the disk, as the last.

    If that write fails, nothing of the step has happened that could not happen again; what is
    still due comes with the next step, at once.
    """
    effects: list[Effect] = []
    last: Step | None = None
    for task in tuple(state.tasks.values()):
        if _due(state, task) > now or (last is not None and _may_write(state, task, now)):
            continue
        after, more = _due_now(state, task, now)
        if any(isinstance(effect, Save) for effect in more):
            last = after, more
        else:
            state = after
            effects += more
    if last is not None:
        effects += last[1]
        for effect in last[1]:
            state = _put(state, effect.task) if isinstance(effect, Save) else state
    return state, tuple(effects)


def _may_write(state: TaskLedger, task: Task, now: float) -> bool:
    if task.is_over:
        return False
    is_silent = task.heard_at + state.params.silence_s <= now
    is_left = task.coordinator not in state.weights  # that of a waiting task is None
    return is_left or is_silent or _end_by(state, task) <= now


def _due_now(state: TaskLedger, task: Task, now: float) -> Step:
    params = state.params
    if task.is_over:
        # Settled was never heard; the coordinator's own patience will end it.
        return _put(state, replace(task, is_settled=True, act_at=inf)), (Revoke(task.id),)
    if _end_by(state, task) <= now:
        if task.cancel_reason is not None:
            return _end_here(state, task, "cancelled", task.cancel_reason)
        return _end_here(state, task, "failed", f"timeout: no end within {task.spec.timeout_s:g} s")
    if task.state == "waiting":
        return _elect(state, task, task.why_waiting, now)
    if task.coordinator not in state.weights:
        return _elect(state, task, "its coordinator has left", now)
    if task.heard_at + params.silence_s <= now:
        silent_s = now - task.heard_at
        return _elect(state, task, f"its coordinator was silent for {silent_s:.1f} s", now)
    if task.is_in_talks:
        task = replace(task, act_at=now + params.renewal_s)
        return _put(state, task), (Renew(task.id, task.term),)
    return _grant_again(state, task, now)


def _grant_again(state: TaskLedger, task: Task, now: float) -> Step:
    task = replace(task, is_in_talks=True, act_at=now + state.params.renewal_s)
    order = rendezvous.order(task.id, state.weights, excluding=(*task.excluded, task.coordinator))
    again = GrantTerm(task, order[:STANDBYS])
    if task.cancel_reason is None:
        return _put(state, task), (again,)
    return _put(state, task), (again, PassCancel(task.id, task.term, task.cancel_reason))


def check(state: TaskLedger) -> None:
    """What must hold after every step (names as in docs/architecture.md)."""
    for name, task in state.tasks.items():
        assert name == task.id
        assert len(task.digests) == task.entries, "prefix_chain"
        assert task.term <= state.params.terms_max, "attempt_budget"
        assert (task.state == "running") <= (task.coordinator is not None)
        assert task.is_over == (task.answer is not None), "visible_once"
