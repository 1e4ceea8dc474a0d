"""Scenarios run as processes of their own, with their peers, their figures and their ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.environments import Absent, Installed, Peer
from benchmarks.figures import Figure
from benchmarks.running import run
from tests.benchmarks.tiny import Tiny

PEER = Peer("other", "a test", ("other==1",))
BESIDE = Installed(PEER, "1.0", Path("/bin/true"), {"some-server": Path("/bin/false")})
GONE = Absent(Peer("gone", "a test"), "no npm on the path")


def test_a_run_has_the_figures_the_peers_and_the_failures_of_its_scenarios() -> None:
    scenario = Tiny("tiny", "a test", peers=("other", "gone"))
    told = run([scenario], {"other": BESIDE, "gone": GONE}, is_quick=False)
    assert (told.versions, told.absent) == ({"other": "1.0"}, {"gone": "no npm on the path"})
    (outcome,) = told.outcomes
    assert outcome.figures == (
        Figure("a thing (ms)", 2.0, 1.0, 3.0, cpu_ms=0.5),
        Figure("a thing (ms)", 5.0, 5.0, 5.0, "other"),
    )
    assert [one.peer for one in outcome.failures] == ["broken"]
    assert outcome.failure == ""
    assert outcome.command == "python -m tests.benchmarks.tiny --peer other=..."
    assert "a thing (ms), other" in outcome.output


def test_one_that_fails_keeps_its_figures_and_is_told_and_the_next_one_runs() -> None:
    wanted = [Tiny("bad", "a test", quick=("--fails",)), Tiny("good", "a test")]
    bad, good = run(wanted, {}, is_quick=True).outcomes
    assert bad.failure == "ended with 1: it went wrong"
    assert len(bad.figures) == len(good.figures) == 1
    assert good.failure == ""


def test_one_that_takes_too_long_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    scenario = Tiny("slow", "a test", quick=("--hangs", str(child)))
    (outcome,) = run([scenario], {}, is_quick=True, limit_s=8.0).outcomes
    assert outcome.failure == "was stopped after 8 s"
    assert len(outcome.figures) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)
