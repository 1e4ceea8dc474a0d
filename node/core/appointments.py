"""Whom terms were granted to, and from among whom: for those who ask why that one leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kowalski.protocol.ids import PeerId, TaskId

TASKS_KEPT = 256
TERMS_KEPT = 16
"""Of one task."""


@dataclass(frozen=True, slots=True)
class Appointment:
    """`weights` of all who could have led, those that were `excluded` included."""

    at: float
    term: int
    chosen: PeerId
    why: str
    weights: Mapping[PeerId, float]
    excluded: frozenset[PeerId] = frozenset()
    standbys: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True)
class AppointmentBook:
    """The latest appointments of the latest tasks."""

    tasks: dict[TaskId, tuple[Appointment, ...]] = field(default_factory=dict)

    def appoint(self, task: TaskId, made: Appointment) -> AppointmentBook:
        """A term that is granted again, to the same peer, is the same appointment."""
        known = self.tasks.get(task, ())
        if any(one.term == made.term for one in known):
            return self
        others = {name: terms for name, terms in self.tasks.items() if name != task}
        if len(others) >= TASKS_KEPT:
            del others[next(iter(others))]
        return AppointmentBook({**others, task: (*known, made)[-TERMS_KEPT:]})

    def of(self, task: TaskId) -> tuple[Appointment, ...]:
        return self.tasks.get(task, ())
