"""Many seeds, and what came of them together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from simulations import seeds
from simulations.menu import Fault
from simulations.plan import draw
from simulations.scenarios import load
from simulations.seeds import Outcome, tally
from simulations.witness import Violation

SHORT = load("home").model_copy(update={"seconds": 3.0})


def outcome(seed: int, **more: object) -> Outcome:
    usual: dict[str, object] = {
        "trace_hash": "x",
        "violation": None,
        "crash": "",
        "fired": {"crash": 2},
        "evaluated": Counter({"visible_once": 3}),
        "messages": Counter(),
        "ends": Counter({"answered": 1}),
        "task_s": (1.0,),
        "cells_begun": 4,
        "cells_visible": 4,
        "virtual_s": 60.0,
        "cpu_s": 0.5,
    }
    return Outcome(seed, **{**usual, **more})  # type: ignore[arg-type]


def test_outcomes_add_up_and_the_broken_are_kept() -> None:
    broken = outcome(2, violation=Violation("visible_once", "twice", 1.0))
    fallen = outcome(3, crash="Traceback")
    told: list[int] = []
    total = tally([outcome(1), broken, fallen], lambda one: told.append(one.seed))
    assert total.outcomes == 3
    assert total.broken == [broken, fallen]
    assert (total.fired["crash"], total.evaluated["visible_once"]) == (6, 9)
    assert (total.cells_begun, total.virtual_s, total.task_s) == (12, 180.0, [1.0] * 3)
    assert told == [1, 2, 3]


def test_a_story_that_cannot_be_told_is_an_outcome() -> None:
    nonsense = Fault("nonsense", 0.5, 1.0, (0,), 0.5)
    fallen = seeds.told(replace(draw(SHORT, 1), faults=(nonsense,)))
    assert not fallen.is_fine
    assert "KeyError: 'nonsense'" in fallen.crash


def test_processes_tell_what_one_alone_tells() -> None:
    alone = {one.seed: one.trace_hash for one in seeds.run(SHORT, range(1, 4), jobs=1)}
    together = {one.seed: one.trace_hash for one in seeds.run(SHORT, range(1, 4), jobs=2)}
    assert alone == together
    assert len(set(alone.values())) == 3
