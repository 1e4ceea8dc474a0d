"""Which ended tasks are forgotten: the old ones, and the oldest of too many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kowalski.protocol.ids import TaskId

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that has ended, and what its record weighs."""

    task: TaskId
    unix_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long, how many, and how much of them."""

    age_s_max: float = 30 * DAY_S
    tasks_max: int = 10_000
    bytes_max: int = 1 << 30


def forgotten(ended: Iterable[Ended], keeping: Keeping, now_unix_s: float) -> tuple[TaskId, ...]:
    """Those to forget, oldest first."""
    newest_first = sorted(ended, key=lambda one: (one.unix_s, one.task), reverse=True)
    gone: list[TaskId] = []
    kept, size = 0, 0
    for one in newest_first:
        is_old = one.unix_s + keeping.age_s_max <= now_unix_s
        is_full = kept >= keeping.tasks_max or size + one.size_bytes > keeping.bytes_max
        if is_old or is_full:
            gone.append(one.task)
        else:
            kept, size = kept + 1, size + one.size_bytes
    return tuple(reversed(gone))
