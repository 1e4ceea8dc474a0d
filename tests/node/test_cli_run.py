"""run against a scripted node."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kowalski.node.cli import cli
from tests.node.scripted_node import Script, scripted_node
from tests.node.test_cli_work import invoke, request_of

ENDED = {"status": "ok", "name": "desk"}


def output(stream: str, text: str) -> dict[str, object]:
    return {"kind": "output", "stream": stream, "text": text}


def test_run_gives_each_stream_to_its_own(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("print(1)")
    script = Script(
        {**ENDED, "exit_code": 0, "duration_s": 0.5, "attempts": 2, "why": "it is idle"},
        (output("stdout", "a"), output("stderr", "warn\n"), output("stdout", "b\n")),
    )
    ended, node = invoke(tmp_path, {"run": script}, "run", str(file), "-x", "--json")
    assert (ended.exit_code, ended.stdout) == (0, "ab\n")
    expected = "warn\nexit code 0 on desk after 500 ms; 2 attempts; it is idle\n"
    assert ended.stderr == expected
    assert request_of(node) == {
        "language": "python",
        "code": "print(1)",
        "timeout_s": 600.0,
        "args": ["-x", "--json"],
        "name": "program.py",
    }


@pytest.mark.parametrize(
    ("exit_code", "status", "ours", "told"),
    [
        (3, "error", 3, "exit code 3"),
        (139, "died", 139, "died"),
        (None, "timeout", 1, "timeout"),
        (-1, "error", 255, "exit code -1"),
    ],
)
def test_the_programs_exit_code_is_ours(
    tmp_path: Path, exit_code: int | None, status: str, ours: int, told: str
) -> None:
    script = Script({"exit_code": exit_code, "status": status, "name": "desk"})
    ended, _ = invoke(tmp_path, {"run": script}, "run", "-l", "bash", "-c", "false")
    assert ended.exit_code == ours
    assert ended.stderr.startswith(f"{told} on desk")


def test_what_is_no_text_comes_out_as_it_went_in(tmp_path: Path) -> None:
    event = {**output("stdout", "\ufffdPNG"), "base64": "iVBORw=="}
    script = Script({"exit_code": 0}, (output("stdout", "a"), event, output("stdout", "b")))
    ended, _ = invoke(tmp_path, {"run": script}, "run", "-l", "bash", "-c", "cat x.png")
    assert ended.stdout_bytes == b"a\x89PNGb"


def test_what_stands_behind_the_program_is_for_the_program(tmp_path: Path) -> None:
    file = tmp_path / "program.rb"
    file.write_text("puts 1")
    _, node = invoke(
        tmp_path, {"run": Script({"exit_code": 0})}, "run", str(file), "-l", "--out", "x", "--", "y"
    )
    request = request_of(node)
    assert (request["language"], request["name"]) == ("ruby", "program.rb")
    assert request["args"] == ["-l", "--out", "x", "--", "y"]


def test_a_program_gets_files_and_something_to_read(tmp_path: Path) -> None:
    for name in ("data.csv", "in.txt"):
        (tmp_path / name).write_text(name)
    _, node = invoke(
        tmp_path, {"run": Script({"exit_code": 0})}, "run", "-l", "python", "-c", "1",
        "-f", str(tmp_path / "data.csv"), "-i", str(tmp_path / "in.txt"),
    )  # fmt: skip
    request = request_of(node)
    assert request["files"] == [{"name": "data.csv", "path": str(tmp_path / "data.csv")}]
    assert request["stdin"] == str(tmp_path / "in.txt")


def test_what_is_piped_in_is_for_the_program_if_it_is_asked_for(tmp_path: Path) -> None:
    ok = Script({"exit_code": 0})
    _, node = invoke(
        tmp_path, {"run": ok}, "run", "-l", "bash", "-i", "-", "-c", "cat", stdin=b"piped \xff"
    )
    assert node.contents == [b"piped \xff"]


def test_what_a_program_leaves_is_put_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("content")
    rows = [{"name": "sub/a.txt", "bytes": 7, "path": str(tmp_path / "blob")}]
    script = Script({"exit_code": 3, "status": "error", "name": "desk", "files": rows})
    out = tmp_path / "out"
    ended, node = invoke(
        tmp_path, {"run": script}, "run", "-l", "python", "-o", str(out), "-c", "1"
    )
    assert request_of(node)["wants_files"] is True
    assert (out / "sub" / "a.txt").read_text() == "content"
    assert ended.exit_code == 3


def test_an_interrupt_takes_the_program_back(tmp_path: Path) -> None:
    with scripted_node(tmp_path, {"run": Script(hangs=True)}) as node:
        command = [sys.executable, "-m", "kowalski.node", "run", "-l", "bash", "-c", "sleep 60"]
        process = subprocess.Popen(
            [*command, "--data-dir", str(tmp_path)], stderr=subprocess.DEVNULL
        )
        assert node.has_hung.wait(20)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert node.was_cancelled.wait(20)


@pytest.mark.parametrize(
    "args",
    [
        ("run",),
        ("run", "-"),
        ("run", "-c", "1"),
        ("run", "-c", " ", "-l", "python"),
        ("run", "/nonexistent/program.py"),
        ("run", "-l", "python", "-i", "-", "-"),
        ("run", "-l", "python", "-f", "/nonexistent/file", "-c", "1"),
        ("run", "-l", "python", "-i", "/nonexistent/file", "-c", "1"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_told_without_asking_any_node(tmp_path: Path, args: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(
        cli, [args[0], "--data-dir", str(tmp_path), *args[1:]], input=b"text"
    )
    assert ended.exit_code == 2, ended.output
    assert ended.stdout == ""
    assert "Error: " in ended.stderr


def test_why_a_program_failed_is_said_on_stderr(tmp_path: Path) -> None:
    error = "line 1\nZeroDivisionError: 1/0\n"
    script = Script({**ENDED, "exit_code": 1, "error": error})
    ended, _ = invoke(tmp_path, {"run": script}, "run", "-l", "python", "-c", "1/0")
    assert ended.stdout == ""
    assert ended.stderr.startswith("line 1\nZeroDivisionError: 1/0\nexit code 1 on desk")


def test_run_takes_code_and_its_arguments_or_stdin(tmp_path: Path) -> None:
    ok = Script({"exit_code": 0})
    _, by_flag = invoke(tmp_path, {"run": ok}, "run", "-l", "python", "-c", "1", "one", "two")
    assert request_of(by_flag)["args"] == ["one", "two"]
    _, by_stdin = invoke(tmp_path, {"run": ok}, "run", "-l", "python", "-", stdin=b"print(2)")
    assert request_of(by_stdin)["code"] == "print(2)"
