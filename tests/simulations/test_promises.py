"""Promises are known by name, and those that no story has looked at are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulations import plan, scenarios
from simulations.promises import OF_THOUSANDS, OF_WHOLE_NODES, promises_of, unproven
from simulations.scenarios import load
from simulations.story import tell

SIMULATIONS = Path(__file__).parents[2] / "simulations"
CHECKED = re.compile(r'(?:check|_wait)\(\s*"([a-z_]+)"')


def test_every_promise_that_a_checker_looks_at_is_in_the_list_and_no_other() -> None:
    sources = (path.read_text(encoding="utf-8") for path in SIMULATIONS.rglob("*.py"))
    looked_at = {name for source in sources for name in CHECKED.findall(source)}
    assert looked_at == OF_WHOLE_NODES.keys() | set(OF_THOUSANDS)


def test_what_was_never_seen_is_said_by_name() -> None:
    home = load("home")
    assert home.faults is not None
    every_fault, every_promise = set(home.faults.kinds), set(promises_of(home))
    assert unproven([home], every_fault, every_promise) == []
    fault, promise = unproven(
        [home], every_fault - {"tear"}, every_promise - {"lease_stop", "durable"}
    )
    assert fault == f"NEVER FIRED: 1 of {len(every_fault)} faults: tear"
    assert promise.startswith("NEVER LOOKED AT: 2 of ")
    assert promise.endswith(" promises: durable, lease_stop")


def test_of_several_scenarios_all_must_have_been_seen() -> None:
    both = [load("home"), load("detached")]
    _, missing = unproven(both, (), promises_of(both[0]))
    assert "keepers_agree" in missing
    assert "lease_stop" not in missing


def test_where_nothing_can_go_wrong_no_fault_is_missed() -> None:
    quiet = load("home").model_copy(update={"faults": None})
    assert unproven([quiet], (), promises_of(quiet)) == []
    assert "strangers_get_nothing" not in promises_of(quiet)


@pytest.mark.parametrize("name", scenarios.names())
def test_all_scenarios_promise_something(name: str) -> None:
    assert {"no_ghosts", "tasks_are_conserved"} <= promises_of(load(name))


def test_a_quiet_story_looks_at_what_is_promised_everywhere() -> None:
    quiet = load("home").model_copy(update={"seconds": 8.0, "faults": None})
    report = tell(plan.draw(quiet, 2))
    assert {"no_bug_is_met", "no_node_dies", "lease_stop"} <= report.evaluated.keys()
