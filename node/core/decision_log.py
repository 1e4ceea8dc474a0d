"""The last choices of a node, and how many older ones of each task it has forgotten."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from kowalski.protocol.ids import TaskId

DECISIONS_KEPT = 512
TASKS_COUNTED = 1024

T = TypeVar("T")


class DecisionLog(Generic[T]):
    """In memory only: with all its inputs one choice is tens of kilobytes in a large mesh.

    The journal of a task has the words of each. `count_as` sorts them into a few heaps.
    """

    def __init__(
        self,
        kept: int = DECISIONS_KEPT,
        *,
        count_as: Callable[[T], tuple[str, ...]] = lambda _choice: (),
    ) -> None:
        self._count_as = count_as
        self.counts: Counter[tuple[str, ...]] = Counter()
        """All that were ever made here, by heap."""
        self._kept: deque[tuple[TaskId | None, T]] = deque(maxlen=kept)
        self._forgotten: dict[TaskId, int] = {}

    def __iter__(self) -> Iterator[T]:
        """The oldest first."""
        return (choice for _, choice in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def latest(self, count: int) -> list[T]:
        return [choice for _, choice in self._kept][-count:]

    def add(self, task: TaskId | None, choice: T) -> None:
        """`task`: on whose behalf it was made, if on any."""
        if len(self._kept) == self._kept.maxlen:
            self._count(self._kept[0][0])
        self._kept.append((task, choice))
        self.counts[self._count_as(choice)] += 1

    def forgotten_of(self, task: TaskId) -> int:
        """Choices for a task of that name which were dropped for later ones.

        Of the last `TASKS_COUNTED` tasks that this happened to.
        """
        return self._forgotten.get(task, 0)

    def _count(self, task: TaskId | None) -> None:
        if task is None:
            return
        count = self._forgotten.pop(task, 0) + 1
        if len(self._forgotten) >= TASKS_COUNTED:
            del self._forgotten[next(iter(self._forgotten))]
        self._forgotten[task] = count
