"""Plans: drawn from a seed, written down, read again, with less in them."""

from __future__ import annotations

import pytest

from simulations.menu import MENU
from simulations.plan import draw, from_json, to_json
from simulations.scenarios import Faults, Work, load
from simulations.toy_cells import sub_calls

BUSY = load("home").model_copy(
    update={
        "seconds": 200.0,
        "work": Work(every_s=1.0, repeated=0.5, cancelled=0.3, improvised=0.2),
        "faults": Faults(every_s=1.0, is_swarm=False),
    }
)


def test_a_seed_has_one_plan() -> None:
    assert draw(BUSY, 5) == draw(BUSY, 5) != draw(BUSY, 6)


def test_a_plan_has_of_everything() -> None:
    plan = draw(BUSY, 5)
    assert {ask.kind for ask in plan.asks} == {"submit", "again", "conflict", "cancel"}
    assert {ask.mode for ask in plan.asks} == {"direct", "blocks", "rlm"}
    assert [ask.at_s for ask in plan.asks] == sorted(ask.at_s for ask in plan.asks)
    assert len({fault.kind for fault in plan.faults}) > len(MENU) / 2
    assert all(0.95 <= clock.rate <= 1.05 for clock in plan.clocks)
    assert len({clock.rate for clock in plan.clocks}) == 3


def test_no_two_cells_of_a_plan_are_the_same() -> None:
    submits = [ask for ask in draw(BUSY, 5).asks if ask.kind == "submit"]
    codes = [code for ask in submits for _, code in ask.cells]
    assert len(codes) == len(set(codes)) > 100


def test_a_batch_wants_each_of_its_replies() -> None:
    batched = BUSY.model_copy(update={"work": Work(batched=1.0, batch_calls_max=40, direct=0.0)})
    asks = [ask for ask in draw(batched, 5).asks if ask.kind == "submit"]
    calls = [[call.prompt for _, code in ask.cells for call in sub_calls(code)] for ask in asks]
    assert all(3 <= len(prompts) <= 41 for prompts in calls)
    assert len({len(prompts) for prompts in calls}) > 5
    for ask, prompts in zip(asks, calls, strict=True):
        assert {f"reply to: {prompt}" for prompt in prompts} <= set(ask.wanted)


def test_files_come_with_tasks_that_have_cells_and_some_tasks_are_handed_over() -> None:
    full = [ask for seed in range(10) for ask in draw(load("full"), seed).asks]
    assert any(ask.given_bytes for ask in full)
    assert not any(ask.given_bytes for ask in full if not ask.cells)
    detached = [ask.is_detached for seed in range(10) for ask in draw(load("detached"), seed).asks]
    assert 0 < detached.count(False) < detached.count(True)


def test_nothing_befalls_who_is_spared() -> None:
    scarce = load("scarce")
    assert scarce.befallen == (0, 1, 2, 3)
    faults = [fault for seed in range(10) for fault in draw(scarce, seed).faults]
    assert {number for fault in faults for number in fault.nodes} == set(scarce.befallen)
    assert load("home").befallen == (0, 1, 2)


def test_with_fewer_faults_nothing_else_changes() -> None:
    plan = draw(BUSY, 5)
    fewer = plan.without(frozenset({0, 2}))
    assert fewer.faults == (plan.faults[1], *plan.faults[3:])
    assert (fewer.asks, fewer.clocks) == (plan.asks, plan.clocks)
    quiet = draw(BUSY.model_copy(update={"faults": None}), 5)
    assert not quiet.faults
    assert quiet.asks == plan.asks


def test_a_plan_can_be_written_down_and_read_again() -> None:
    plan = draw(BUSY, 7)
    assert from_json(to_json(plan)) == plan


@pytest.mark.parametrize("text", ["{}", "[]", "7", "{", '{"scenario": {}}'])
def test_what_is_no_plan_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"plan|Expecting|validation error"):
        from_json(text)
