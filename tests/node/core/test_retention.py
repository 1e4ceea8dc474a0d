"""What is forgotten: what is old, and the oldest of too many or too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.retention import DAY_S, Ended, Keeping, forgotten
from kowalski.protocol.ids import TaskId

NOW = 100 * DAY_S


def ended(*ages_days: float, size: int = 10) -> list[Ended]:
    return [Ended(TaskId(f"t{n}"), NOW - age * DAY_S, size) for n, age in enumerate(ages_days)]


def test_nothing_is_forgotten_that_is_young_little_and_few() -> None:
    assert forgotten(ended(1, 2, 29.9), Keeping(), NOW) == ()


def test_what_ended_a_month_ago_is_forgotten() -> None:
    assert forgotten(ended(31, 1, 30), Keeping(), NOW) == ("t0", "t2")


def test_of_too_many_the_oldest_go() -> None:
    assert forgotten(ended(3, 1, 2), Keeping(tasks_max=1), NOW) == ("t0", "t2")


def test_of_too_much_the_oldest_go() -> None:
    assert forgotten(ended(3, 1, 2, size=10), Keeping(bytes_max=25), NOW) == ("t0",)


@given(
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 100)), max_size=30),
    st.integers(0, 20),
    st.integers(0, 500),
)
def test_what_stays_fits_and_is_younger_than_what_goes_for_want_of_room(
    tasks: list[tuple[float, int]], tasks_max: int, bytes_max: int
) -> None:
    everything = [
        Ended(TaskId(f"t{n}"), NOW - age * DAY_S, size) for n, (age, size) in enumerate(tasks)
    ]
    gone = set(forgotten(everything, Keeping(30 * DAY_S, tasks_max, bytes_max), NOW))
    kept = [one for one in everything if one.task not in gone]
    assert len(kept) <= tasks_max
    assert sum(one.size_bytes for one in kept) <= bytes_max
    assert all(NOW - one.unix_s < 30 * DAY_S for one in kept)
