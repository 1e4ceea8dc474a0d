"""Stories made shorter: what matters stays, and nothing else."""

from __future__ import annotations

from simulations.plan import Plan, draw
from simulations.scenarios import Faults, load
from simulations.shrinking import shrink

LONG = draw(
    load("home").model_copy(
        update={"seconds": 100.0, "faults": Faults(every_s=2.0, is_swarm=False)},
    ),
    3,
)


def test_the_pair_of_faults_that_matters_is_found_and_made_short() -> None:
    first, second = LONG.faults[5], LONG.faults[20]
    kinds = {first.kind, second.kind}

    def breaks(plan: Plan) -> bool:
        return kinds <= {fault.kind for fault in plan.faults if fault.lasts_s >= 0.5}

    small = shrink(LONG, breaks)
    assert sorted(fault.kind for fault in small.faults) == sorted(kinds)
    assert all(fault.lasts_s == 0.5 for fault in small.faults)
    assert small.asks == ()


def test_asks_that_matter_stay() -> None:
    wanted = LONG.asks[4]
    small = shrink(LONG, lambda plan: wanted in plan.asks)
    assert small.faults == ()
    assert small.asks == (wanted,)


def test_what_came_after_the_end_goes_in_one_try() -> None:
    tried: list[Plan] = []

    def breaks(plan: Plan) -> bool:
        tried.append(plan)
        return LONG.asks[0] in plan.asks

    shrink(LONG, breaks, broken_at_s=LONG.asks[2].at_s, tries_max=1)
    assert tried[0].asks == LONG.asks[:3]
    assert all(fault.at_s <= LONG.asks[2].at_s for fault in tried[0].faults)


def test_what_can_go_once_another_has_gone_goes_as_well() -> None:
    """Of the asks each may be left out once those behind it are."""

    def breaks(plan: Plan) -> bool:
        kept = [LONG.asks.index(ask) for ask in plan.asks]
        return kept == list(range(len(kept))) and len(kept) >= 2

    assert shrink(LONG, breaks).asks == LONG.asks[:2]


def test_a_fault_that_can_go_once_less_is_asked_goes_as_well() -> None:
    fault, ask = LONG.faults[3], LONG.asks[4]

    def breaks(plan: Plan) -> bool:
        has_fault = any(one.kind == fault.kind for one in plan.faults)
        return ask in plan.asks and (has_fault or len(plan.asks) == 1)

    small = shrink(LONG, breaks)
    assert (small.faults, small.asks) == ((), (ask,))


def test_nothing_is_tried_twice() -> None:
    tried: list[tuple[object, ...]] = []

    def breaks(plan: Plan) -> bool:
        tried.append((plan.faults, plan.asks))
        return len(plan.faults) >= 3 and len(plan.asks) >= 2

    small = shrink(LONG, breaks)
    assert (len(small.faults), len(small.asks)) == (3, 2)
    assert len(tried) == len(set(tried))


def test_where_everything_matters_nothing_goes() -> None:
    assert shrink(LONG, lambda plan: plan == LONG) == LONG


def test_it_tries_no_more_often_than_it_may() -> None:
    tried: list[Plan] = []

    def breaks(plan: Plan) -> bool:
        tried.append(plan)
        return len(plan.faults) > 3

    shrink(LONG, breaks, tries_max=7)
    assert len(tried) == 7
