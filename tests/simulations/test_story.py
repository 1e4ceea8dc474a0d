"""Stories: the same every time, without a flaw where all is quiet; broken promises are seen."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kowalski.node.backends.seam import CompletionRequest
from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from simulations import plan
from simulations.menu import Fault
from simulations.plan import Plan
from simulations.reports import Report
from simulations.scenarios import Faults, Scenario, Work, load
from simulations.story import Nature, tell
from simulations.toy_cells import toy_script

ROOT = Path(__file__).parents[2]

SHORT = load("home").model_copy(
    update={"seconds": 8.0, "work": Work(every_s=2.0), "faults": Faults(every_s=3.0)}
)
QUIET = SHORT.model_copy(update={"faults": None})


def told(scenario: Scenario, seed: int, nature: Nature | None = None) -> Report:
    return tell(plan.draw(scenario, seed), nature=nature)


def test_where_nothing_goes_wrong_each_cell_and_each_call_is_made_once() -> None:
    report = told(QUIET, 2)
    assert report.violation is None
    assert report.ends["answered"] == report.ends.total() > 2
    assert report.cells_begun == report.cells_visible > 0
    assert report.fired == {}


def test_a_story_ends_when_nobody_stands_still_any_more() -> None:
    """Of one who was stopped just before all has healed nobody has missed anything by then."""
    stopped = Fault("freeze", 7.95, 0.5, (2,), 9.5)
    report = tell(replace(plan.draw(QUIET, 2), faults=(stopped,), asks=()))
    assert report.violation is None
    assert report.evaluated["who_stands_still_is_still"] == 1


@pytest.mark.parametrize("seed", [3, 9])
def test_where_much_goes_wrong_every_task_is_answered_all_the_same(seed: int) -> None:
    report = told(SHORT, seed)
    assert report.violation is None
    assert report.ends["answered"] > 0
    assert sum(report.fired.values()) > 0
    for invariant in ("visible_once", "term_monotone", "lease_stop", "no_lost_ack"):
        assert report.evaluated[invariant] > 0


@pytest.mark.parametrize(
    ("scenario", "seed"),
    [
        ("deposed", 100372),  # who led before answered the cell, with its refusal
        ("deposed", 2),  # to look for who has a call took of its time, and was not told
        ("trouble", 58),  # a member without a term of its own closed a session in one that it knew
        ("trouble", 2090),  # a stranger closed a session, and its cell was taken for dead
        (
            "deposed",
            60024,
        ),  # a stranger closed what a later leader had joined, or another session's
        ("trouble", 192),  # a coordinator whose disk was full ended the task, for others as well
        ("lone", 17),  # a cell that waited was stale to the next leader, who had joined it
        ("rivals", 12),  # the simulator's own: who stood still took a question back
        ("trouble", 77),  # a node begun anew gave its task up for want of peers it had not met yet
    ],
)
def test_a_seed_that_has_found_a_bug_finds_it_no_more(scenario: str, seed: int) -> None:
    report = told(load(scenario), seed)
    assert report.violation is None


def test_tasks_come_with_files_and_end_well_on_disks_that_are_full_now_and_then() -> None:
    report = tell(plan.draw(load("full"), 3))
    assert report.violation is None
    assert report.messages["content/asked"] > 0
    assert report.fired["disk-full"] > 0


def trace_hash(seed: int, hash_seed: int, python: str = sys.executable) -> str:
    code = (
        "import sys; from tests.simulations.test_story import SHORT, told; "
        "print(told(SHORT, int(sys.argv[1])).trace_hash)"
    )
    return subprocess.run(
        [python, "-c", code, str(seed)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
    ).stdout.strip()


def test_a_seed_has_one_trace_in_every_process_and_another_has_another() -> None:
    assert trace_hash(3, hash_seed=1) == trace_hash(3, hash_seed=2) == told(SHORT, 3).trace_hash
    assert told(SHORT, 4).trace_hash != told(SHORT, 3).trace_hash


def test_a_trace_is_kept_when_it_is_asked_for() -> None:
    report = tell(plan.draw(SHORT, 3), keeps_trace=True)
    assert report.trace is not None
    assert any("task/grant" in line for line in report.trace)
    assert report.trace_hash == told(SHORT, 3).trace_hash


def liar(code: str, state: ScriptedState) -> ScriptedCell:
    return toy_script(code.replace("show x", "say x is unknown"), state)


def nothing(_request: CompletionRequest) -> str:
    return "nothing"


def changed(what: str) -> Scenario:
    devices = SHORT.devices[0]
    changes: dict[str, dict[str, object]] = {
        "no python": {"languages": ("bash",)},
        "no model": {"models": ()},
        "no speed": {"token_ms": 50_000.0},
        "no coordinator": {"roles": ("submit", "repl", "infer")},
    }
    changed = devices.model_copy(update=changes.get(what, {}))
    return QUIET.model_copy(update={"devices": (changed,)})


@pytest.mark.parametrize(
    ("what", "invariant"),
    [
        ("lying cells", "answers_are_right"),
        ("lying models", "answers_are_right"),
        ("no python", "answers_are_right"),
        ("no model", "answers_are_right"),
        ("no speed", "no_lost_ack"),
        ("no coordinator", "no_lost_ack"),
    ],
)
def test_a_mesh_that_breaks_its_promise_is_caught(what: str, invariant: str) -> None:
    nature = {"lying cells": Nature(script=liar), "lying models": Nature(tells=nothing)}
    report = told(changed(what), 7, nature.get(what))
    assert report.violation is not None
    assert report.violation.invariant == invariant
    assert report.events
    assert any("task_ledger" in name for name in report.recorders)


def test_a_plan_with_less_in_it_is_told_as_well() -> None:
    whole = plan.draw(SHORT, 3)
    nothing_asked: Plan = replace(whole, asks=())
    report = tell(nothing_asked)
    assert report.violation is None
    assert not report.ends
