"""What the task ledger is at any moment, when it is due, and what must hold of it.

How it moves from one state to the next is in `task_ledger`; who leads, in `task_ledger_terms`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from kowalski.node.core.fair_order import FairOrder, Waiting
from kowalski.node.core.fair_queue import RANK
from kowalski.node.core.invariants import must
from kowalski.node.core.task_ledger_events import Effect, Task
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.task import TaskSpec


@dataclass(frozen=True, slots=True)
class Params:
    """Seconds. The lease is shorter than our patience: a cut-off coordinator stops first."""

    lease_s: float = 3.0
    renewal_s: float = 1.0
    silence_s: float = 4.0
    retry_s: float = 0.5
    reunion_s: float = 2.0
    """How long after a restart we wait for whoever led a task before it."""
    busy_s_max: float = 8.0
    """The longest time between two tries at a coordinator that is full."""
    unable_s: float = 5.0
    """Between two looks for somebody who has what a task needs."""
    nobody_s: float = 3.0
    """How long a task that may not fail over waits for somebody to lead it."""
    overtime_s: float = 10.0
    """How long after timeout or cancel the coordinator may take to say so."""
    running_max: int = 64
    """Tasks that are led at a time; the others wait their turn."""
    tasks_open_max: int = 1000
    ended_kept_max: int = 100
    """Ended tasks that are kept here; the disk knows all."""


@dataclass(frozen=True, slots=True)
class TaskLedger:
    params: Params = field(default_factory=Params)
    weights: Mapping[PeerId, float] = field(default_factory=dict)
    """Peers that may coordinate now, with how much of it they should get."""
    hosts: Mapping[PeerId, str] = field(default_factory=dict)
    me: PeerId | None = None
    """Who keeps this ledger, and leads what may not leave the device."""
    passed_over: frozenset[PeerId] = frozenset()
    """They get no tasks, and keep those they have until their silence has lasted too long."""
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    """The open ones, and those that ended last."""
    fenced: int = 0
    """Entries refused because of their term, index or parent, so far."""
    order: FairOrder = field(default_factory=FairOrder)
    dues: dict[TaskId, float] = field(default_factory=dict)
    """Of each task, but for turns to be led."""
    turns: dict[TaskId, float] = field(default_factory=dict)
    """From when on each waiting task may be led."""
    ended: tuple[TaskId, ...] = ()
    """In the order in which they ended."""

    @property
    def open_tasks(self) -> int:
        return len(self.tasks) - len(self.ended)

    @property
    def running(self) -> int:
        return self.open_tasks - len(self.turns)

    def is_here(self, peer: PeerId | None) -> bool:
        """Whether a coordinator is not known to be gone."""
        return peer in self.weights or peer in self.passed_over

    @property
    def has_room(self) -> bool:
        """Whether one more task can be led, as far as this ledger is concerned."""
        return bool(self.weights) and self.running < self.params.running_max


Step = tuple[TaskLedger, tuple[Effect, ...]]


def put(state: TaskLedger, task: Task) -> TaskLedger:
    """The ledger with the task as it is now."""
    name = task.id
    turns = state.turns
    if task.state == "waiting":
        turns = {**turns, name: task.act_at}
    elif name in turns:
        turns = {other: at for other, at in turns.items() if other != name}
    tasks, dues = {**state.tasks, name: task}, {**state.dues, name: due(state, task)}
    ended = state.ended
    if task.is_over and name not in ended:
        ended = (*ended, name)
    if len(ended) > state.params.ended_kept_max:
        # Not the one that was just fetched from the disk: it would be taken for a new one.
        others = (other for other in ended if other != name)
        old = next((other for other in others if tasks[other].is_settled), None)
        if old is not None:
            del tasks[old], dues[old]
            ended = tuple(other for other in ended if other != old)
    return replace(state, tasks=tasks, dues=dues, turns=turns, ended=ended)


def wake_at(state: TaskLedger) -> float:
    """When something is due: time of the driver's clock, or inf."""
    at = min(state.dues.values(), default=inf)
    return min(at, min(state.turns.values(), default=inf)) if state.has_room else at


def due(state: TaskLedger, task: Task) -> float:
    """When a task wants attention. Turns to be led are in `TaskLedger.turns`."""
    if task.is_over:
        return inf if task.is_settled else task.act_at
    if task.state == "waiting":
        return end_by(state, task)
    return min(task.act_at, task.heard_at + state.params.silence_s, end_by(state, task))


def end_by(state: TaskLedger, task: Task) -> float:
    """When we end a task that nobody else has ended."""
    at = min(task.deadline_at, task.cancelled_at) + state.params.overtime_s
    if task.spec.failover == "fail":
        return min(at, task.nobody_since + state.params.nobody_s)
    return at


def next_turn(state: TaskLedger, now: float) -> Task | None:
    """Who of the waiting tasks is led next; None: nobody waits, or may be led yet."""
    if not state.has_room:
        return None
    busy = Counter(one.client for one in state.tasks.values() if one.state == "running")
    ready = (state.tasks[name] for name, at in state.turns.items() if at <= now)
    waiting = (
        Waiting(one.id, one.client, RANK[one.spec.priority], one.waiting_since) for one in ready
    )
    first = state.order.next_up(waiting, busy, now)
    return state.tasks[TaskId(first.name)] if first else None


def why_refused(state: TaskLedger, task: TaskId, spec: TaskSpec) -> tuple[str, str] | None:
    """Why a submit would be refused, as (reason, detail); None if it would not."""
    known = state.tasks.get(task)
    if known is not None:
        if known.spec == spec:
            return None
        return "conflict", f"task {task} exists with another prompt or other options"
    if state.open_tasks >= state.params.tasks_open_max:
        return "busy", f"{state.open_tasks} tasks are open, at most {state.params.tasks_open_max}"
    return None


def check(state: TaskLedger) -> None:
    """What must hold after every step (names as in `invariants`)."""
    for name, task in state.tasks.items():
        assert name == task.id
        assert state.dues[name] == due(state, task)
        assert (name in state.turns) == (task.state == "waiting")
        assert (name in state.ended) == task.is_over
        assert (task.state == "running") <= (task.coordinator is not None)
        must(len(task.digests) == task.entries, "prefix_chain", f"{name}: {task.entries} entries")
        must(task.is_over == (task.answer is not None), "visible_once", f"{name}: {task.state}")
        is_in_budget = task.retries <= task.spec.retry.retries_max
        is_bounded = is_in_budget or task.spec.failover == "queue"
        must(is_bounded, "attempt_budget", f"{name}: {task.retries} retries")
    assert state.dues.keys() == state.tasks.keys()
    assert state.turns.keys() <= state.tasks.keys()
    kept = state.params.ended_kept_max
    assert len(state.ended) <= kept + sum(not state.tasks[name].is_settled for name in state.ended)
