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
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal as events
from kowalski.protocol.messages.task import Digest, Entry, TaskSpec
from kowalski.rlm.journal import GENESIS, digest, event_of

TaskState = Literal["waiting", "running", "answered", "failed", "cancelled"]
STANDBYS = 2


@dataclass(frozen=True, slots=True)
class Params:
    """Seconds. The lease is shorter than our patience: a cut-off coordinator stops first."""

    lease_s: float = 3.0
    renewal_s: float = 1.0
    silence_s: float = 4.0
    retry_s: float = 0.5
    overtime_s: float = 10.0
    """How long after the task's own timeout the coordinator may take to say so."""
    terms_max: int = 16
    """Coordinators tried for one task before it fails."""
    tasks_open_max: int = 1000


@dataclass(frozen=True, slots=True)
class Task:
    """One task. Times are the driver's clock and are not saved."""

    id: TaskId
    spec: TaskSpec
    submitted_unix_s: int
    state: TaskState = "waiting"
    term: int = 0
    coordinator: PeerId | None = None
    entries: int = 0
    digests: tuple[Digest, ...] = ()
    answer: events.Closed | None = None
    excluded: tuple[PeerId, ...] = ()
    why_waiting: str = ""
    cancel_reason: str | None = None
    is_settled: bool = False
    is_in_talks: bool = False
    """The conversation of this term is open, as far as we know."""
    heard_at: float = -inf
    act_at: float = inf
    deadline_at: float = inf

    @property
    def is_over(self) -> bool:
        return self.state in {"answered", "failed", "cancelled"}

    @property
    def last_digest(self) -> Digest:
        return self.digests[-1] if self.digests else GENESIS


@dataclass(frozen=True, slots=True)
class TaskLedger:
    params: Params = field(default_factory=Params)
    weights: Mapping[PeerId, float] = field(default_factory=dict)
    """Peers that may coordinate now, with how much of it they should get."""
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    fenced: int = 0
    """Entries refused because of their term, index or parent, so far."""


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    task: TaskId
    spec: TaskSpec
    unix_s: int


@dataclass(frozen=True, slots=True)
class Restored:
    """A task as the disk has it, at start. Its coordinator's term is over."""

    task: Task


@dataclass(frozen=True, slots=True)
class WeightsChanged:
    weights: Mapping[PeerId, float]


@dataclass(frozen=True, slots=True)
class CoordinatorHeard:
    task: TaskId
    term: int


@dataclass(frozen=True, slots=True)
class EntryHeard:
    task: TaskId
    entry: Entry


@dataclass(frozen=True, slots=True)
class CoordinatorLost:
    """The conversation of this term broke, or could not be opened."""

    task: TaskId
    term: int
    why: str


@dataclass(frozen=True, slots=True)
class CoordinatorDeclined:
    """It answered no to this term's grant, or gave up."""

    task: TaskId
    term: int
    why: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    task: TaskId
    reason: str


@dataclass(frozen=True, slots=True)
class SettledHeard:
    task: TaskId
    term: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = (
    Submitted
    | Restored
    | WeightsChanged
    | CoordinatorHeard
    | EntryHeard
    | CoordinatorLost
    | CoordinatorDeclined
    | CancelAsked
    | SettledHeard
    | TimePassed
)


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Save:
    """Put the task's row on disk before any later effect."""

    task: Task


@dataclass(frozen=True, slots=True)
class Append:
    """Put the entry on disk before any later effect; `task` is the row as it is with it."""

    task: Task
    entry: Entry


@dataclass(frozen=True, slots=True)
class GrantTerm:
    """Open the conversation of this term, ending any earlier one of the task."""

    task: Task
    standbys: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Accept:
    task: TaskId
    term: int
    index: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Renew:
    task: TaskId
    term: int


@dataclass(frozen=True, slots=True)
class PassCancel:
    task: TaskId
    term: int
    reason: str


@dataclass(frozen=True, slots=True)
class SettleTask:
    task: TaskId
    term: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """End the conversation of an earlier term without more words."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class Show:
    """The task has changed for those who watch; `entry` if one became visible."""

    task: Task
    entry: Entry | None = None


Effect = Save | Append | GrantTerm | Accept | Renew | PassCancel | SettleTask | Revoke | Show
Step = tuple[TaskLedger, tuple[Effect, ...]]


def wake_at(state: TaskLedger) -> float:
    return min((_due(state, task) for task in state.tasks.values()), default=inf)


def _due(state: TaskLedger, task: Task) -> float:
    if task.is_over:
        return inf if task.is_settled else task.act_at
    deadline_at = task.deadline_at + state.params.overtime_s
    if task.state == "running":
        return min(task.act_at, task.heard_at + state.params.silence_s, deadline_at)
    return min(task.act_at, deadline_at)


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
            return _put(state, replace(task, heard_at=now)), ()
        case CoordinatorLost(why=why):
            return _lost(state, task, why, now)
        case CoordinatorDeclined(why=why):
            return (state, ()) if task.is_over else _elect(state, task, why, now)
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
    return state, (Save(task), *effects)


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
    if not order and excluded:
        # Everybody has failed once: better to start over than to wait for a stranger.
        excluded = ()
        order = rendezvous.order(task.id, state.weights)
    if not order:
        task = replace(
            task,
            state="waiting",
            coordinator=None,
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


def _weights_changed(state: TaskLedger, now: float) -> Step:
    effects: list[Effect] = []
    for task in tuple(state.tasks.values()):
        gone = task.state == "running" and task.coordinator not in state.weights
        if gone or (task.state == "waiting" and state.weights):
            why = "its coordinator has left" if gone else ""
            state, more = _elect(state, task, why, now)
            effects += more
    return state, tuple(effects)


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
    task = replace(task, entries=task.entries + 1, digests=(*task.digests, mark), heard_at=now)
    accept = Accept(task.id, entry.term, entry.index, mark)
    if not isinstance(event, events.Closed):
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
    task = replace(task, deadline_at=min(task.deadline_at, now))
    return _put(state, task), (Save(task), PassCancel(task.id, task.term, reason))


def _settled(state: TaskLedger, task: Task) -> Step:
    if not task.is_over:
        return state, ()
    return _put(state, replace(task, is_settled=True, act_at=inf)), ()


def _end_here(
    state: TaskLedger, task: Task, outcome: Literal["failed", "cancelled"], detail: str
) -> Step:
    """End a task that no coordinator can end."""
    closed = events.Closed(outcome=outcome, answer="", detail=detail[:1024])
    task = replace(task, state=outcome, answer=closed, is_settled=True, act_at=inf)
    return _put(state, task), (Save(task), Revoke(task.id), Show(task))


def _time_passed(state: TaskLedger, now: float) -> Step:
    effects: list[Effect] = []
    for task in tuple(state.tasks.values()):
        if _due(state, task) <= now:
            state, more = _due_now(state, task, now)
            effects += more
    return state, tuple(effects)


def _due_now(state: TaskLedger, task: Task, now: float) -> Step:
    params = state.params
    if task.is_over:
        # Settled was never heard; the coordinator's own patience will end it.
        return _put(state, replace(task, is_settled=True, act_at=inf)), (Revoke(task.id),)
    if task.deadline_at + params.overtime_s <= now:
        if task.cancel_reason is not None:
            return _end_here(state, task, "cancelled", task.cancel_reason)
        return _end_here(state, task, "failed", f"timeout: no end within {task.spec.timeout_s:g} s")
    if task.state == "waiting":
        return _elect(state, task, task.why_waiting, now)
    if task.heard_at + params.silence_s <= now:
        silent_s = now - task.heard_at
        return _elect(state, task, f"its coordinator was silent for {silent_s:.1f} s", now)
    if task.is_in_talks:
        task = replace(task, act_at=now + params.renewal_s)
        return _put(state, task), (Renew(task.id, task.term),)
    task = replace(task, is_in_talks=True, act_at=now + params.renewal_s)
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
