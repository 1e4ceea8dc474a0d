"""How often lost work is begun again, and after what pause."""

from __future__ import annotations

import pytest

from kowalski.node.core import retries
from kowalski.protocol.messages.task import Failover, RetryPolicy, TaskSpec


def spec(failover: Failover, retries_max: int = 2) -> TaskSpec:
    return TaskSpec(
        prompt="x",
        max_iterations=1,
        timeout_s=1.0,
        failover=failover,
        retry=RetryPolicy(retries_max=retries_max),
    )


def test_pauses_double_up_to_ten_minutes() -> None:
    policy = RetryPolicy(delay_s=1.5)
    assert [retries.pause_s(policy, n) for n in range(4)] == [1.5, 3.0, 6.0, 12.0]
    assert retries.pause_s(policy, 60) == retries.pause_s(policy, 10**6) == 600.0


def test_pauses_are_all_alike_unless_they_are_exponential() -> None:
    policy = RetryPolicy(delay_s=2.0, is_exponential=False)
    assert {retries.pause_s(policy, n) for n in range(50)} == {2.0}


def test_by_default_there_is_no_pause() -> None:
    assert {retries.pause_s(RetryPolicy(), n) for n in range(50)} == {0.0}


@pytest.mark.parametrize(
    ("failover", "allowed"),
    [("fail", []), ("redistribute", [0, 1]), ("queue", [0, 1, 2, 3])],
)
def test_what_is_lost_is_begun_again_as_often_as_the_task_allows(
    failover: Failover, allowed: list[int]
) -> None:
    assert [n for n in range(4) if retries.may_retry(spec(failover), n)] == allowed
