"""topology and top."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kowalski.node.cli import cli
from kowalski.node.cli_live import cell_width
from kowalski.node.cli_mesh import screen
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


FULL: dict[str, object] = {
    "status": {
        **STATUS,
        "warnings": ["the clock of this machine was set back by 300 seconds " * 2],
    },
    "peers": [
        {
            "name": name,
            "is_self": number == 0,
            "peer": f"12D3KooWCTEPQxrrbvxT9Fz3hcu5zdWnyTjDvEvSx3vrWvwat58{number}",
            "membership": "alive",
            "age_s": 12.0,
            "rtt_ms": 4.25,
            "load": 0.5,
            "cpu_percent": 100.0,
            "memory_used_fraction": 0.5,
            "languages": {"python": "3.12.1", "bash": "5.2"},
            "models": ["llama3.2:3b-instruct-q4_K_M", "qwen3:30b"],
            "roles": ["submit", "repl", "infer"],
            "why_not": "" if number else "no 12D3KooWNk1YHpfhHnuN7igUpbasSxJNKfRZRAt8t6Gf6qeSFLwy",
        }
        for number, name in enumerate(("desk", "an-old-laptop-in-the-attic", "机器"))
    ],
    "tasks": [
        {
            "task": "01M8K39KDG3AF91HQN0ZSF9PG4",
            "state": "running",
            "mode": "auto",
            "submitter_name": "desk",
            "coordinator_name": "an-old-laptop-in-the-attic",
            "term": 1,
            "entries": 12,
            "submitted_s_ago": 75.0,
            "prompt_head": "how many words are there in all these files together, and which",
        }
    ],
}


@pytest.mark.parametrize("width", [40, 46, 60, 72, 80, 120])
def test_top_fits_the_terminal_one_line_a_row(width: int) -> None:
    told = screen(FULL, width=width)
    lines = told.splitlines()
    assert max(map(cell_width, lines)) <= width
    head, warning, peers, tasks = told.split("\n\n")
    assert head.startswith("desk  up 3.0 s")
    assert " ".join(warning.split()).startswith("! the clock of this machine")
    assert len(peers.splitlines()) == 4
    assert {"NAME", "STATE", "LOAD", "CPU"} <= set(peers.splitlines()[0].split())
    assert tasks.splitlines()[0].split()[:2] == ["TASK", "STATE"]
    assert "running" in tasks
    assert ("01M8K39KDG3AF91HQN0ZSF9PG4" in tasks) == (width >= 100)
    assert "SF9PG4" in tasks, "its end tells it from others"


def test_top_says_that_there_are_no_tasks() -> None:
    assert screen({**FULL, "tasks": []}, width=40).endswith("\n\nno tasks")
