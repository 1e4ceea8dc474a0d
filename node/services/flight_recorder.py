"""What a machine's driver remembers of one task, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterable

from kowalski.node.core import task_ledger
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import line

LINES_MAX = 1000

Step = tuple[float, task_ledger.Event, tuple[task_ledger.Effect, ...]]


def lines(recorder: Iterable[Step], task: TaskId) -> tuple[str, ...]:
    """One line for each step that concerned it: seconds since the first, the event, its effects."""
    steps = [
        (at, event, [effect for effect in effects if task_of(effect) == task])
        for at, event, effects in recorder
    ]
    about = [step for step in steps if task_of(step[1]) == task or step[2]]
    if not about:
        return ()
    began = about[0][0]
    return tuple(
        line(f"{at - began:9.3f} s  {_words(event)}  ->  {', '.join(map(_words, effects)) or '-'}")
        for at, event, effects in about[-LINES_MAX:]
    )


def task_of(one: task_ledger.Event | task_ledger.Effect) -> TaskId | None:
    about = getattr(one, "task", None)
    return about.id if isinstance(about, task_ledger.Task) else about


def _words(one: task_ledger.Event | task_ledger.Effect) -> str:
    match one:
        case task_ledger.GrantTerm(task=task):
            return f"GrantTerm {task.term} to ..{(task.coordinator or '')[-8:]}"
        case task_ledger.Save(task=task):
            return f"Save {task.state} term {task.term}"
        case task_ledger.Append(entry=entry) | task_ledger.EntryHeard(entry=entry):
            return f"{type(one).__name__} {entry.index} of term {entry.term}"
        case task_ledger.CoordinatorDeclined(how=how, why=why):
            return f"CoordinatorDeclined ({how}: {why})"
        case task_ledger.CoordinatorLost(why=why):
            return f"CoordinatorLost ({why})"
        case _:
            return type(one).__name__
