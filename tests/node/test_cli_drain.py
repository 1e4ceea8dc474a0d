"""drain and undrain, as their owner types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kowalski.node.cli import cli
from kowalski.node.cli_render import peers
from tests.node.scripted_node import Script, scripted_node

NOTHING = {"tasks": 0, "jobs": 0, "sessions": 0}
EMPTY = {"draining": True, "is_empty": True, "left": NOTHING}
ONE_LEFT = {"draining": True, "is_empty": False, "left": {**NOTHING, "tasks": 1, "jobs": 2}}


def invoke(tmp_path: Path, *args: str) -> Result:
    return CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])


def test_drain_says_what_it_waits_for_and_that_the_node_can_go(tmp_path: Path) -> None:
    event = {"kind": "left", **NOTHING, "jobs": 2}
    with scripted_node(tmp_path, {"drain": Script(EMPTY, (event,))}) as node:
        ended = invoke(tmp_path, "drain", "--timeout", "2m")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.splitlines() == [
        "still here: 2 jobs",
        "nothing is left here: this node can go",
    ]
    assert node.heard == [("drain", {"timeout_s": 120.0})]


@pytest.mark.parametrize(("options", "exit_code"), [((), 1), (("--no-wait",), 0)])
def test_what_is_left_in_the_end_is_a_failure_for_who_waited(
    tmp_path: Path, options: tuple[str, ...], exit_code: int
) -> None:
    with scripted_node(tmp_path, {"drain": Script(ONE_LEFT)}) as node:
        ended = invoke(tmp_path, "drain", *options)
    assert ended.exit_code == exit_code
    assert ended.stderr == "this node takes no more work; still here: 1 task, 2 jobs\n"
    assert node.heard == [("drain", {"timeout_s": 0.0 if options else 60.0})]


def test_undrain_takes_work_again(tmp_path: Path) -> None:
    done = {"draining": False, "is_empty": False, "left": NOTHING}
    with scripted_node(tmp_path, {"undrain": Script(done)}) as node:
        spoken, written = invoke(tmp_path, "undrain"), invoke(tmp_path, "undrain", "--json")
    assert (spoken.exit_code, spoken.stderr) == (0, "this node takes work\n")
    assert json.loads(written.stdout) == done
    assert [verb for verb, _ in node.heard] == ["undrain", "undrain"]


def test_json_is_the_reply_and_nothing_else(tmp_path: Path) -> None:
    event = {"kind": "left", **NOTHING, "jobs": 2}
    with scripted_node(tmp_path, {"drain": Script(EMPTY, (event,))}):
        ended = invoke(tmp_path, "drain", "--json")
    assert [json.loads(line) for line in ended.stdout.splitlines()][-1] == EMPTY
    assert ended.stderr == ""


def test_without_a_node_there_is_nothing_to_drain(tmp_path: Path) -> None:
    assert invoke(tmp_path, "drain").exit_code == 3


def test_peers_shows_who_is_about_to_leave() -> None:
    rows = {"peers": [{"name": "a", "state": "member", "draining": True}]}
    assert "member, draining" in peers(rows, is_terminal=False)
