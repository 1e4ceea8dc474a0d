"""submit, ask and fold against a scripted node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kowalski.node.cli import cli
from tests.node.scripted_node import Script, ScriptedNode, scripted_node


def invoke(
    tmp_path: Path, scripts: dict[str, Script], *args: str, stdin: bytes | None = None
) -> tuple[Result, ScriptedNode]:
    with scripted_node(tmp_path, scripts) as node:
        environ = {"KOWALSKI_DATA_DIR": str(tmp_path)}
        ended = CliRunner(env=environ).invoke(cli, args, input=stdin)
    return ended, node


def request_of(node: ScriptedNode) -> dict[str, Any]:
    ((_, request),) = node.heard
    return request


ANSWERED = Script(
    {
        "task": "T1",
        "state": "answered",
        "answer": "42",
        "mode": "blocks",
        "stats": {"turns": 2},
        "ran": [{"what": "cell 1", "peer": "P", "name": "desk", "why": "it is idle"}],
    },
    ({"kind": "submitted", "task": "T1"}, {"kind": "turn", "n": 1}),
)


def test_submit_prints_the_answer_on_stdout_and_the_way_there_on_stderr(tmp_path: Path) -> None:
    ended, node = invoke(tmp_path, {"submit": ANSWERED}, "submit", "why")
    assert (ended.exit_code, ended.stdout) == (0, "42\n")
    for part in ("task T1", "turn 1", "cell 1  desk  it is idle", "turns 2"):
        assert part in ended.stderr
    assert request_of(node) == {
        "prompt": "why",
        "mode": "auto",
        "context": [],
        "timeout_s": 3600.0,
        "follow": True,
    }


def test_submit_passes_on_what_was_asked(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.txt").write_text("")
    files = [str(tmp_path / name) for name in ("a/same.txt", "b/same.txt")]
    (tmp_path / "one.txt").write_text("")
    ended, node = invoke(
        tmp_path, {"submit": ANSWERED}, "submit", "-", "--mode", "rlm", "--model", "m",
        "--timeout", "2m", "--max-iterations", "3", "--task-id", "mine",
        "-c", files[0], "-c", files[1], "--context", str(tmp_path / "one.txt"),
        stdin=b"from stdin",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    assert request_of(node) == {
        "prompt": "from stdin",
        "mode": "rlm",
        "model": "m",
        "timeout_s": 120.0,
        "max_iterations": 3,
        "task_id": "mine",
        "follow": True,
        "context": [
            {"name": files[0], "path": files[0]},
            {"name": files[1], "path": files[1]},
            {"name": "one.txt", "path": str(tmp_path / "one.txt")},
        ],
    }


def test_submit_in_json_is_events_and_then_the_result(tmp_path: Path) -> None:
    ended, _ = invoke(tmp_path, {"submit": ANSWERED}, "submit", "why", "--json")
    *events, done = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [event["kind"] for event in events] == ["submitted", "turn"]
    assert done["answer"] == "42"
    assert ended.stderr == ""


@pytest.mark.parametrize("state", ["failed", "cancelled"])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_task_without_an_answer_ends_with_1(tmp_path: Path, state: str, flags: list[str]) -> None:
    script = Script({"task": "T1", "state": state, "reason": "out of time"})
    ended, _ = invoke(tmp_path, {"submit": script}, "submit", "why", *flags)
    assert ended.exit_code == 1
    assert "out of time" in (ended.stdout if flags else ended.stderr)


@pytest.mark.parametrize(
    ("told", "exit_code"), [(5, 5), (4, 4), (0, 1), (None, 1), ("5", 1), (300, 1)]
)
def test_the_node_may_say_how_a_task_without_an_answer_ends(
    tmp_path: Path, told: object, exit_code: int
) -> None:
    script = Script({"task": "T1", "state": "failed", "exit_code": told})
    ended, _ = invoke(tmp_path, {"submit": script}, "submit", "why")
    assert ended.exit_code == exit_code


def test_a_detached_submit_prints_the_task_and_nothing_else(tmp_path: Path) -> None:
    script = Script({"task": "T1", "state": "running"})
    ended, node = invoke(tmp_path, {"submit": script}, "submit", "why", "--detach")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "T1\n", "")
    assert request_of(node)["follow"] is False


@pytest.mark.parametrize(
    "args",
    [
        ("submit", ""),
        ("submit", "  \n"),
        ("submit",),
        ("submit", "a", "--file", "b"),
        ("submit", "a", "--context", "/nonexistent/file"),
        ("submit", "a", "--mode", "fast"),
        ("submit", "a", "--timeout", "soon"),
        ("fold",),
        ("fold", "/nonexistent/file"),
        ("fold", "-", "-b", "5", "-r", "0.5"),
        ("fold", "-", "-r", "0"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_told_without_asking_any_node(tmp_path: Path, args: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)], input=b"text")
    assert ended.exit_code == 2, ended.output
    assert ended.stdout == ""
    assert "Error: " in ended.stderr


FOLDED = Script(
    {"text": "short", "source_tokens": 9, "tokens": 3, "algorithm": "spans", "name": "desk"}
)


def test_fold_names_a_file_and_sends_a_short_stdin(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("long")
    ended, node = invoke(tmp_path, {"fold": FOLDED}, "fold", str(file), "-b", "5")
    assert (ended.exit_code, ended.stdout) == (0, "short\n")
    assert ended.stderr == "9 to 3 tokens by spans on desk\n"
    assert request_of(node) == {"path": str(file), "budget_tokens": 5, "timeout_s": 600.0}
    _, node = invoke(tmp_path, {"fold": FOLDED}, "fold", "-", "-r", "0.5", stdin=b"long\xff")
    assert request_of(node)["text"] == "long\ufffd"


def test_a_stdin_too_long_for_the_socket_goes_by_a_file_that_is_gone_afterwards(
    tmp_path: Path,
) -> None:
    content = b"line\n" * 300_000
    ended, node = invoke(tmp_path, {"fold": FOLDED}, "fold", "-", stdin=content)
    assert ended.exit_code == 0
    assert node.contents == [content]
    assert not Path(request_of(node)["path"]).exists()
