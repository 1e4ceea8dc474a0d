"""Who is next: priority first, then whoever had least, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.fair_order import CLIENTS_MAX, FairOrder, Waiting


def served_in_order(
    waiting: list[Waiting], *, order: FairOrder | None = None, now: float = 0.0
) -> list[str]:
    """Everybody, one after the other, each done before the next begins."""
    order = order or FairOrder()
    names = []
    while first := order.next_up(waiting, {}, now):
        names.append(first.name)
        waiting = [one for one in waiting if one is not first]
        order = order.served(first.client, now)
    return names


def of(client: str, count: int, *, priority: int = 5, since: float = 0.0) -> list[Waiting]:
    return [Waiting(f"{client}{n}", client, priority, since + n / 1000) for n in range(count)]


def test_where_nobody_waits_nobody_is_next() -> None:
    assert FairOrder().next_up([], {}, 0.0) is None


def test_tasks_of_one_client_come_in_the_order_in_which_they_came() -> None:
    assert served_in_order(of("a", 3)) == ["a0", "a1", "a2"]


def test_the_higher_priority_is_first_however_late_it_came() -> None:
    late = Waiting("late", "a", 9, 3.0)
    assert served_in_order([*of("a", 2), late], now=4.0) == ["late", "a0", "a1"]


def test_one_task_does_not_wait_behind_the_thousand_of_another_client() -> None:
    names = served_in_order([*of("many", 1000), *of("one", 1, since=5.0)], now=6.0)
    assert names.index("one0") <= 1


def test_clients_take_turns() -> None:
    names = served_in_order([*of("a", 4), *of("b", 2)])
    assert names[:4] in (["a0", "b0", "a1", "b1"], ["b0", "a0", "b1", "a1"])


def test_whose_tasks_are_at_work_already_stands_behind_one_with_nothing() -> None:
    first = FairOrder().next_up([*of("a", 1), *of("b", 1, since=1.0)], {"a": 3}, 2.0)
    assert first is not None
    assert first.name == "b0"


def test_a_low_priority_is_served_in_the_end_though_higher_ones_keep_coming() -> None:
    low = Waiting("low", "low", 4, 0.0)
    order, now = FairOrder(age_s=60.0), 0.0
    while True:
        busy_client = Waiting(f"high at {now}", "high", 5, now)
        first = order.next_up([low, busy_client], {}, now)
        assert first is not None
        if first is low:
            break
        order, now = order.served(first.client, now), now + 1.0
        assert now < 200.0
    assert now >= 60.0, "not before it has waited for its rise"


def test_waiting_long_in_ones_own_queue_is_no_merit() -> None:
    order, now = FairOrder(age_s=60.0), 0.0
    many = of("many", 600)
    for _ in range(300):
        first = order.next_up(many, {}, now)
        assert first is not None
        many.remove(first)
        order, now = order.served("many", now), now + 1.0
    newcomer = Waiting("new", "new", 5, now)
    first = order.next_up([*many, newcomer], {}, now)
    assert first is newcomer


def test_clients_are_forgotten_beyond_a_bound_the_longest_unserved_first() -> None:
    order = FairOrder()
    for number in range(CLIENTS_MAX + 5):
        order = order.served(f"client {number}", 0.0)
    assert len(order.clients) == CLIENTS_MAX
    assert "client 0" not in order.clients
    assert f"client {CLIENTS_MAX + 4}" in order.clients


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.floats(0, 100)), max_size=30),
    st.floats(0, 1000),
)
def test_everybody_is_served_once_and_no_client_twice_before_another_of_its_priority(
    asked: list[tuple[str, int, float]], now: float
) -> None:
    waiting = [Waiting(str(n), client, prio, at) for n, (client, prio, at) in enumerate(asked)]
    names = served_in_order(list(waiting), order=FairOrder(age_s=1e9), now=max(now, 100.0))
    assert sorted(names) == sorted(one.name for one in waiting)
    of_name = {one.name: one for one in waiting}
    for priority in {one.priority for one in waiting}:
        clients = [of_name[name].client for name in names if of_name[name].priority == priority]
        left = Counter(clients)
        for one, other in pairwise(clients):
            left[one] -= 1
            others_wait = any(count for client, count in left.items() if client != one)
            assert one != other or not others_wait
