"""How many at a time do not make each other slower: laws, and servers of different kinds."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.concurrency_limit import BELIEVED_SAMPLES, BETA, ConcurrencyLimit


def settled(
    limit: ConcurrencyLimit, pace: Callable[[int], float], samples: int = 400
) -> ConcurrencyLimit:
    """After a long time at full load, `pace` being seconds a unit at so many in flight."""
    for in_flight in range(1, 3):  # a quiet moment at the beginning
        limit = limit.learn(pace(in_flight), in_flight)
    for _ in range(samples):
        limit = limit.learn(pace(limit.limit), limit.limit)
    return limit


def test_a_server_that_works_off_one_after_the_other_is_sent_few_at_a_time() -> None:
    limit = settled(ConcurrencyLimit(16, 16), lambda n: 0.1 * n)
    assert limit.limit <= BETA + 2


def test_it_stays_so_however_long_the_load_lasts() -> None:
    limit = settled(ConcurrencyLimit(16, 16), lambda n: 0.1 * n, samples=5000)
    assert limit.limit <= BETA + 2


def test_a_machine_that_has_become_slower_is_measured_anew() -> None:
    fast = settled(ConcurrencyLimit(16, 16), lambda _n: 0.1)
    throttled = settled(fast, lambda _n: 0.3, samples=BELIEVED_SAMPLES + 100)
    assert throttled.best_unit_s == 0.3
    assert throttled.limit == 16


def test_a_server_that_takes_them_all_at_no_cost_is_sent_all_it_says() -> None:
    assert settled(ConcurrencyLimit(16, 4), lambda _n: 0.1).limit == 16


def test_a_server_that_batches_at_a_small_cost_keeps_its_slots() -> None:
    assert settled(ConcurrencyLimit(8, 8), lambda n: 0.1 * (1 + 0.05 * n)).limit == 8


def test_an_idle_server_proves_nothing_and_its_limit_does_not_grow() -> None:
    limit = ConcurrencyLimit(16, 8)
    for _ in range(100):
        limit = limit.learn(0.1, 1)
    assert limit.limit == 8


def test_other_slots_begin_anew() -> None:
    shrunk = settled(ConcurrencyLimit(16, 16), lambda n: 0.1 * n)
    assert shrunk.resize(16) == shrunk
    assert shrunk.resize(4).limit == 4


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 128)), max_size=60),
)
def test_the_limit_is_at_least_one_and_at_most_what_the_server_says(
    most: int, samples: list[tuple[float, int]]
) -> None:
    limit = ConcurrencyLimit(most, most)
    for unit_s, in_flight in samples:
        before = limit.limit
        limit = limit.learn(unit_s, in_flight)
        assert 1 <= limit.limit <= most
        assert limit.limit <= before + 1
