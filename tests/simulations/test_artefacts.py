"""What a broken promise leaves behind can be told again."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations import artefacts, plan
from simulations.reports import Report
from simulations.scenarios import load
from simulations.witness import Violation

REPORT = Report(
    plan.draw(load("home"), 5),
    trace_hash="0123",
    violation=Violation("visible_once", "twice", 1.5),
    last=("1.0 something",),
    recorders={"node 0 task_ledger": ["1.0 step"]},
)


def test_it_holds_the_plan_how_it_ended_and_of_which_code(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.json"
    artefacts.save(REPORT, path)
    read = artefacts.load(path)
    assert read.plan == REPORT.plan
    assert (read.trace_hash, read.violation) == ("0123", REPORT.violation)
    assert read.commit == artefacts.commit()
    assert "node 0 task_ledger" in path.read_text()
    assert "1.0 something" in path.read_text()


def test_of_a_story_that_went_well_too(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    artefacts.save(Report(REPORT.plan), path)
    assert artefacts.load(path).violation is None


def test_another_file_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text('{"plan": 1}')
    with pytest.raises(ValueError, match=r"no plan|no artefact|int"):
        artefacts.load(path)
    with pytest.raises(FileNotFoundError):
        artefacts.load(tmp_path / "none.json")
