"""tasks, attach, cancel, resume and trace, against a node that says what it is told to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kowalski.node.cli import cli
from kowalski.protocol.errors import RequestRefusedError
from tests.node.scripted_node import Script, ScriptedNode, scripted_node

ANSWERED = {
    "task": "T1",
    "state": "answered",
    "answer": "42",
    "exit_code": 0,
    "stats": {"cells": 1},
    "ran": [{"what": "cell 0 (python)", "name": "desk", "why": "near"}],
}
FAILED = {"task": "T1", "state": "failed", "answer": "", "reason": "no_model: none", "exit_code": 5}
EVENTS = (
    {"kind": "submitted", "task": "T1", "mode": ""},
    {"kind": "coordinator", "name": "box", "term": 2},
    {"kind": "cell", "cell": 0, "language": "python", "name": "desk", "status": "started"},
)


def invoke(
    tmp_path: Path, scripts: dict[str, Script], *args: str
) -> tuple[Result, list[tuple[str, dict[str, object]]]]:
    node: ScriptedNode
    with scripted_node(tmp_path, scripts) as node:
        ended = CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])
        return ended, node.heard


@pytest.mark.parametrize(
    ("command", "verb", "done", "part"),
    [
        (["tasks"], "tasks", {"tasks": [{"task": "T1", "state": "answered"}]}, "T1    answered"),
        (["tasks", "T1"], "task", {"task": "T1", "journal": [{"n": 1}]}, "  n 1"),
        (["tasks", "T1@lap"], "task", {"task": "T1", "submitter_name": "lap"}, "lap"),
        (["resume", "T1"], "resume", {"task": "T1-r2", "is_new": True}, "T1-r2"),
        (["trace", "T1"], "trace", {"journal": [{"index": 0, "kind": "journal/opened"}]}, "opened"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_command_asks_its_verb_and_prints_for_people_and_programs(
    tmp_path: Path, command: list[str], verb: str, done: dict[str, object], part: str
) -> None:
    shown, _ = invoke(tmp_path, {verb: Script(done)}, *command)
    assert shown.exit_code == 0, shown.output
    assert part in shown.stdout
    in_json, _ = invoke(tmp_path, {verb: Script(done)}, *command, "--json")
    assert json.loads(in_json.stdout) == done


def test_tasks_of_several_submitters_are_told_apart(tmp_path: Path) -> None:
    rows = [
        {"task": "T1", "state": "running", "submitter_name": "lap", "coordinator_name": "box"},
        {"task": "T2", "state": "waiting", "submitter": "12D3KooWabcdefghijkl"},
    ]
    shown, _ = invoke(tmp_path, {"tasks": Script({"tasks": rows})}, "tasks")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0][:4] == ["TASK", "STATE", "SUBMITTER", "COORDINATOR"]
    assert lines[1][:4] == ["T1", "running", "lap", "box"]
    assert lines[2][2] == "..efghijkl"


@pytest.mark.parametrize("task", ["../x", "a b", "", "@lap", "x" * 65])
@pytest.mark.parametrize("command", ["tasks", "attach", "cancel", "resume", "trace"])
def test_a_task_that_is_none_is_a_usage_error(tmp_path: Path, command: str, task: str) -> None:
    verb = "task" if command == "tasks" else command
    ended, _ = invoke(tmp_path, {verb: Script()}, command, task)
    assert ended.exit_code == 2


def test_attach_shows_the_task_as_it_goes_and_ends_as_submit_does(tmp_path: Path) -> None:
    ended, heard = invoke(tmp_path, {"attach": Script(ANSWERED, EVENTS)}, "attach", "T1@lap")
    assert heard == [("attach", {"task": "T1@lap"})]
    assert (ended.exit_code, ended.stdout) == (0, "42\n")
    assert "led by box, term 2" in ended.stderr
    assert "cell 0 python on desk" in ended.stderr
    failed, _ = invoke(tmp_path, {"attach": Script(FAILED)}, "attach", "T1")
    assert failed.exit_code == 5
    assert "no_model: none" in failed.stderr


def test_an_answer_with_a_reservation_says_so(tmp_path: Path) -> None:
    done = {**ANSWERED, "reason": "unready: the session never marked it as ready"}
    ended, _ = invoke(tmp_path, {"attach": Script(done, events=EVENTS)}, "attach", "T1")
    assert (ended.exit_code, ended.stdout) == (0, "42\n")
    assert "unready: the session never marked it as ready" in ended.stderr


def test_a_trajectory_is_the_lines_that_the_node_sends_and_nothing_else(tmp_path: Path) -> None:
    lines = ({"kind": "line", "text": '{"type": "metadata"}'}, {"kind": "line", "text": "{}"})
    script = Script({"task": "T1", "state": "answered"}, events=lines)
    ended, heard = invoke(tmp_path, {"trace": script}, "trace", "T1", "--trajectory")
    assert ended.stdout == '{"type": "metadata"}\n{}\n'
    assert heard == [("trace", {"task": "T1", "as_trajectory": True})]


def test_attach_in_json_is_events_and_then_the_result(tmp_path: Path) -> None:
    ended, _ = invoke(tmp_path, {"attach": Script(ANSWERED, EVENTS)}, "attach", "T1", "--json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert lines[-1] == ANSWERED


@pytest.mark.parametrize(("done", "exit_code"), [(ANSWERED, 0), (FAILED, 5)])
def test_attach_brings_the_files_of_the_task_however_it_ended(
    tmp_path: Path, done: dict[str, object], exit_code: int
) -> None:
    (tmp_path / "blob").write_text("content")
    left = {"files": [{"name": "plot.svg", "bytes": 7, "path": str(tmp_path / "blob")}]}
    scripts = {"attach": Script(done, EVENTS), "files": Script(left)}
    folder = tmp_path / "out"
    ended, heard = invoke(tmp_path, scripts, "attach", "T1@lap", "--files", str(folder))
    assert ended.exit_code == exit_code
    assert heard[-1] == ("files", {"task": "T1@lap"})
    assert (folder / "plot.svg").read_text() == "content"
    assert "plot.svg: 7 bytes" in ended.stderr


def test_cancel_says_what_became_of_the_task(tmp_path: Path) -> None:
    ended, _ = invoke(tmp_path, {"cancel": Script({"state": "cancelled"})}, "cancel", "T1")
    assert (ended.exit_code, ended.stderr) == (0, "task T1 cancelled\n")


def test_resume_takes_new_limits_and_may_be_followed(tmp_path: Path) -> None:
    scripts = {"resume": Script({"task": "T1-r2"}), "attach": Script(ANSWERED, EVENTS)}
    limits = ["--timeout", "10m", "--max-iterations", "9"]
    ended, heard = invoke(tmp_path, scripts, "resume", "T1@lap", *limits, "--follow")
    assert heard == [
        ("resume", {"task": "T1@lap", "timeout_s": 600.0, "max_iterations": 9}),
        ("attach", {"task": "T1-r2@lap"}),
    ]
    assert (ended.exit_code, ended.stdout) == (0, "42\n")


def test_what_is_ambiguous_says_how_to_say_it(tmp_path: Path) -> None:
    words = "a, b have tasks of that name; say T1@a"
    script = Script(error=RequestRefusedError("ambiguous", words))
    ended, _ = invoke(tmp_path, {"task": script}, "tasks", "T1")
    assert ended.exit_code == 1
    assert words in ended.stderr
