"""What of a journal is gone on with."""

from __future__ import annotations

import pytest

from kowalski.node.core import resuming
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.task import Entry
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
