"""One purse for a session and its children: what is under way is as good as spent."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from kowalski.node.services.purse import BudgetSpentError, Purse
from kowalski.protocol.messages.task import Budget, TaskSpec
from kowalski.rlm.budget import Spent


def purse(spent: list[Spent], **budget: int) -> Purse:
    limits = Budget.model_validate(budget)
    spec = TaskSpec(prompt="q", max_iterations=5, timeout_s=60.0, budget=limits)
    return Purse(spec, lambda: spent[-1])


def test_calls_under_way_count_as_spent_and_the_last_is_kept() -> None:
    spent = [Spent()]
    ours = purse(spent, calls=3)
    with ExitStack() as under_way:
        under_way.enter_context(ours.call())
        under_way.enter_context(ours.call())
        assert ours.left() == {"calls": 0, "tokens": None}
        with pytest.raises(BudgetSpentError, match="3 model calls") as refused:
            under_way.enter_context(ours.call())
        assert refused.value.over.limit == "calls"
    assert ours.left() == {"calls": 2, "tokens": None}
    spent.append(Spent(calls=2))
    with pytest.raises(BudgetSpentError), ours.call():
        pass


def test_a_call_that_failed_gives_its_place_back() -> None:
    ours = purse([Spent()], calls=2)
    with pytest.raises(ValueError, match="weather"), ours.call():
        raise ValueError("weather")
    with ours.call():
        assert ours.left()["calls"] == 0


def test_tokens_end_calls_too() -> None:
    spent = [Spent(prompt_tokens=40, completion_tokens=59)]
    ours = purse(spent, tokens=100)
    with ours.call():
        assert ours.left() == {"calls": None, "tokens": 1}
    spent.append(Spent(prompt_tokens=41, completion_tokens=59))
    with pytest.raises(BudgetSpentError) as refused, ours.call():
        pass
    assert refused.value.over.limit == "tokens"


def test_without_a_budget_nothing_is_scarce() -> None:
    ours = purse([Spent(calls=10_000, prompt_tokens=10**9)])
    with ours.call():
        assert ours.left() == {"calls": None, "tokens": None}
