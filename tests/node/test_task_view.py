"""What a person is shown of a task: pure, from journals and progress to events."""

from __future__ import annotations

from typing import Any

import pytest

from kowalski.node.control_line import ExitCode, encode
from kowalski.node.core.announced_tasks import Elsewhere
from kowalski.node.core.task_ledger import Task, TaskState
from kowalski.node.services.submitter import Seen
from kowalski.node.task_view import (
    HEAD_CHARS,
    NOBODY_CAN,
    Event,
    TaskView,
    exit_code,
    headline,
    headline_elsewhere,
    journal_lines,
)
from kowalski.protocol import codec
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.task import Entry, Progress, TaskHeadline, TaskSpec
from kowalski.rlm.journal import GENESIS, digest, entry_of

BOX = PeerId("12D3KooWBox")
LAP = PeerId("12D3KooWLap")
NAMES = {BOX: "box", LAP: "lap"}
USAGE = Usage(prompt_tokens=70, completion_tokens=7)
ORIGINAL = ContentRef(hash=GENESIS, bytes_total=1)


def name_of(peer: PeerId) -> str:
    return NAMES[peer]


def task(state: TaskState = "running", **more: Any) -> Task:  # noqa: ANN401 fields of a task
    spec = TaskSpec(prompt="sum\n  it   up", mode="auto", max_iterations=5, timeout_s=60.0)
    given = {"id": TaskId("t"), "spec": spec, "submitted_unix_s": 1000, **more}
    return Task(state=state, **given)


def entry(event: journal.SessionEvent, index: int = 0) -> Entry:
    return entry_of(1, index, GENESIS, event)


def shown(view: TaskView, event: journal.SessionEvent) -> list[Event]:
    return list(view.events(Seen(task(), entry(event))))


def told(view: TaskView, **progress: Any) -> list[Event]:  # noqa: ANN401 fields of the message
    made = Progress(task=TaskId("t"), term=1, **progress)
    return list(view.events(Seen(task(), progress=made)))


def note(text: str) -> list[Event]:
    return [{"kind": "note", "text": text}]


STARTED = journal.CellStarted(cell=3, language="bash", code="ls", peer=BOX, why="it is idle")
ON_BOX = {"kind": "cell", "cell": 3, "language": "bash", "peer": BOX, "name": "box"}
FINISHED = journal.CellFinished(cell=3, peer=BOX, status="ok", output="", duration_s=0.5)


def child(event: journal.SessionEvent) -> journal.ChildHappened:
    return journal.ChildHappened(cell=3, ordinal=0, event=codec.encode(event))


OUTCOMES: dict[str, tuple[journal.SessionEvent, list[Event]]] = {
    "opened with a model": (
        journal.Opened(mode="rlm", model="m", why="there is a model"),
        note("mode rlm (there is a model), model m"),
    ),
    "opened without": (
        journal.Opened(mode="blocks", why="blocks"),
        note("mode blocks (blocks), no model"),
    ),
    "cell started": (STARTED, [{**ON_BOX, "status": "started", "why": "it is idle"}]),
    "cell done": (FINISHED, [{**ON_BOX, "status": "done", "why": "", "duration_s": 0.5}]),
    "cell in error": (
        FINISHED.model_copy(update={"status": "timeout"}),
        [{**ON_BOX, "status": "timeout", "why": "", "duration_s": 0.5}],
    ),
    "cell failed": (
        journal.CellFailed(cell=3, code="peers_failed", detail="all gone"),
        [{**ON_BOX, "status": "failed: peers_failed", "why": "all gone"}],
    ),
    "reply": (
        journal.ModelReplied(call=0, text="hm", model="m", peer=LAP, usage=USAGE),
        [
            {"kind": "call", "model": "m", "peer": LAP, "name": "lap"},
            {"kind": "turn", "n": 1},
        ],
    ),
    "sub-call answered": (
        journal.SubCallAnswered(
            cell=3,
            ordinal=0,
            prompt=GENESIS,
            model="m",
            peer=LAP,
            text="x",
            usage=USAGE,
            attempts=1,
        ),
        [{"kind": "call", "model": "m", "peer": LAP, "name": "lap"}],
    ),
    "sub-calls answered together": (
        journal.SubCallsAnswered(
            answers=(
                *(
                    journal.SubCallAnswered(
                        cell=3, ordinal=n, prompt=GENESIS, model="m", peer=LAP, text="x"
                    )
                    for n in range(3)
                ),
                journal.SubCallAnswered(cell=3, ordinal=3, prompt=GENESIS, error="no"),
            )
        ),
        [{"kind": "call", "model": "m", "peer": LAP, "name": "lap", "count": 3}],
    ),
    "sub-call in error": (
        journal.SubCallAnswered(cell=3, ordinal=0, prompt=GENESIS, error="no"),
        [],
    ),
    "child begins": (
        child(journal.Opened(mode="rlm", model="m")),
        note("cell 3 begins a child session"),
    ),
    "a child's child asks": (
        child(child(journal.ModelReplied(call=0, text="", model="m", peer=LAP, usage=USAGE))),
        [{"kind": "call", "model": "m", "peer": LAP, "name": "lap"}],
    ),
    "diverged": (
        journal.CellDiverged(cell=3, language="bash", peer=LAP, names=("now",)),
        note("cell 3: run again, it left other variables behind than the first time (now)"),
    ),
    "folded": (
        journal.Folded(text="x", original=ORIGINAL, source_tokens=900, tokens=30, peer=LAP),
        [{"kind": "fold", "peer": LAP, "name": "lap", "source_tokens": 900, "tokens": 30}],
    ),
    "model failed": (
        journal.ModelFailed(call=0, code="no_peer", detail="nobody has it"),
        note("model call failed: nobody has it"),
    ),
    "budget spent": (
        journal.BudgetSpent(limit="iterations", detail="5 turns"),
        note("budget spent: iterations 5 turns"),
    ),
    "cancelled": (journal.CancelHeard(reason="enough"), note("cancelled: enough")),
    "closed": (journal.Closed(outcome="answered", answer="42"), []),
}


@pytest.mark.parametrize("what", OUTCOMES)
def test_every_entry_of_a_journal_has_its_events(what: str) -> None:
    event, wanted = OUTCOMES[what]
    view = TaskView(name_of)
    list(view.events(Seen(task(), entry(STARTED))))
    assert shown(view, event) == wanted
    for one in wanted:
        encode({"event": one})


def test_no_kind_of_entry_is_forgotten_here() -> None:
    kinds = {type(event) for event, _ in OUTCOMES.values()}
    assert kinds == set(journal.SessionEvent.__args__)


PROGRESS: dict[str, tuple[dict[str, object], list[Event]]] = {
    "stdout": (
        {"kind": "stdout", "cell": 3, "text": "hi\n"},
        [{"kind": "output", "stream": "stdout", "cell": 3, "text": "hi\n"}],
    ),
    "stderr": (
        {"kind": "stderr", "cell": 3, "text": "oh\n"},
        [{"kind": "output", "stream": "stderr", "cell": 3, "text": "oh\n"}],
    ),
    "delta": ({"kind": "delta", "text": "wo"}, [{"kind": "delta", "text": "wo"}]),
    "note": ({"kind": "note", "text": "words"}, note("words")),
    "moved": (
        {"kind": "moved", "cell": 3, "language": "bash", "why": "box is gone"},
        note("cell 3 bash moves: box is gone"),
    ),
    "replayed": (
        {"kind": "replayed", "cell": 3, "peer": LAP},
        note("cell 3 runs again on lap, to bring its variables back"),
    ),
    "replayed nowhere": ({"kind": "replayed", "cell": 3}, []),
    "restart": (
        {"kind": "restart", "why": "box: reset"},
        note("another peer begins anew: box: reset"),
    ),
    "of a newer peer": ({"kind": "thought_of", "text": "what we cannot show"}, []),
}


@pytest.mark.parametrize("what", PROGRESS)
def test_every_kind_of_progress_has_its_events(what: str) -> None:
    progress, wanted = PROGRESS[what]
    assert told(TaskView(name_of), **progress) == wanted


def test_who_leads_is_shown_once_a_term() -> None:
    view = TaskView(name_of)
    led = task(term=1, coordinator=BOX, why_waiting="best of three")
    wanted = {
        "kind": "coordinator",
        "peer": BOX,
        "name": "box",
        "term": 1,
        "why": "best of three",
    }
    assert list(view.events(Seen(led))) == [wanted]
    assert list(view.events(Seen(led))) == []
    again = task(term=3, coordinator=LAP)
    assert [event["term"] for event in view.events(Seen(again))] == [3]
    assert list(view.events(Seen(led))) == [], "an old term is no news"


def test_why_a_task_waits_is_shown_once_a_reason() -> None:
    view = TaskView(name_of)
    for reason in ("nobody leads", "box is full"):
        waiting = task("waiting", why_waiting=reason)
        assert list(view.events(Seen(waiting))) == note(f"waiting: {reason}")
        assert list(view.events(Seen(waiting))) == []


def test_an_entry_that_comes_with_a_new_leader_is_shown_after_it() -> None:
    led = task(term=1, coordinator=BOX)
    seen = Seen(led, entry(journal.CancelHeard(reason="x")))
    assert [event["kind"] for event in TaskView(name_of).events(seen)] == ["coordinator", "note"]


def test_what_was_read_is_counted_and_not_shown_again() -> None:
    view = TaskView(name_of)
    reply = journal.ModelReplied(call=0, text="hm", model="m", peer=LAP, usage=USAGE)
    view.read([entry(journal.Opened(mode="rlm", why="")), entry(STARTED), entry(reply)])
    assert shown(view, reply)[1] == {"kind": "turn", "n": 2}
    assert view.mode == "rlm"


# --- the result ---------------------------------------------------------------------------------


def test_the_result_says_what_ran_where_and_what_it_cost() -> None:
    view = TaskView(name_of)
    sub_call = OUTCOMES["sub-call answered"][0]
    assert isinstance(sub_call, journal.SubCallAnswered)
    replied = journal.ModelReplied(call=0, text="hm", model="m", peer=LAP, usage=USAGE)
    for event in (
        journal.Opened(mode="rlm", model="m", why=""),
        replied,
        STARTED,
        sub_call,
        FINISHED,
        journal.CellStarted(cell=4, language="python", code="1", peer=LAP, why="best"),
    ):
        shown(view, event)
    over = task(
        "answered",
        term=2,
        coordinator=BOX,
        entries=6,
        answer=journal.Closed(outcome="answered", answer="cut"),
    )
    assert view.result(over, "all of it") == {
        "task": "t",
        "state": "answered",
        "answer": "all of it",
        "reason": "",
        "score": None,
        "exit_code": 0,
        "mode": "rlm",
        "term": 2,
        "coordinator": BOX,
        "coordinator_name": "box",
        "stats": {
            "entries": 6,
            "cells": 2,
            "turns": 1,
            "calls": 2,
            "attempts": 2,
            "sub_calls": 1,
            "repeated": 0,
            "children": 0,
            "folds": 0,
            "prompt_tokens": 140,
            "completion_tokens": 14,
        },
        "ran": [
            {"what": "call 0 (m)", "peer": LAP, "name": "lap", "why": ""},
            {"what": "cell 3 (bash)", "peer": BOX, "name": "box", "why": "it is idle"},
            {"what": "cell 4 (python)", "peer": LAP, "name": "lap", "why": "best"},
        ],
        "files": [],
    }


def test_a_cell_is_credited_to_who_ran_it_last() -> None:
    view = TaskView(name_of)
    shown(view, STARTED)
    shown(view, STARTED.model_copy(update={"peer": LAP, "why": "after box: gone"}))
    shown(view, FINISHED.model_copy(update={"peer": LAP}))
    (ran,) = view.ran.values()
    assert (ran["name"], ran["why"]) == ("lap", "after box: gone")


def test_a_cell_that_another_ended_than_began_it_is_credited_to_who_ended_it() -> None:
    view = TaskView(name_of)
    shown(view, STARTED)
    (event,) = shown(view, FINISHED.model_copy(update={"peer": LAP}))
    assert event["name"] == "lap"
    (ran,) = view.ran.values()
    assert (ran["name"], ran["why"]) == ("lap", "asked again")


def test_a_cell_whose_beginning_was_missed_is_shown_all_the_same() -> None:
    (event,) = shown(TaskView(name_of), FINISHED)
    assert (event["cell"], event["language"], event["status"]) == (3, "", "done")


def test_of_a_task_that_is_not_over_the_result_says_how_it_stands() -> None:
    view = TaskView(name_of)
    waiting = task("waiting", why_waiting="nobody leads")
    result = view.result(waiting, "")
    assert (result["state"], result["reason"], result["mode"]) == (
        "waiting",
        "nobody leads",
        "auto",
    )
    assert (result["coordinator"], result["coordinator_name"]) == (None, None)


@pytest.mark.parametrize(
    ("state", "detail", "code"),
    [
        ("answered", "", ExitCode.OK),
        ("answered", "no_model: of a cell", ExitCode.OK),
        ("failed", "timeout: 60 s are over", ExitCode.FAILED),
        ("failed", "it said no_model: somewhere", ExitCode.FAILED),
        ("cancelled", "enough", ExitCode.FAILED),
        *[("failed", f"{reason}: nobody", ExitCode.NO_CAPACITY) for reason in sorted(NOBODY_CAN)],
        ("failed", "no_model", ExitCode.NO_CAPACITY),
    ],
)
def test_the_exit_code_tells_a_script_how_it_ended(
    state: TaskState, detail: str, code: ExitCode
) -> None:
    outcome: journal.Outcome = "answered" if state == "answered" else "failed"
    answer = journal.Closed(outcome=outcome, answer="", detail=detail)
    assert exit_code(task(state, answer=answer)) is code


def test_a_task_without_an_end_has_not_succeeded() -> None:
    assert exit_code(task("running")) is ExitCode.FAILED


def test_a_headline_is_one_row() -> None:
    row = headline(task(term=1, coordinator=BOX, entries=4), name_of, 1010.5, submitter=LAP)
    assert row == {
        "task": "t",
        "submitter": LAP,
        "submitter_name": "lap",
        "state": "running",
        "mode": "auto",
        "term": 1,
        "coordinator": BOX,
        "coordinator_name": "box",
        "entries": 4,
        "submitted_s_ago": 10.5,
        "prompt_head": "sum it up",
    }
    long = TaskSpec(prompt="word " * 100, max_iterations=1, timeout_s=1.0)
    early = headline(task(spec=long), name_of, 900.0, submitter=LAP)
    assert len(str(early["prompt_head"])) == HEAD_CHARS
    assert early["submitted_s_ago"] == 0.0, "a clock that was set back"
    assert early["coordinator_name"] is None


def test_a_task_of_somebody_else_is_the_same_kind_of_row() -> None:
    told = TaskHeadline(
        task=TaskId("t"),
        term=1,
        state="running",
        coordinator=BOX,
        mode="auto",
        entries=4,
        head="sum it up",
        submitter_name="lap",
        age_s=10.5,
    )
    ours = headline(task(term=1, coordinator=BOX, entries=4), name_of, 1010.5, submitter=LAP)
    assert headline_elsewhere(Elsewhere(LAP, LAP, told, 10.5), name_of) == ours


def test_a_journal_is_told_entry_by_entry() -> None:
    finished = journal.CellFinished(cell=0, peer=BOX, status="ok", output="1\n", duration_s=0.5)
    first = entry_of(1, 0, GENESIS, journal.Opened(mode="blocks", why="it has blocks"))
    second = entry_of(2, 1, digest(TaskId("t"), first), finished)
    rows = journal_lines(TaskId("t"), [first, second], name_of)
    assert [row["kind"] for row in rows] == ["journal/opened", "journal/cell-finished"]
    assert [(row["index"], row["term"]) for row in rows] == [(0, 1), (1, 2)]
    assert rows[1]["digest"] == digest(TaskId("t"), second)
    assert (rows[1]["peer"], rows[1]["peer_name"], rows[1]["output"]) == (BOX, "box", "1\n")
    assert encode({"rows": rows}), "it has a form in JSON"
