"""What is remembered of choices, and what is counted of those that are not."""

from __future__ import annotations

from kowalski.node.core.decision_log import TASKS_COUNTED, DecisionLog
from kowalski.protocol.ids import TaskId

A, B = TaskId("a"), TaskId("b")


def test_the_last_choices_are_kept_and_the_forgotten_counted_by_task() -> None:
    log = DecisionLog[int](kept=3)
    for number, task in enumerate((A, B, A, None, A, B)):
        log.add(task, number)
    assert (list(log), len(log), log.latest(2)) == ([3, 4, 5], 3, [4, 5])
    assert (log.forgotten_of(A), log.forgotten_of(B)) == (2, 1)
    assert log.forgotten_of(TaskId("c")) == 0


def test_all_that_were_ever_made_are_counted_by_what_they_are() -> None:
    log = DecisionLog[int](kept=1, count_as=lambda number: ("odd" if number % 2 else "even",))
    for number in range(5):
        log.add(A, number)
    assert log.counts == {("even",): 3, ("odd",): 2}


def test_what_was_chosen_for_no_task_is_forgotten_without_a_count() -> None:
    log = DecisionLog[int](kept=1)
    for number in range(3):
        log.add(None, number)
    assert list(log) == [2]


def test_counts_are_kept_of_so_many_tasks_and_no_more() -> None:
    log = DecisionLog[int](kept=1)
    for number in range(TASKS_COUNTED + 2):
        log.add(TaskId(f"t{number}"), number)
    assert log.forgotten_of(TaskId("t0")) == 0
    assert log.forgotten_of(TaskId(f"t{TASKS_COUNTED}")) == 1
