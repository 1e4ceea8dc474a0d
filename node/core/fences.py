"""The highest term heard for each task. A message below it is refused, whoever sends it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kowalski.protocol.ids import PeerId, TaskId

TaskKey = tuple[PeerId, TaskId]
"""A task by its submitter and its name: names are their submitters' own choice."""

TASKS_MAX = 10_000

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Stale:
    """`term` is the one that was heard."""

    term: int


@dataclass(frozen=True, slots=True)
class Fences(Generic[Key]):
    """Of at least half of `TASKS_MAX` tasks, and those that were heard last.

    In two generations, so that a term that is heard again costs nothing.
    """

    recent: dict[Key, int] = field(default_factory=dict)
    older: dict[Key, int] = field(default_factory=dict)

    def highest(self, task: Key) -> int:
        """The highest term heard; 0 if none was."""
        return max(self.recent.get(task, 0), self.older.get(task, 0))

    def hear(self, task: Key, term: int) -> tuple[Fences[Key], Stale | None]:
        """The fences after a message of `term`, and why to refuse it if it comes too late."""
        highest = self.highest(task)
        if term < highest:
            return self, Stale(highest)
        if self.recent.get(task) == term:
            return self, None
        recent = {**self.recent, task: term}
        if len(recent) >= TASKS_MAX // 2:
            return Fences({}, recent), None
        return Fences(recent, self.older), None
