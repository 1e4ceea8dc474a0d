"""topology and top."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from kowalski.node.cli import cli
from tests.node.scripted_node import Script, scripted_node

TOPOLOGY: dict[str, object] = {
    "peers": ["P1", "P2"],
    "matrix": [
        {"peer": "P1", "name": "desk", "age_s": 0.0, "rtt_ms": [None, 1.25]},
        {"peer": "P2", "name": "attic", "age_s": None, "rtt_ms": [None, None]},
    ],
}
STATUS: dict[str, object] = {
    "name": "desk",
    "uptime_s": 3.0,
    "members": {"alive": 1, "failed": 2, "left": 0},
    "warnings": ["partition suspected"],
}
PEERS: dict[str, object] = {
    "peers": [{"name": "attic", "membership": "suspect", "state": "member"}]
}


def invoke(tmp_path: Path, scripts: dict[str, Script], *args: str) -> Result:
    with scripted_node(tmp_path, scripts):
        return CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])


def test_the_matrix_has_a_row_for_each_that_measures(tmp_path: Path) -> None:
    shown = invoke(tmp_path, {"topology": Script(TOPOLOGY)}, "topology")
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0] == ["FROM", "\\", "TO", "AGE", "desk", "attic"]
    assert lines[1] == ["desk", "0", "ms", ".", "1.2"]
    assert lines[2] == ["attic", "-", "-", "."]
    in_json = invoke(tmp_path, {"topology": Script(TOPOLOGY)}, "topology", "--json")
    assert json.loads(in_json.stdout) == TOPOLOGY


def test_a_mesh_of_one_has_no_matrix(tmp_path: Path) -> None:
    alone: dict[str, object] = {"matrix": [{"name": "desk", "rtt_ms": [None]}]}
    shown = invoke(tmp_path, {"topology": Script(alone)}, "topology")
    assert shown.stdout == "no peers to measure\n"


def test_top_looks_once_where_no_terminal_watches(tmp_path: Path) -> None:
    scripts = {"status": Script(STATUS), "peers": Script(PEERS), "tasks": Script({"tasks": []})}
    shown = invoke(tmp_path, scripts, "top")
    assert shown.exit_code == 0, shown.output
    assert "desk  up 3.0 s  peers: 1 alive, 2 failed" in shown.stdout
    assert "! partition suspected" in shown.stdout
    assert "attic  suspect" in shown.stdout
    assert "no tasks" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_top_prints_an_object_a_look_for_programs(tmp_path: Path) -> None:
    scripts = {"status": Script(STATUS), "peers": Script(PEERS), "tasks": Script({"tasks": []})}
    shown = invoke(tmp_path, scripts, "top", "--json", "--count", "2", "--every", "0.01s")
    looks = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(looks) == 2
    assert looks[0] == looks[1] == {"status": STATUS, **PEERS, "tasks": []}
