"""The program as a whole: what it imports, its exit codes, and how it is interrupted."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kowalski.node.cli import cli
from tests.node.scripted_node import Script, scripted_node

HEAVY = ("libp2p", "trio", "pydantic", "rich", "zeroconf", "structlog", "asyncio", "multiaddr")


def program(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "kowalski.node", *map(str, args)]


@pytest.mark.parametrize("command", [["status"], ["peers", "--json"], ["submit", "hi"]])
def test_asking_a_node_that_is_not_there_imports_nothing_heavy(
    tmp_path: Path, command: list[str]
) -> None:
    script = (
        "import sys\n"
        "from kowalski.node.cli import cli\n"
        f"code = cli({[*command, '--data-dir', str(tmp_path)]!r}, standalone_mode=False)\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 3, ended.stderr
    assert "start one with: kowalski-node start" in ended.stderr


def test_without_a_node_the_last_line_of_json_says_so(tmp_path: Path) -> None:
    ended = CliRunner().invoke(cli, ["status", "--json", "--data-dir", str(tmp_path)])
    assert ended.exit_code == 3
    error = json.loads(ended.stdout)["error"]
    assert (error["code"], error["exit_code"]) == ("not_running", 3)
    assert "kowalski-node start" in error["hint"]


def test_every_command_takes_the_common_options() -> None:
    context = cli.make_context("kowalski-node", ["version"])
    waiting = [cli.get_command(context, name) for name in cli.list_commands(context)]
    assert len(waiting) > 15
    while waiting:
        command = waiting.pop()
        assert command is not None
        if isinstance(command, click.Group):
            waiting += command.commands.values()
        else:
            options = {option for each in command.params for option in each.opts}
            assert {"--json", "--data-dir", "--config"} <= options, command.name


def test_version_and_its_json() -> None:
    assert "kowalski-node 0." in CliRunner().invoke(cli, ["version"]).stdout
    facts = json.loads(CliRunner().invoke(cli, ["version", "--json"]).stdout)
    assert facts["python"].startswith("3.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    ended = CliRunner().invoke(cli, ["completion", shell])
    assert ended.exit_code == 0
    assert "_KOWALSKI_NODE_COMPLETE" in ended.stdout


def test_an_unknown_command_and_an_unknown_shell_are_usage_errors() -> None:
    assert CliRunner().invoke(cli, ["dance"]).exit_code == 2
    assert CliRunner().invoke(cli, ["completion", "tcsh"]).exit_code == 2


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children hear SIGINT even where a shell started the tests in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("command", [["run", "-l", "python", "-c", "1"], ["ask", "why"]])
def test_interrupting_run_and_ask_cancels_them_and_ends_with_130(
    tmp_path: Path, command: list[str]
) -> None:
    with scripted_node(tmp_path, {command[0]: Script(hangs=True)}) as node:
        with subprocess.Popen(program(*command, "--data-dir", tmp_path)) as process:
            assert node.has_hung.wait(20)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        assert node.was_cancelled.wait(20)


@pytest.mark.usefixtures("interruptible")
def test_interrupting_submit_says_that_the_task_goes_on(tmp_path: Path) -> None:
    script = Script(events=({"kind": "submitted", "task": "T1"},), hangs=True)
    with (
        scripted_node(tmp_path, {"submit": script}) as node,
        subprocess.Popen(
            program("submit", "why", "--data-dir", tmp_path), stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stderr is not None
        assert "task T1" in process.stderr.readline()
        assert node.has_hung.wait(20)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(20) == 130
    assert "goes on" in told
    assert "kowalski-node attach T1" in told
    assert "kowalski-node cancel T1" in told


def test_a_reader_that_leaves_is_no_reason_to_complain(tmp_path: Path) -> None:
    events = tuple({"kind": "output", "stream": "stdout", "text": "x" * 9999} for _ in range(100))
    script = Script({"exit_code": 0}, events)
    with (
        scripted_node(tmp_path, {"run": script}),
        subprocess.Popen(
            program("run", "-l", "python", "-c", "1", "--data-dir", tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(20)


def test_no_peer_moves_the_cursor_of_a_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\x9b31m"
    script = Script(
        {"state": "answered", "task": "T1", "answer": f"{evil}answer\n"},
        (
            {"kind": "submitted", "task": "T1"},
            {"kind": "note", "text": f"{evil}[bold]note[/bold]"},
            {"kind": "cell", "cell": "1", "name": f"{evil}desk", "status": "started"},
        ),
    )
    listening, terminal = pty.openpty()
    with (
        scripted_node(tmp_path, {"submit": script}),
        subprocess.Popen(
            program("submit", "why", "--data-dir", tmp_path),
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        ) as process,
    ):
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(listening, 65536):
                shown += data
        except OSError:  # the other end is closed
            pass
        assert process.wait(20) == 0
    os.close(listening)
    # The live line moves the cursor by itself; what peers said must not.
    for part in (b"\x1b[2J", b"\x1b]0;", b"\x07", "\x9b".encode()):
        assert part not in shown
    assert b"[bold]note[/bold]" in shown
    assert b"answer" in shown
