"""When a standby wakes, and when it rests."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.placement import Candidate
from kowalski.node.core.activation import (
    PARAMS,
    STANDBY,
    Activation,
    busiest_load,
    look,
    standbys_before,
)
from tests.mesh.core.test_placement import busy, candidate


def after(state: Activation, load: float, seconds: float, before: int = 0) -> Activation:
    """The state after so long at one load, looked at once a second."""
    now = 100.0
    end = now + seconds
    while now <= end:
        state = look(state, load, before, now)
        now += 1.0
    return state


def test_a_load_above_the_threshold_for_five_seconds_wakes_it() -> None:
    assert not after(Activation(), 0.9, 4.0).is_active
    assert after(Activation(), 0.9, 5.0).is_active
    assert not after(Activation(), 0.8, 60.0).is_active


def test_a_peak_that_passes_wakes_nobody() -> None:
    state = after(Activation(), 2.0, 4.0)
    state = look(state, 0.5, 0, 105.0)
    assert state.since == inf
    assert not look(state, 2.0, 0, 106.0).is_active


def test_the_second_standby_waits_to_see_whether_the_first_is_enough() -> None:
    assert not after(Activation(), 0.9, 5.0, before=1).is_active
    assert after(Activation(), 0.9, 8.0, before=1).is_active


def test_it_rests_below_half_of_what_woke_it_and_not_before() -> None:
    awake = Activation(is_active=True)
    assert after(awake, 0.45, 60.0).is_active
    assert after(awake, 0.3, 4.0).is_active
    assert not after(awake, 0.3, 5.0).is_active


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_it_never_flaps_faster_than_its_patience(loads: list[float]) -> None:
    state, changed_at = Activation(), -inf
    for second, load in enumerate(loads):
        was_active = state.is_active
        state = look(state, load, 0, float(second))
        if state.is_active != was_active:
            assert second - changed_at >= PARAMS.after_s
            changed_at = second


# --- what it looks at ---------------------------------------------------------------------------


def test_the_load_is_that_of_all_active_peers_together() -> None:
    full = candidate("full", occupancy=busy("code", running=4, queued=4))
    idle = candidate("idle", occupancy=busy("code", running=0, slots=12))
    assert busiest_load([full], ["code"]) == 2.0
    assert busiest_load([full, idle], ["code"]) == pytest.approx(8 / 16)


@pytest.mark.parametrize(
    "change", [{"is_routable": False}, {"paused": "on battery"}, {"is_self": True}]
)
def test_who_takes_no_work_does_not_count(change: dict[str, object]) -> None:
    full = candidate("full", occupancy=busy("code", running=4))
    out: Candidate = candidate("out", **change)
    assert busiest_load([full, out], ["code"]) == 1.0


def test_the_kind_that_is_worst_off_counts_and_one_that_nobody_does_most() -> None:
    one = candidate(
        "one", occupancy=busy("inference", running=6), roles=frozenset({"infer", "repl"})
    )
    assert busiest_load([one], ["code", "inference"]) == 1.5
    assert busiest_load([one], ["code", "folding"]) == inf
    assert busiest_load([one], []) == 0.0


def test_all_standbys_agree_who_comes_first() -> None:
    peers = [candidate(f"{n}", paused=STANDBY) for n in range(5)]
    assert sorted(standbys_before(one.peer, peers) for one in peers) == [0, 1, 2, 3, 4]


def test_who_does_not_stand_by_comes_before_nobody() -> None:
    others = [candidate("awake"), candidate("flat", paused="on battery")]
    assert standbys_before(candidate("me").peer, others) == 0
