"""A journal as the reference implementation's viewer reads it."""

from __future__ import annotations

import json

from kowalski.protocol.codec import encode
from kowalski.protocol.ids import content_hash
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.journal import (
    ChildHappened,
    SessionEvent,
    SubCallAnswered,
    SubCallsAnswered,
)
from kowalski.rlm.trajectory import as_text, trajectory
from tests.kowalski.rlm.session_world import World, spec

LOOK = "I look.\n```python\nprint(1)\n```\n```bash\nls\n```"
READY = "```python\nready 42\n```"


def journal_of(*replies: str) -> list[SessionEvent]:
    world = World(replies)
    world.go(spec("How many?", "rlm", inputs=["data.txt"]))
    return world.journal


def test_each_reply_is_an_iteration_with_what_it_was_shown_and_what_its_code_did() -> None:
    task = spec("How many?", "rlm", inputs=["data.txt"])
    events = journal_of(LOOK, READY)
    metadata, first, second = trajectory(task, events)
    assert metadata["type"] == "metadata"
    assert (metadata["max_iterations"], metadata["max_depth"]) == (5, 1)
    assert (first["iteration"], first["response"], first["final_answer"]) == (1, LOOK, None)
    assert [one["role"] for one in first["prompt"]] == ["system", "user"]
    assert [block["code"].strip() for block in first["code_blocks"]] == ["print(1)", "ls"]
    assert first["code_blocks"][0]["result"]["stdout"].startswith("ran print(1)")
    assert len(second["prompt"]) == 4
    assert (second["iteration"], second["final_answer"]) == (2, "42")


def test_what_a_cell_asked_is_told_with_it() -> None:
    events = journal_of(LOOK, READY)
    started = next(n for n, one in enumerate(events) if one.KIND == "journal/cell-finished")
    asked = SubCallAnswered(
        cell=0,
        ordinal=0,
        prompt=content_hash(b"q"),
        model="m",
        text="so",
        usage=Usage(prompt_tokens=3, completion_tokens=1),
        attempts=1,
    )
    events.insert(started, asked)
    _, first, _ = trajectory(spec("How many?", "rlm", inputs=["data.txt"]), events)
    (call,) = first["code_blocks"][0]["result"]["rlm_calls"]
    assert (call["response"], call["usage_summary"]["input_tokens"]) == ("so", 3)


def with_child(*, is_answered: bool) -> list[SessionEvent]:
    """A journal in which the first cell began a child session, which has a child of its own."""
    events = journal_of(LOOK, READY)
    inner = journal_of(LOOK, READY)[:-1]  # its answer is an entry of the parent's
    grandchild = ChildHappened(
        cell=0, ordinal=0, question=content_hash(b"leaf"), event=encode(inner[0])
    )
    inner.insert(3, grandchild)
    happened: list[SessionEvent] = [
        ChildHappened(
            cell=0,
            ordinal=1,
            question=content_hash(b"q") if number == 0 else None,
            event=encode(event),
        )
        for number, event in enumerate(inner)
    ]
    if is_answered:
        answer = SubCallAnswered(
            cell=0, ordinal=1, kind="rlm", prompt=content_hash(b"q"), model="m", text="42"
        )
        happened.append(SubCallsAnswered(answers=(answer,)))
    at = next(n for n, one in enumerate(events) if one.KIND == "journal/cell-finished")
    return [*events[:at], *happened, *events[at:]]


def test_what_a_child_session_did_stands_with_the_call_that_began_it() -> None:
    task = spec("How many?", "rlm", inputs=["data.txt"])
    _, first, second = trajectory(task, with_child(is_answered=True))
    (call,) = first["code_blocks"][0]["result"]["rlm_calls"]
    assert (call["response"], call["error"]) == ("42", None)
    assert call["prompt"] == f"sha256:{content_hash(b'q')}"
    within = call["metadata"]
    assert within["run_metadata"]["max_depth"] == 0
    assert [one["iteration"] for one in within["iterations"]] == [1, 2]
    assert within["iterations"][0]["response"] == LOOK
    assert within["iterations"][-1]["final_answer"] == "42"
    (deeper,) = within["iterations"][0]["code_blocks"][0]["result"]["rlm_calls"]
    assert deeper["error"] == "not answered yet"
    assert second["final_answer"] == "42"
    assert json.loads(as_text(first)) == first


def test_a_child_that_still_runs_is_shown_as_far_as_it_is() -> None:
    task = spec("How many?", "rlm", inputs=["data.txt"])
    _, first, _ = trajectory(task, with_child(is_answered=False))
    (call,) = first["code_blocks"][0]["result"]["rlm_calls"]
    assert call["error"] == "not answered yet"
    assert call["metadata"]["iterations"][-1]["final_answer"] is None


def test_a_task_that_still_runs_and_one_that_never_began_have_lines_too() -> None:
    events = journal_of(LOOK, READY)
    lines = list(trajectory(spec("How many?", "rlm", inputs=["data.txt"]), events[:3]))
    assert [line["type"] for line in lines] == ["metadata", "iteration"]
    assert lines[1]["code_blocks"][0]["result"]["stderr"] == "not run"
    assert [line["type"] for line in trajectory(spec("q"), [])] == ["metadata"]
    assert all(json.loads(as_text(line)) == line for line in lines)
