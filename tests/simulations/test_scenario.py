"""Seeded stories: they are told again exactly, and a broken promise is seen."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from simulations.scenario import ABLE, Report, ViolationError, run
from simulations.toy_cells import toy_script
from simulations.world import Part

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [7, 11])
def test_every_task_of_a_story_is_answered(seed: int) -> None:
    report = run(nodes=3, seed=seed, minutes=0.5)
    assert report.tasks > 3
    assert sum(report.faults.values()) > 0
    assert report.entries > report.tasks


def told(seed: int, hash_seed: int) -> str:
    command = [sys.executable, "-m", "simulations", "run", "--seed", str(seed), "--minutes", "0.2"]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [*command, "--trace"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    return done.stdout.rpartition("seed ")[0]


def test_a_seed_tells_the_same_story_in_every_process_and_another_tells_another() -> None:
    first = told(3, hash_seed=1)
    assert "submitted" in first or "task-0" in first
    assert told(3, hash_seed=2) == first
    assert told(4, hash_seed=1) != first


def test_traces_of_different_stories_have_different_hashes() -> None:
    assert Report(1, trace=["a"]).trace_hash != Report(1, trace=["b"]).trace_hash


def liar(code: str, state: ScriptedState) -> ScriptedCell:
    return toy_script(code.replace("show x", "say x is unknown"), state)


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (dataclasses.replace(ABLE, script=liar), "not in"),
        (dataclasses.replace(ABLE, tells=lambda _request: "nothing"), "not in"),
        (dataclasses.replace(ABLE, languages={"bash": "5.2"}), "not in"),
        (dataclasses.replace(ABLE, models=()), "not in|no_model"),
        (dataclasses.replace(ABLE, delay_per_token_s=50.0), "s after the faults"),
        (dataclasses.replace(ABLE, roles=("submit", "repl", "infer")), "waiting"),
    ],
    ids=["lying cells", "lying models", "no python", "no model", "no speed", "no coordinator"],
)
def test_a_mesh_that_breaks_its_promise_is_caught(part: Part, complaint: str) -> None:
    with pytest.raises(ViolationError, match=complaint):
        run(nodes=3, seed=7, minutes=0.3, part=part)
