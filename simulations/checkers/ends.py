"""How tasks end: rightly, once for each that was taken in, and no others."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from math import inf

from kowalski.node.core.task_ledger import Task
from simulations.menu import Fault
from simulations.places import as_said
from simulations.plan import Ask
from simulations.scenarios import Scenario

HELPLESS = ("no_peer", "peers_failed", "no_model", "unrefined", "unsupported")
NOT_RUN = as_said("[not run:")
"""In place of what a cell printed, where all peers were lost that could run it."""
TRIES = 3
"""Models that a call tries at most: it may meet none but failing ones."""
LATE = ("timeout", as_said("stopped: it took too long"))


@dataclass(slots=True)
class Taken:
    """A task that a node has taken in: it said so, and it is on its disk."""

    ask: Ask
    number: int
    at_s: float
    is_cancelled: bool = False
    ended_s: float = inf
    last_seen: Task | None = None

    @property
    def is_answered(self) -> bool:
        return self.last_seen is not None and self.last_seen.state == "answered"

    @property
    def is_complete(self) -> bool:
        """Whether it is answered with all that was wanted, and nobody was missing for it."""
        if not self.is_answered or self.last_seen is None or self.last_seen.answer is None:
            return False
        answer = self.last_seen.answer
        said = f"{answer.detail} {as_said(answer.answer)}"
        was_helpless = any(one in said for one in (*HELPLESS, NOT_RUN))
        return not was_helpless and not _missing(self.ask, answer.answer)


def models_down(faults: Iterable[Fault], from_s: float, until_s: float) -> int:
    """How many nodes' models failed at some time between two of a story."""
    return len(
        {
            fault.nodes[0]
            for fault in faults
            if fault.kind in {"model-fails", "model-errs"}
            and fault.at_s < until_s
            and fault.at_s + fault.lasts_s > from_s
        }
    )


def was_alone(faults: Iterable[Fault], number: int, from_s: float, until_s: float) -> bool:
    """Whether a node was cut off from all others at some time between two of a story."""
    return any(
        fault.kind == "isolate"
        and number in fault.nodes
        and fault.at_s < until_s
        and fault.at_s + fault.lasts_s > from_s
        for fault in faults
    )


def why_wrong(
    ask: Ask,
    task: Task,
    scenario: Scenario,
    *,
    fired: Container[str],
    is_cancelled: bool,
    models_down: int = 0,
    was_alone: bool = False,
) -> str:
    """`answers_are_right`: what is wrong with the end of a task; empty if it is as it should be.

    A task may be cancelled if somebody has said so; late if it was in a hurry; without an answer if
    the scenario lets all models fail at once, as many failed meanwhile as are tried, or the node
    that it was given to was alone. What it lacks it must own up to: in the detail of its end, or in
    its answer, for one cell of many that was stopped or could ask nobody.
    """
    assert task.answer is not None
    answer, detail = task.answer.answer, task.answer.detail
    said, missing = as_said(answer), _missing(ask, answer)
    owned_up = f"{detail} {said}"
    is_helpless = scenario.may_be_helpless or was_alone
    is_helpless &= any(one in owned_up for one in HELPLESS)
    is_helpless |= models_down >= TRIES and "peers_failed" in owned_up
    match task.state:
        case "answered":
            is_excused = "its_process_died" in said and "kill-sessions" in fired
            is_late = ask.is_hasty and any(one in owned_up for one in LATE)
            is_fine = is_excused or is_late or is_helpless or not missing
        case "failed":
            is_fine = is_helpless or ask.is_hasty
        case _:
            is_fine = is_cancelled and task.state == "cancelled"
    return (
        "" if is_fine else f"{task.id}: {task.state} {detail!r}, {missing} not in {answer!r:.300}"
    )


def _missing(ask: Ask, answer: str) -> list[str]:
    said = as_said(answer)
    return [words for words in ask.wanted if as_said(words) not in said]


def why_not_conserved(there: set[str], taken: set[str], perhaps: set[str]) -> str:
    """`tasks_are_conserved`: what a node has lost and made up; empty if nothing.

    `perhaps` are those it was given as it died: on its disk, or not.
    """
    lost, made_up = sorted(taken - there), sorted(there - taken - perhaps)
    return f"lost {lost} and made up {made_up}" if lost or made_up else ""
