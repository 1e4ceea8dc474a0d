"""The highest term heard for each task. A message below it is refused, whoever sends it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kowalski.protocol.ids import TaskId

TASKS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Stale:
    """`term` is the one that was heard."""

    term: int


@dataclass(frozen=True, slots=True)
class Fences:
    """The longest unheard are forgotten first."""

    terms: dict[TaskId, int] = field(default_factory=dict)

    def hear(self, task: TaskId, term: int) -> tuple[Fences, Stale | None]:
        """The fences after a message of `term`, and why to refuse it if it comes too late."""
        highest = self.terms.get(task, 0)
        if term < highest:
            return self, Stale(highest)
        kept = {name: heard for name, heard in self.terms.items() if name != task}
        if len(kept) >= TASKS_MAX:
            kept.pop(next(iter(kept)))
        return Fences({**kept, task: term}), None
