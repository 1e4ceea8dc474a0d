"""Tasks that end otherwise than they should are seen, and so are tasks that are not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from kowalski.node.core.task_ledger import Task
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import TaskSpec
from simulations.checkers.ends import Taken, models_down, was_alone, why_not_conserved, why_wrong
from simulations.menu import Fault
from simulations.plan import Ask
from simulations.scenarios import load

SPEC = TaskSpec(prompt="x", max_iterations=1, timeout_s=10.0)
HOME, FAILING = load("home"), load("failing")


def wrong(
    state: Literal["answered", "failed", "cancelled"],
    answer: str = "",
    detail: str = "",
    *,
    scenario: str = "home",
    fired: tuple[str, ...] = (),
    is_cancelled: bool = False,
    timeout_s: float = 3600.0,
    down: int = 0,
    alone: bool = False,
) -> bool:
    closed = journal.Closed(outcome=state, answer=answer, detail=detail)
    task = Task(TaskId("t"), SPEC, 0, state=state, answer=closed)
    ask = Ask("submit", 0.0, 0, "t", wanted=("x is 1",), timeout_s=timeout_s)
    where = {"home": HOME, "failing": FAILING}[scenario]
    why = why_wrong(
        ask,
        task,
        where,
        fired=fired,
        is_cancelled=is_cancelled,
        models_down=down,
        was_alone=alone,
    )
    return bool(why)


def test_the_wanted_words_in_whatever_spacing_are_right_and_others_are_not() -> None:
    assert not wrong("answered", "so x_is 1.")
    assert wrong("answered", "x is 2")
    assert wrong("failed")
    assert wrong("cancelled")
    assert not wrong("cancelled", is_cancelled=True)


@pytest.mark.parametrize(("timeout_s", "is_wrong"), [(3600.0, True), (5.0, False)])
def test_who_is_in_a_hurry_may_be_late(timeout_s: float, *, is_wrong: bool) -> None:
    assert wrong("failed", detail="timeout: no end", timeout_s=timeout_s) == is_wrong
    assert wrong("answered", detail="timeout", timeout_s=timeout_s) == is_wrong


def test_a_session_may_have_died_where_sessions_were_killed() -> None:
    said = "its process died"
    assert wrong("answered", said)
    assert not wrong("answered", said, fired=("kill-sessions",))


def test_without_a_model_a_task_may_end_only_where_all_may_fail() -> None:
    assert wrong("failed", detail="no_peer: no peer has model m")
    assert not wrong("failed", detail="no_peer: no peer has model m", scenario="failing")
    assert not wrong("answered", detail="unrefined: no model", scenario="failing")
    assert wrong("failed", detail="internal", scenario="failing")


def test_a_task_may_meet_none_but_failing_models_where_as_many_failed_as_are_tried() -> None:
    said = "peers_failed: a: backend; b: backend; c: backend"
    assert wrong("failed", detail=said, down=2)
    assert not wrong("failed", detail=said, down=3)
    assert wrong("failed", detail="no_peer: no peer has model m", down=3)
    faults = [
        Fault("model-fails", at_s=at_s, lasts_s=2.0, nodes=(node,), amount=0.5)
        for at_s, node in ((1.0, 0), (1.5, 0), (4.0, 1), (9.0, 2))
    ]
    faults.append(Fault("crash", at_s=4.0, lasts_s=2.0, nodes=(3,), amount=0.5))
    assert [models_down(faults, *span) for span in ((0, 0.5), (2, 5), (3.6, 8.9), (2, 9.5))] == [
        0,
        2,
        1,
        3,
    ]


def test_who_was_alone_may_have_found_no_model_and_says_so() -> None:
    said = "unrefined: no_peer: no peer has model m"
    assert not wrong("answered", "some of it", said, alone=True)
    assert wrong("answered", "some of it", said)
    assert wrong("answered", "some of it", "and not a word", alone=True)
    cut_off = Fault("isolate", at_s=2.0, lasts_s=3.0, nodes=(7,), amount=1.0)
    assert was_alone([cut_off], 7, 4.0, 9.0, nodes=10)
    assert not was_alone([cut_off], 7, 5.5, 9.0, nodes=10)
    assert not was_alone([cut_off], 3, 4.0, 9.0, nodes=10)
    assert not was_alone([replace(cut_off, kind="crash")], 7, 4.0, 9.0, nodes=10)


def test_two_partitions_at_once_may_leave_a_node_with_nobody() -> None:
    one = Fault("bridge", at_s=0.0, lasts_s=5.0, nodes=(1, 2, 0, 3), amount=2.0)  # 3 hears both
    other = Fault("halves", at_s=4.0, lasts_s=4.0, nodes=(0, 2, 3, 1), amount=2.0)
    assert was_alone([one, other], 0, 4.5, 9.0, nodes=4)
    assert not was_alone([one, other], 0, 5.5, 9.0, nodes=4), "the first is over"
    assert not was_alone([one], 0, 0.0, 9.0, nodes=4)
    assert not was_alone([one, other], 3, 0.0, 9.0, nodes=4)
    between = Fault("reject", at_s=0.0, lasts_s=9.0, nodes=(3, 0), amount=1.0)
    assert was_alone([one, between], 0, 0.0, 9.0, nodes=4)


def test_only_an_answer_with_all_that_was_wanted_is_complete() -> None:
    ask = Ask("submit", 0.0, 0, "t", wanted=("x is 1",))
    taken = Taken(ask, 0, 0.0)
    assert not taken.is_complete
    for answer, is_complete in (
        ("so x is 1", True),
        ("unrefined", False),
        ("x is 1, and [unsupported: no peer runs bash]", False),
        ("x is 1, and [not run: node-4: no connection]", False),
    ):
        closed = journal.Closed(outcome="answered", answer=answer)
        taken.last_seen = Task(TaskId("t"), SPEC, 0, state="answered", answer=closed)
        assert taken.is_complete == is_complete
        taken.last_seen = Task(TaskId("t"), SPEC, 0, state="failed", answer=closed)
        assert not taken.is_complete


def test_an_answer_owns_up_to_the_cell_that_was_stopped_or_could_ask_nobody() -> None:
    assert not wrong("answered", "[stopped: it took\ntoo long]", timeout_s=5.0)
    assert wrong("answered", "[stopped: it took\ntoo long]")
    assert wrong("answered", "cut short, and not a word of it", timeout_s=5.0)
    assert not wrong("answered", "[no_peer: no peer has model m]", scenario="failing")
    assert wrong("answered", "[no_peer: no peer has model m]")


def test_tasks_are_neither_lost_nor_made_up() -> None:
    assert not why_not_conserved({"a", "b"}, {"a"}, {"b", "c"})
    assert why_not_conserved({"b"}, {"a"}, {"b"}) == "lost ['a'] and made up []"
    assert why_not_conserved({"a", "b"}, {"a"}, set()) == "lost [] and made up ['b']"
