"""What of a journal that did not end well can be gone on with: all but its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from kowalski.node.core.task_ledger_events import Task
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import Digest, Entry, TaskSpec
from kowalski.rlm.journal import GENESIS, digest, entry_of, event_of

ENDINGS = (
    journal.Closed,
    journal.CancelHeard,
    journal.BudgetSpent,
    journal.ModelFailed,
    journal.CellFailed,
    journal.CellStarted,
)
"""What may stand at the end and is done again, or differently, by whoever goes on."""

NAME_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Anew:
    """It goes on as another task: under this name, asking this."""

    name: TaskId
    spec: TaskSpec


def way_on(
    task: Task,
    is_taken: Callable[[TaskId], bool],
    *,
    timeout_s: float | None,
    max_iterations: int | None,
) -> Anew | Literal["answered", "not over"]:
    """How a task is gone on with: not at all, as itself, or as a new one that may take as long."""
    if task.state == "answered":
        return "answered"
    if not task.is_over:
        return "not over"
    changes = {"timeout_s": timeout_s, "max_iterations": max_iterations}
    given = {name: value for name, value in changes.items() if value is not None}
    name = next(one for one in next_names(task.id) if not is_taken(one))
    return Anew(name, task.spec.model_copy(update=given))


def beginning(entries: Iterable[Entry]) -> tuple[journal.SessionEvent, ...]:
    """What happened, up to the last thing that came out well.

    Raises:
        RemoteProtocolError: an entry is no event.
    """
    events = [event_of(entry) for entry in entries]
    while events and isinstance(events[-1], ENDINGS):
        events.pop()
    return tuple(events)


def written_anew(
    task: TaskId, events: Sequence[journal.SessionEvent], *, term: int
) -> tuple[tuple[Entry, ...], tuple[Digest, ...]]:
    """The same things as the first entries of `task`, with their digests."""
    entries: list[Entry] = []
    marks: list[Digest] = []
    for event in events:
        entries.append(entry_of(term, len(entries), marks[-1] if marks else GENESIS, event))
        marks.append(digest(task, entries[-1]))
    return tuple(entries), tuple(marks)


def next_names(task: TaskId) -> Iterable[TaskId]:
    """Names for what goes on with `task`: `NAME-r2`, then `NAME-r3`, and so on."""
    stem, _, number = task.rpartition("-r")
    base, first = (stem, int(number)) if stem and number.isdigit() else (task, 1)
    for at in range(first + 1, first + 1000):
        ending = f"-r{at}"
        yield TaskId(base[: NAME_CHARS_MAX - len(ending)] + ending)
