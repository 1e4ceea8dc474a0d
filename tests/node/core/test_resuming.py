"""What of a journal is gone on with."""

from __future__ import annotations

import pytest

from kowalski.node.core import resuming
from kowalski.node.core.task_ledger import Task, TaskState
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.task import Entry, TaskSpec
from kowalski.rlm.journal import GENESIS, check_chain, entry_of

PEER = PeerId("12D3KooWabcdefgh")
OPENED = journal.Opened(mode="direct", model="m")
REPLIED = journal.ModelReplied(
    call=0, text="x", model="m", peer=PEER, usage=Usage(prompt_tokens=1, completion_tokens=1)
)
STARTED = journal.CellStarted(cell=0, language="python", code="1", peer=PEER)
FAILED = journal.Closed(outcome="failed", answer="", detail="timeout: x")


def entries(*events: journal.SessionEvent) -> list[Entry]:
    return [entry_of(1, n, GENESIS, event) for n, event in enumerate(events)]


@pytest.mark.parametrize(
    "end",
    [
        (FAILED,),
        (journal.BudgetSpent(limit="timeout"), FAILED),
        (journal.CancelHeard(reason="x"), FAILED),
        (STARTED, journal.CancelHeard(reason="x"), FAILED),
        (journal.ModelFailed(call=1, code="no_peer", detail=""), FAILED),
        (STARTED, journal.CellFailed(cell=0, code="peers_failed", detail=""), FAILED),
        (),
    ],
)
def test_all_but_the_end_is_gone_on_with(end: tuple[journal.SessionEvent, ...]) -> None:
    assert resuming.beginning(entries(OPENED, REPLIED, *end)) == (OPENED, REPLIED)


def test_of_a_journal_that_is_only_an_end_nothing_is_left() -> None:
    assert resuming.beginning(entries(FAILED)) == ()
    assert resuming.beginning([]) == ()


def test_it_is_written_anew_as_the_journal_of_another_task() -> None:
    task = TaskId("t-r2")
    written, marks = resuming.written_anew(task, (OPENED, REPLIED), term=1)
    assert check_chain(task, written) == marks[-1]
    assert len(marks) == 2
    assert resuming.beginning(written) == (OPENED, REPLIED)
    assert resuming.written_anew(task, (), term=1) == ((), ())


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("t", ["t-r2", "t-r3"]),
        ("t-r2", ["t-r3", "t-r4"]),
        ("a-row", ["a-row-r2", "a-row-r3"]),
        ("x" * 64, ["x" * 61 + "-r2", "x" * 61 + "-r3"]),
    ],
)
def test_what_goes_on_has_a_name_that_tells(task: str, names: list[str]) -> None:
    made = iter(resuming.next_names(TaskId(task)))
    assert [next(made), next(made)] == names


@pytest.mark.parametrize(
    ("state", "way"),
    [("answered", "answered"), ("running", "not over"), ("waiting", "not over")],
)
def test_what_is_answered_goes_nowhere_and_what_is_not_over_as_itself(
    state: TaskState, way: str
) -> None:
    task = Task(
        TaskId("t"),
        TaskSpec(prompt="why", mode="auto", timeout_s=9.0, max_iterations=7),
        submitted_unix_s=0,
        state=state,
    )
    assert resuming.way_on(task, lambda _: False, timeout_s=5.0, max_iterations=3) == way


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_did_not_end_well_goes_on_under_the_next_free_name_and_as_long_as_is_said(
    state: TaskState,
) -> None:
    spec = TaskSpec(prompt="why", mode="auto", timeout_s=9.0, max_iterations=7)
    task = Task(TaskId("t"), spec, submitted_unix_s=0, state=state)
    way = resuming.way_on(task, lambda name: name == "t-r2", timeout_s=None, max_iterations=3)
    assert way == resuming.Anew(TaskId("t-r3"), spec.model_copy(update={"max_iterations": 3}))
