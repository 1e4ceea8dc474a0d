"""A child that ends is started again, but not for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.restarts import ATTEMPTS_MAX, DELAY_S_MAX, SOON_S, Restarts


def test_one_that_ran_for_a_while_is_started_at_once() -> None:
    assert Restarts(3).ended(SOON_S) == (Restarts(), 0.0)


def test_one_that_ends_soon_waits_longer_each_time_and_is_given_up() -> None:
    restarts, delays = Restarts(), []
    for _ in range(ATTEMPTS_MAX):
        restarts, delay_s = restarts.ended(0.0)
        delays.append(delay_s)
    assert delays == [0.5, 1.0, 2.0, 4.0, None]


@given(st.lists(st.floats(0, 100), max_size=50))
def test_no_wait_is_longer_than_the_longest_and_only_vain_starts_are_given_up(
    runs: list[float],
) -> None:
    restarts = Restarts()
    for number, ran_s in enumerate(runs):
        restarts, delay_s = restarts.ended(ran_s)
        if delay_s is None:
            assert all(ran < SOON_S for ran in runs[number + 1 - ATTEMPTS_MAX : number + 1])
            return
        assert 0 <= delay_s <= DELAY_S_MAX
