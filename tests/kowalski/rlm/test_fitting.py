"""Which budget of ours comes out as a budget that somebody else counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.rlm.fitting import ROUNDS_MAX, Fitting, first


def run(wanted: int, fitting: Fitting | None, share: float, jitter: list[float]) -> list[int]:
    """What each fold comes out as, where theirs are so many of ours."""
    told: list[int] = []
    while fitting is not None:
        told.append(int(fitting.ours * share * jitter[len(told)]))
        fitting = fitting.counted(told[-1])
    return told


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0, 1.3, 4.0])
def test_a_vocabulary_of_any_size_is_met_in_a_round_or_two(share: float) -> None:
    told = run(1000, Fitting(1000, 1000), share, [1.0] * ROUNDS_MAX)
    assert 950 <= told[-1] <= 1000
    assert len(told) <= 2


def test_what_some_of_the_text_counts_as_is_where_it_begins() -> None:
    fitting = first(1000, counted=400, estimated=100)
    assert run(1000, fitting, 4.0, [1.0] * ROUNDS_MAX) == [fitting.ours * 4]
    assert 950 <= fitting.ours * 4 <= 1000
    assert first(10, counted=0, estimated=0).ours == 10
    assert first(1, counted=1000, estimated=10).ours == 1


@given(
    st.integers(1, 10_000),
    st.floats(0.1, 8.0),
    st.lists(st.floats(0.9, 1.1), min_size=ROUNDS_MAX, max_size=ROUNDS_MAX),
)
def test_it_ends_and_never_again_asks_for_what_was_too_long(
    wanted: int, share: float, jitter: list[float]
) -> None:
    fitting: Fitting | None = Fitting(wanted, wanted)
    over: list[int] = []
    rounds = 0
    while fitting is not None:
        assert fitting.ours >= 1
        assert all(fitting.ours < one for one in over)
        tokens = int(fitting.ours * share * jitter[rounds])
        over += [fitting.ours] if tokens > wanted else []
        fitting = fitting.counted(tokens)
        rounds += 1
        assert rounds <= ROUNDS_MAX


def test_a_text_that_counts_as_nothing_is_folded_once() -> None:
    assert Fitting(10, 10).counted(0) is None
