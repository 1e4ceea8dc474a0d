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


def was_alone(
    faults: Iterable[Fault], number: int, from_s: float, until_s: float, *, nodes: int
) -> bool:
    """Whether one of `nodes` was cut off from all others at some time between two of a story.

    By one fault or by several at once: two partitions may leave a node with nobody.
    """
    others = frozenset(range(nodes)) - {number}
    cuts = [
        (max(from_s, fault.at_s), fault.at_s + fault.lasts_s, _cut_off(fault, number, others))
        for fault in faults
        if fault.at_s < until_s and fault.at_s + fault.lasts_s > from_s
    ]
    return any(
        others
        <= frozenset[int]().union(*(cut for begins, ends, cut in cuts if begins <= at < ends))
        for at, _, _ in cuts
    )


def _cut_off(fault: Fault, number: int, others: frozenset[int]) -> frozenset[int]:
    """Whom of the others a fault keeps from a node, as `injection` does it."""
    match fault.kind:
        case "isolate":
            return others if number in fault.nodes else frozenset(fault.nodes)
        case "silence" | "reject" if number in fault.nodes:
            return frozenset(fault.nodes) - {number}
        case "halves" | "bridge":
            sides = [set(fault.nodes[: int(fault.amount)]), set(fault.nodes[int(fault.amount) :])]
            far = next((side for side in sides if number not in side), set())
            hears_both = {fault.nodes[-1]} if fault.kind == "bridge" else set()
            return frozenset() if number in hears_both else frozenset(far - hears_both)
        case _:
            return frozenset()


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
