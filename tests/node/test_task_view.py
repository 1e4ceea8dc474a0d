"""What a person is shown of a task."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kowalski.node.control_line import ExitCode
from kowalski.node.core.task_ledger import Task, TaskState
from kowalski.node.services.submitter import Seen
from kowalski.node.task_view import TaskView, exit_code, headline
from kowalski.protocol.ids import PeerId, TaskId, content_hash
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.task import Entry, Progress, TaskSpec
from kowalski.rlm.journal import GENESIS, digest, entry_of

DESK, LAPTOP = PeerId("12D3KooWDesk11"), PeerId("12D3KooWLaptop")
NAMES = {DESK: "desk", LAPTOP: "laptop"}
SPEC = TaskSpec(prompt="what\nis  it?", mode="blocks", max_iterations=5, timeout_s=60.0)
USAGE = Usage(prompt_tokens=10, completion_tokens=3)


def name_of(peer: PeerId) -> str:
    return NAMES.get(peer, "")


def task(
    state: TaskState = "running",
    *,
    term: int = 1,
    coordinator: PeerId | None = DESK,
    why: str = "",
    closed: journal.Closed | None = None,
) -> Task:
    return Task(
        TaskId("t"),
        SPEC,
        submitted_unix_s=100,
        state=state,
        term=term,
        coordinator=coordinator,
        why_waiting=why,
        answer=closed,
    )


def entries(*events: journal.SessionEvent) -> list[Entry]:
    made: list[Entry] = []
    parent = GENESIS
    for event in events:
        made.append(entry_of(1, len(made), parent, event))
        parent = digest(TaskId("t"), made[-1])
    return made


def shown(view: TaskView, seen: Iterable[Seen]) -> list[dict[str, object]]:
    return [event for one in seen for event in view.events(one)]


def of_entries(*events: journal.SessionEvent) -> list[dict[str, object]]:
    view = TaskView(name_of, term=1)
    return shown(view, [Seen(task(), entry) for entry in entries(*events)])


def of_progress(kind: str, **more: object) -> list[dict[str, object]]:
    fields = {"task": TaskId("t"), "term": 1, "kind": kind, **more}
    return shown(TaskView(name_of, term=1), [Seen(task(), progress=Progress(**fields))])  # type: ignore[arg-type]


def cell(number: int, peer: PeerId = LAPTOP) -> tuple[journal.CellStarted, journal.CellFinished]:
    return (
        journal.CellStarted(
            cell=number, language="python", code="x", peer=peer, why="score 0.9: idle"
        ),
        journal.CellFinished(cell=number, peer=peer, status="ok", output="hi", duration_s=1.5),
    )


def replied(call: int) -> journal.ModelReplied:
    return journal.ModelReplied(call=call, text="so", model="m", peer=DESK, usage=USAGE)


# --- what the ledger says -----------------------------------------------------------------------


def test_each_coordinator_is_told_once_with_why_the_one_before_went() -> None:
    view = TaskView(name_of)
    seen = [
        Seen(task(term=1)),
        Seen(task(term=1)),
        Seen(task(term=2, coordinator=LAPTOP, why="it was silent")),
    ]
    assert [(e["name"], e["term"], e["why"]) for e in shown(view, seen)] == [
        ("desk", 1, ""),
        ("laptop", 2, "it was silent"),
    ]


def test_why_a_task_waits_is_told_when_it_changes() -> None:
    view = TaskView(name_of)
    waiting = [Seen(task("waiting", coordinator=None, why=why)) for why in ("a", "a", "b")]
    assert [event["text"] for event in shown(view, waiting)] == ["waiting: a", "waiting: b"]


# --- what the journal says ----------------------------------------------------------------------


def test_a_cell_is_told_when_it_begins_and_when_it_ends() -> None:
    started, done = of_entries(*cell(3))
    assert started == {
        "kind": "cell",
        "cell": 3,
        "language": "python",
        "peer": LAPTOP,
        "name": "laptop",
        "status": "started",
        "why": "score 0.9: idle",
    }
    assert (done["status"], done["duration_s"], done["name"]) == ("done", 1.5, "laptop")


def test_who_ran_a_cell_is_who_ended_it_if_the_one_before_was_full() -> None:
    view = TaskView(name_of, term=1)
    began, ended = cell(0, DESK)[0], cell(0, LAPTOP)[1]
    events = shown(view, [Seen(task(), entry) for entry in entries(began, ended)])
    assert events[-1]["name"] == "laptop"
    assert view.ran["cell 0 (python)"]["name"] == "laptop"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            journal.Opened(mode="rlm", model="m", why="long"),
            {"kind": "note", "text": "mode rlm (long), model m"},
        ),
        (
            journal.Opened(mode="blocks", why="asked for"),
            {"kind": "note", "text": "mode blocks (asked for), no model"},
        ),
        (
            journal.ModelFailed(call=0, code="no_peer", detail="nobody"),
            {"kind": "note", "text": "model call failed: nobody"},
        ),
        (
            journal.BudgetSpent(limit="timeout", detail="60 s"),
            {"kind": "note", "text": "budget spent: timeout 60 s"},
        ),
        (
            journal.CancelHeard(reason="enough"),
            {"kind": "note", "text": "cancelled: enough"},
        ),
        (
            journal.Folded(
                text="s",
                original=ContentRef(hash=content_hash(b"x"), bytes_total=1),
                source_tokens=100,
                tokens=10,
                peer=DESK,
            ),
            {"kind": "fold", "peer": DESK, "name": "desk", "source_tokens": 100, "tokens": 10},
        ),
        (
            journal.SubCallAnswered(
                cell=0, ordinal=0, prompt=content_hash(b"p"), model="m", peer=DESK, usage=USAGE
            ),
            {"kind": "call", "model": "m", "peer": DESK, "name": "desk"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_entry_is_shown_as(event: journal.SessionEvent, expected: dict[str, object]) -> None:
    assert of_entries(event) == [expected]


def test_a_reply_is_a_call_and_a_turn() -> None:
    assert of_entries(replied(0)) == [
        {"kind": "call", "model": "m", "peer": DESK, "name": "desk"},
        {"kind": "turn", "n": 1},
    ]


def test_a_cell_that_nobody_could_run_says_so() -> None:
    (event,) = of_entries(journal.CellFailed(cell=1, code="unsupported", detail="no rust"))
    assert (event["status"], event["why"], event["name"]) == ("failed: unsupported", "no rust", "")


def test_a_sub_call_without_a_model_is_not_shown_as_a_call() -> None:
    assert of_entries(journal.SubCallAnswered(cell=0, ordinal=0, prompt=content_hash(b"p"))) == []


def test_the_end_is_left_to_the_reply() -> None:
    assert of_entries(journal.Closed(outcome="answered", answer="42")) == []


# --- what is shown while it happens -------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        (
            "stdout",
            {"cell": 1, "text": "hi"},
            {"kind": "output", "stream": "stdout", "cell": 1, "text": "hi"},
        ),
        (
            "stderr",
            {"cell": 1, "text": "oh"},
            {"kind": "output", "stream": "stderr", "cell": 1, "text": "oh"},
        ),
        ("delta", {"text": "so"}, {"kind": "delta", "text": "so"}),
        ("note", {"text": "turn 1"}, {"kind": "note", "text": "turn 1"}),
        (
            "moved",
            {"cell": 1, "language": "python", "why": "desk: gone"},
            {"kind": "note", "text": "cell 1 python moves: desk: gone"},
        ),
        (
            "replayed",
            {"cell": 1, "peer": LAPTOP},
            {"kind": "note", "text": "cell 1 runs again on laptop, to bring its variables back"},
        ),
        (
            "restart",
            {"why": "desk: gone"},
            {"kind": "note", "text": "another peer begins anew: desk: gone"},
        ),
        ("diverged", {"cell": 1, "why": "other"}, {"kind": "note", "text": "cell 1: other"}),
    ],
)
def test_progress_is_shown_as(
    kind: str, more: dict[str, object], expected: dict[str, object]
) -> None:
    assert of_progress(kind, **more) == [expected]


@pytest.mark.parametrize("kind", ["alive", "something_newer"])
def test_progress_of_other_kinds_is_not_shown(kind: str) -> None:
    assert of_progress(kind, text="x") == []


# --- the result ---------------------------------------------------------------------------------


def test_the_result_counts_what_happened_and_names_who_did_what() -> None:
    view = TaskView(name_of)
    view.read(entries(journal.Opened(mode="blocks", model="m"), *cell(0), *cell(1), replied(0)))
    closed = journal.Closed(outcome="answered", answer="42", detail="extracted: so")
    result = view.result(task("answered", closed=closed), "42")
    assert result["stats"] == {
        "entries": 0,
        "cells": 2,
        "turns": 1,
        "calls": 1,
        "prompt_tokens": 10,
        "completion_tokens": 3,
    }
    ran = result["ran"]
    assert isinstance(ran, list)
    assert [(row["what"], row["name"]) for row in ran] == [
        ("cell 0 (python)", "laptop"),
        ("cell 1 (python)", "laptop"),
        ("call 0 (m)", "desk"),
    ]
    assert (result["mode"], result["answer"], result["reason"]) == (
        "blocks",
        "42",
        "extracted: so",
    )


def test_a_result_before_the_end_says_why_it_waits() -> None:
    result = TaskView(name_of).result(task("waiting", coordinator=None, why="nobody"), "")
    assert (result["state"], result["reason"], result["coordinator_name"]) == (
        "waiting",
        "nobody",
        None,
    )


@pytest.mark.parametrize(
    ("state", "detail", "code"),
    [
        ("answered", "", ExitCode.OK),
        ("answered", "unrefined: no_model", ExitCode.OK),
        ("failed", "no_model: none", ExitCode.NO_CAPACITY),
        ("failed", "no_language: rust", ExitCode.NO_CAPACITY),
        ("failed", "no_coordinator: 16", ExitCode.NO_CAPACITY),
        ("failed", "timeout: 60 s", ExitCode.FAILED),
        ("failed", "", ExitCode.FAILED),
        ("cancelled", "no_model", ExitCode.FAILED),
    ],
)
def test_the_exit_code_tells_no_capacity_from_failure(
    state: TaskState, detail: str, code: ExitCode
) -> None:
    outcome = "answered" if state == "answered" else "failed"
    closed = journal.Closed(outcome=outcome, answer="", detail=detail)
    if state == "cancelled":
        closed = journal.Closed(outcome="cancelled", answer="", detail="by its owner")
    assert exit_code(task(state, closed=closed)) == code


def test_a_headline_is_one_line() -> None:
    row = headline(task(), name_of, now_unix_s=160.0)
    assert (row["prompt_head"], row["submitted_s_ago"]) == ("what is it?", 60.0)
    assert headline(task(), name_of, now_unix_s=50.0)["submitted_s_ago"] == 0.0
