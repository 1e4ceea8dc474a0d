from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.backoff import BASE_S, WAIT_S_MAX, full_jitter_s, spread_s

draws = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 900), draws)
def test_a_wait_lies_between_nothing_and_a_bound_that_doubles(failures: int, draw: float) -> None:
    wait_s = full_jitter_s(failures, draw)
    assert 0 <= wait_s <= WAIT_S_MAX
    assert wait_s <= BASE_S * 2**failures
    assert full_jitter_s(failures, 0.0) == 0.0


def test_the_bound_doubles_with_each_failure_until_it_is_a_second() -> None:
    assert [full_jitter_s(n, 1.0) for n in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(st.floats(0, 60), draws)
def test_nobody_comes_back_sooner_than_told_and_not_all_at_once(told_s: float, draw: float) -> None:
    assert told_s <= spread_s(told_s, draw) <= 1.5 * told_s
