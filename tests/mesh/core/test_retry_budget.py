"""How many requests nobody asked for may be sent."""

from __future__ import annotations

from math import floor

from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.retry_budget import TRICKLE_MAX, WINDOW_S, RetryBudget


def spent_at_once(budget: RetryBudget, now: float) -> int:
    count = 0
    while (after := budget.spend(now)) is not None:
        budget, count = after, count + 1
    return count


def test_a_quiet_node_may_spend_the_trickle_of_the_window() -> None:
    assert spent_at_once(RetryBudget(), 0.0) == TRICKLE_MAX < WINDOW_S
    assert spent_at_once(RetryBudget(per_s=0.3), 0.0) == 3
    assert spent_at_once(RetryBudget(per_s=0.0), 0.0) == 0


def test_a_fifth_of_what_was_asked_may_be_tried_again() -> None:
    budget = RetryBudget(per_s=0.0)
    for _ in range(100):
        budget = budget.ask(5.0)
    assert spent_at_once(budget, 5.5) == 20


def test_what_was_asked_and_spent_is_forgotten_after_the_window() -> None:
    budget = RetryBudget(per_s=0.1)
    for _ in range(50):
        budget = budget.ask(0.0)
    while (after := budget.spend(0.0)) is not None:
        budget = after
    assert budget.spend(9.9) is None
    assert spent_at_once(budget, 10.0) == 1


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60
    ),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.sampled_from([0.0, 0.2, 1.0]),
)
def test_in_no_window_more_is_spent_than_the_share_and_the_trickle(
    moments: list[tuple[float, int, int]], share: float, per_s: float
) -> None:
    budget, now = RetryBudget(share=share, per_s=per_s), 0.0
    asked: list[int] = []
    spent: list[int] = []
    for passed_s, asks, tries in moments:
        now += passed_s
        for _ in range(asks):
            budget = budget.ask(now)
            asked.append(floor(now))
        for _ in range(tries):
            after = budget.spend(now)
            if after is not None:
                budget = after
                spent.append(floor(now))
                since = floor(now) - WINDOW_S
                trickle = min(per_s * WINDOW_S, TRICKLE_MAX)
                allowed = share * sum(at > since for at in asked) + trickle
                assert sum(at > since for at in spent) <= allowed + 1e-9
        assert len(budget.seconds) <= WINDOW_S
