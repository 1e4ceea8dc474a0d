"""A story that breaks a promise is made as small as it can be: told, not made up.

How long it takes says nothing: stories have their own time, and the tries are counted.
"""

from __future__ import annotations

from dataclasses import replace

from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from simulations import plan
from simulations.plan import Plan
from simulations.scenarios import Faults, Work, load
from simulations.shrinking import SHORTEST_S, shrink
from simulations.story import Nature, tell
from simulations.toy_cells import toy_script

SCENARIO = load("home").model_copy(
    update={
        "seconds": 7.0,
        "work": Work(every_s=1.5, direct=0.2),
        "faults": Faults(every_s=1.5, kinds=("crash", "freeze", "slow-disk"), is_swarm=False),
    }
)
PROMISE = "answers_are_right"
SEEDS = range(17, 60)
"""One in four breaks it; what each does may change with the code of the nodes."""


def forgetful() -> Nature:
    """Workers on which no cell can be run a second time: a bug of theirs.

    It takes a task with cells, and a fault that has one of them run again.
    """
    ran: set[str] = set()

    def script(code: str, state: ScriptedState) -> ScriptedCell:
        is_again = code in ran
        ran.add(code)
        return toy_script("fail to do it again" if is_again else code, state)

    return Nature(script=script)


def breaks(story: Plan) -> bool:
    broken = tell(story, nature=forgetful()).violation
    return broken is not None and broken.invariant == PROMISE


def test_nothing_superfluous_is_left_and_neither_of_what_is_left_can_be_done_without() -> None:
    whole = next(one for one in (plan.draw(SCENARIO, seed) for seed in SEEDS) if breaks(one))
    small = shrink(whole, breaks)
    assert breaks(small)
    assert 1 <= len(small.faults) < len(whole.faults)
    assert 1 == len(small.asks) < len(whole.asks)
    assert not breaks(replace(small, asks=()))
    for number in range(len(small.faults)):
        assert not breaks(small.without(frozenset({number})))
    assert all(fault.lasts_s == SHORTEST_S for fault in small.faults)
