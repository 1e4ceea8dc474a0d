"""How long one who comes now would wait, and when to look again."""

from __future__ import annotations

import pytest

from kowalski.node.core.fair_queue import FairQueue, Waiting
from kowalski.node.core.lane import RETRY_AFTER_S_MAX, RETRY_AFTER_S_MIN, Lane, Reserved, Running

NOW = 1000.0


def running(*costs_s: float, since_s: float = 0.0, is_lent: bool = False) -> dict[int, Running]:
    began_at = NOW - since_s
    return {at: Running("flow", cost_s, began_at, is_lent) for at, cost_s in enumerate(costs_s)}


def reserved(*costs_s: float) -> dict[int, Reserved]:
    return {at: Reserved("asker", "flow", cost_s, NOW + 2) for at, cost_s in enumerate(costs_s)}


def waiting(*costs_s: float) -> FairQueue:
    queue = FairQueue()
    for ticket, cost_s in enumerate(costs_s):
        queue = queue.push(Waiting(ticket, "flow", "normal", cost_s, NOW, NOW + 600))
    return queue


@pytest.mark.parametrize(
    ("lane", "wait_s"),
    [
        (Lane(2), 0.0),
        (Lane(2, running(10.0)), 0.0),
        (Lane(2, running(10.0, 6.0)), 6.0),
        (Lane(2, running(10.0, 6.0, since_s=4.0)), 3.0),
        (Lane(2, running(10.0, 6.0), reserved(1.0)), 7.0),
        (Lane(2, running(10.0, 6.0), reserved(1.0), waiting(2.0)), 9.0),
        (Lane(1, running(10.0, is_lent=True)), 0.0),
        (Lane(1, running(10.0, 6.0)), 10.0),
        (Lane(0, running(10.0)), 10.0),
    ],
    ids=[
        "nobody is here",
        "a slot is free",
        "the first to end makes room",
        "half its time at least is left to who runs longer than expected",
        "a promised place comes first",
        "so do those who wait",
        "a lent slot is free",
        "the first to end makes no room where too many run",
        "without slots as if there were one",
    ],
)
def test_one_that_comes_now_waits_for_those_before_it(lane: Lane, wait_s: float) -> None:
    assert lane.wait_s("other", "normal", NOW) == pytest.approx(wait_s)


def test_it_is_told_to_look_again_when_somebody_is_expected_to_end_but_within_bounds() -> None:
    assert Lane(1, running(4.0, 3.0)).retry_after_s(NOW) == 3.0
    assert Lane(1, running(1e6)).retry_after_s(NOW) == RETRY_AFTER_S_MAX
    assert Lane(1).retry_after_s(NOW) == RETRY_AFTER_S_MIN


def test_it_tells_in_words_how_full_it_is() -> None:
    lane = Lane(2, running(1.0, 1.0), reserved(1.0), waiting(1.0))
    assert str(lane) == "2 running, 2 waiting, 2 slots"
