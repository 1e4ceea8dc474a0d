"""What a broken promise leaves behind can be told again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The artefact of a story, with something in it that is wrong."""
    artefacts.save(REPORT, path)
    read = json.loads(path.read_text())
    change(read)
    path.write_text(json.dumps(read))
    return path


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda read: read.update(format=2), "format 2; this version reads format 1"),
        (lambda read: read.pop("trace_hash"), "it has no 'trace_hash'"),
        (lambda read: read["plan"].pop("asks"), "'asks'"),
        (lambda read: read["plan"]["faults"][0].update(kind="crsh"), "no fault is called crsh"),
        (lambda read: read["plan"]["faults"][0].update(nodes=[9]), "there is no node 9"),
        (lambda read: read["plan"]["asks"][0].update(at_s="soon"), r"0\.at_s: Input should be"),
        (lambda read: read["plan"]["asks"][0].update(mood="bad"), "Ask has no mood"),
        (lambda read: read["plan"]["scenario"].update(speed=1), "speed: there is no such key"),
        (lambda read: read.update(violation={"name": "x"}), "no artefact"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    path = changed(tmp_path / "one.json", change)
    with pytest.raises(ValueError, match=complaint) as wrong:
        artefacts.load(path)
    assert "\n" not in str(wrong.value)


def test_a_file_from_before_formats_had_numbers_is_read(tmp_path: Path) -> None:
    path = changed(tmp_path / "one.json", lambda read: (read.pop("format"), read.pop("crash")))
    assert artefacts.load(path).plan == REPORT.plan


def test_another_file_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    for text in ('{"plan": 1}', "[]", "7", "{", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no artefact of a simulation"):
            artefacts.load(path)
    with pytest.raises(FileNotFoundError):
        artefacts.load(tmp_path / "none.json")
