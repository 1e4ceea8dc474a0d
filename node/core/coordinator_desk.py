"""Which of the tasks that a node was asked to lead it leads now: so many at a time, by fair turns.

A task that waits keeps its grant: its submitter hears that it is alive, and need not look for
somebody else. Beyond a bound a grant is refused, so that it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kowalski.node.core.fair_order import FairOrder, Waiting
from kowalski.node.core.fences import TaskKey

RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class CoordinatorDesk:
    slots: int = 64
    queue_max: int = 64
    """Tasks that wait here, of all submitters together."""
    is_draining: bool = False
    leading: Mapping[TaskKey, None] = field(default_factory=dict)
    waiting: Mapping[TaskKey, Waiting] = field(default_factory=dict)
    order: FairOrder = field(default_factory=FairOrder)


@dataclass(frozen=True, slots=True)
class Lead:
    """At once."""


@dataclass(frozen=True, slots=True)
class Wait:
    """In the queue, behind so many that came before."""

    ahead: int


@dataclass(frozen=True, slots=True)
class Refuse:
    reason: str
    detail: str
    retry_after_s: float | None = None


def admit(
    desk: CoordinatorDesk, key: TaskKey, rank: int, now: float
) -> tuple[CoordinatorDesk, Lead | Wait | Refuse]:
    """A grant for a task without a coordination. `rank`: of its priority, the highest first."""
    submitter, task = key
    if key in desk.leading:
        return desk, Lead()  # under a later term
    if desk.is_draining:
        return desk, Refuse("draining", "this node is about to leave")
    if len(desk.leading) < desk.slots and not desk.waiting:
        return _lead(desk, key, now), Lead()
    if len(desk.waiting) >= desk.queue_max or _has_its_share(desk, key):
        words = f"{len(desk.leading)} tasks are led here, {len(desk.waiting)} wait"
        return desk, Refuse("busy", words, RETRY_AFTER_S)
    waiting = {**desk.waiting, key: Waiting(task, submitter, rank, now)}
    return replace(desk, waiting=waiting), Wait(ahead=len(desk.waiting))


def _has_its_share(desk: CoordinatorDesk, key: TaskKey) -> bool:
    """Whether this submitter fills half of the queue already: the rest is for others."""
    submitter, _ = key
    own = sum(other == submitter for other, _ in desk.waiting)
    return own >= max(1, desk.queue_max // 2)


def _lead(desk: CoordinatorDesk, key: TaskKey, now: float) -> CoordinatorDesk:
    return replace(
        desk,
        leading={**desk.leading, key: None},
        waiting={other: one for other, one in desk.waiting.items() if other != key},
        order=desk.order.served(key[0], now),
    )


def leave(
    desk: CoordinatorDesk, key: TaskKey, now: float
) -> tuple[CoordinatorDesk, TaskKey | None]:
    """A task is no longer led here, or no longer waits; whose turn it is instead."""
    desk = replace(
        desk,
        leading={other: None for other in desk.leading if other != key},
        waiting={other: one for other, one in desk.waiting.items() if other != key},
    )
    if len(desk.leading) >= desk.slots:
        return desk, None
    busy = Counter[str](submitter for submitter, _ in desk.leading)
    first = desk.order.next_up(desk.waiting.values(), busy, now)
    if first is None:
        return desk, None
    chosen = next(other for other, one in desk.waiting.items() if one is first)
    return _lead(desk, chosen, now), chosen


def drain(desk: CoordinatorDesk, *, is_on: bool) -> CoordinatorDesk:
    """Take no new tasks, since this node is about to leave; or take them again."""
    return replace(desk, is_draining=is_on)


def check(desk: CoordinatorDesk) -> None:
    """What must hold after every step."""
    assert len(desk.leading) <= desk.slots
    assert len(desk.waiting) <= desk.queue_max
    assert not desk.leading.keys() & desk.waiting.keys()
    assert not desk.waiting or len(desk.leading) == desk.slots
