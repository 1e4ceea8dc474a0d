"""Who is served next."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.fair_queue import AGEING_S, FairQueue, Waiting
from kowalski.protocol.messages.placement import Priority


def waiting(
    ticket: int,
    flow: str = "a",
    priority: Priority = "normal",
    *,
    cost_s: float = 1.0,
    at: float = 0.0,
) -> Waiting:
    return Waiting(ticket, flow, priority, cost_s, at, at + 60.0)


def queue(*ones: Waiting) -> FairQueue:
    made = FairQueue()
    for one in ones:
        made = made.push(one)
    return made


def served(made: FairQueue, now: float = 0.0, *, newest_first: bool = False) -> list[int]:
    order: list[int] = []
    while (popped := made.pop(now, newest_first=newest_first)) is not None:
        made, one = popped
        order.append(one.ticket)
    return order


def test_of_one_flow_the_first_to_come_is_the_first_to_be_served() -> None:
    assert served(queue(*[waiting(n) for n in range(5)])) == [0, 1, 2, 3, 4]
    assert FairQueue().pop(0.0) is None


def test_a_flood_of_one_delays_itself_and_not_the_others() -> None:
    flood = [waiting(n, "flood") for n in range(10)]
    made = queue(*flood, waiting(100, "quiet"), waiting(101, "quiet"))
    assert served(made)[:4] == [0, 100, 1, 101]


def test_who_takes_longer_gets_fewer_turns() -> None:
    long = [waiting(n, "long", cost_s=3.0) for n in range(10)]
    short = [waiting(100 + n, "short", cost_s=1.0) for n in range(10)]
    first = Counter(
        "long" if ticket < 100 else "short" for ticket in served(queue(*long, *short))[:12]
    )
    assert first == {"long": 3, "short": 9}


def test_who_was_idle_has_saved_up_nothing() -> None:
    made = queue(*[waiting(n, "busy") for n in range(50)])
    for _ in range(40):
        popped = made.pop(0.0)
        assert popped is not None
        made = popped[0]
    made = made.push(waiting(100, "late")).push(waiting(101, "late")).push(waiting(102, "late"))
    assert served(made)[:5] in ([100, 40, 101, 41, 102], [40, 100, 41, 101, 42])


def test_what_was_charged_too_little_is_paid_later() -> None:
    made = queue(waiting(0, "liar"), waiting(1, "liar"), waiting(2, "b"), waiting(3, "b"))
    popped = made.pop(0.0)
    assert popped is not None
    made = popped[0].correct("liar", 10.0)
    assert served(made) == [2, 3, 1]


def test_the_higher_priority_goes_first_whoever_has_it() -> None:
    made = queue(
        waiting(0, "a", "batch"), waiting(1, "a", "normal"), waiting(2, "b", "interactive")
    )
    assert served(made) == [2, 1, 0]


def test_who_has_waited_long_rises_and_never_starves() -> None:
    made = queue(waiting(0, priority="batch", at=0.0), waiting(1, priority="normal", at=AGEING_S))
    assert served(made, AGEING_S) == [0, 1]
    fresh = queue(
        waiting(0, priority="batch"), waiting(1, priority="interactive", at=2 * AGEING_S + 1)
    )
    assert served(fresh, 2 * AGEING_S + 1) == [0, 1]


def test_in_an_overload_the_newest_of_a_flow_goes_first_and_flows_still_take_turns() -> None:
    made = queue(
        waiting(0, at=0.0), waiting(1, at=1.0), waiting(2, "b", at=2.0), waiting(3, at=3.0)
    )
    assert served(made, 4.0, newest_first=True) == [3, 2, 1, 0]


def test_who_is_ahead_of_a_newcomer() -> None:
    made = queue(*[waiting(n, "flood") for n in range(5)], waiting(9, "b", "batch"))
    assert [one.ticket for one in made.ahead_of("flood", "normal", 0.0)] == [0, 1, 2, 3, 4]
    assert [one.ticket for one in made.ahead_of("quiet", "normal", 0.0)] == [0]
    assert made.ahead_of("quiet", "interactive", 0.0) == ()
    assert len(made.ahead_of("b", "batch", 0.0)) == 6


def test_the_longest_line_pays_for_a_newcomer_with_a_shorter_one() -> None:
    made = queue(*[waiting(n, "flood", at=n) for n in range(4)], waiting(9, "b"))
    victim = made.victim("quiet", "normal", 5.0)
    assert victim is not None
    assert victim.ticket == 3
    assert made.victim("flood", "normal", 5.0) is None


def test_neighbours_with_lines_of_about_the_same_length_do_not_push_each_other_out() -> None:
    made = queue(waiting(0, "a"), waiting(1, "a"), waiting(2, "b"))
    assert made.victim("b", "normal", 0.0) is None
    assert FairQueue().victim("a", "normal", 0.0) is None


def test_the_lower_priority_goes_before_the_higher_does() -> None:
    made = queue(waiting(0, "a", "batch"), waiting(1, "b", "normal"), waiting(2, "b", "normal"))
    victim = made.victim("c", "interactive", 0.0)
    assert victim is not None
    assert victim.ticket == 0
    assert made.victim("c", "batch", 0.0) is None


flows = st.sampled_from(["a", "b", "c"])
priorities: st.SearchStrategy[Priority] = st.sampled_from(["batch", "normal", "interactive"])
arrivals = st.lists(st.tuples(flows, priorities, st.floats(0.01, 10)), max_size=30)


@given(arrivals, st.booleans())
def test_everybody_is_served_exactly_once(
    coming: list[tuple[str, Priority, float]], newest_first: bool
) -> None:
    made = queue(
        *[
            waiting(n, flow, priority, cost_s=cost)
            for n, (flow, priority, cost) in enumerate(coming)
        ]
    )
    order = served(made, newest_first=newest_first)
    assert sorted(order) == list(range(len(coming)))


@given(st.lists(st.tuples(flows, st.floats(0.1, 3.0)), min_size=6, max_size=60))
def test_backlogged_flows_differ_by_no_more_than_one_job_of_each(
    coming: list[tuple[str, float]],
) -> None:
    """The bound of start-time fair queueing (theorem 1 of the paper), for equal weights."""
    made = queue(*[waiting(n, flow, cost_s=cost) for n, (flow, cost) in enumerate(coming)])
    left, got = Counter(flow for flow, _ in coming), Counter[str]()
    while all(left[flow] for flow in "abc"):
        popped = made.pop(0.0)
        assert popped is not None
        made, one = popped
        left[one.flow] -= 1
        got[one.flow] += one.cost_s  # type: ignore[assignment]
        spread = max(got[flow] for flow in "abc") - min(got[flow] for flow in "abc")
        assert spread <= 2 * max(cost for _, cost in coming) + 1e-9


@given(arrivals, flows, priorities)
def test_whoever_is_pushed_out_is_of_no_higher_rank_and_of_a_longer_line(
    coming: list[tuple[str, Priority, float]], flow: str, priority: Priority
) -> None:
    made = queue(*[waiting(n, f, p, cost_s=cost) for n, (f, p, cost) in enumerate(coming)])
    victim = made.victim(flow, priority, 0.0)
    if victim is not None:
        newcomer = waiting(999, flow, priority)
        assert victim.rank(0.0) <= newcomer.rank(0.0)
        if victim.priority == priority:
            alike = Counter(one.flow for one in made.waiting if one.priority == priority)
            assert alike[victim.flow] > alike[flow] + 1


def test_virtual_time_never_goes_back() -> None:
    made = queue(*[waiting(n, f"{n % 3}") for n in range(9)])
    before = made.virtual_s
    while (popped := made.pop(0.0)) is not None:
        made = popped[0]
        assert made.virtual_s >= before
        before = made.virtual_s
    assert made.charged == pytest.approx({"0": 3.0, "1": 3.0, "2": 3.0})
