"""What the node answers, as records."""

from __future__ import annotations

import pytest

from kowalski.errors import REPLError, REPLTimeout
from kowalski.results import FoldResult, RunResult, result_of


def ran(**changed: object) -> RunResult:
    fields = {
        "stdout": "42\n",
        "stderr": "",
        "exit_code": 0,
        "status": "ok",
        "error": "",
        "value": "",
        "duration_s": 0.5,
        "files": {},
        "peer": "p",
        "name": "desk",
    }
    return RunResult(**{**fields, **changed})  # type: ignore[arg-type]


def test_a_result_has_what_the_node_said_and_a_newer_nodes_more_is_left() -> None:
    done = {
        "task": "t1",
        "state": "answered",
        "answer": "42",
        "reason": "unready: never marked",
        "mode": "rlm",
        "score": 0.9,
        "term": 2,
        "coordinator_name": "desk",
        "stats": {"turns": 3, "calls": 7, "prompt_tokens": 10, "levitations": 1},
        "ran": [{"what": "cell 0 (python)", "peer": "p", "name": "desk", "why": "idle"}],
        "files": [{"name": "out.csv", "bytes": 3, "cell": 0}],
    }
    result = result_of(done, 1.5)
    assert (result.task_id, result.text, result.value, result.score) == ("t1", "42", "42", 0.9)
    assert (result.metrics.turns, result.metrics.calls, result.metrics.duration_s) == (3, 7, 1.5)
    assert (result.work[0].name, result.files, result.term) == ("desk", ("out.csv",), 2)
    assert result.reservation.startswith("unready")


def test_a_program_that_went_well_is_itself_when_checked() -> None:
    assert ran().check() == ran()


def test_a_program_that_did_not_raises_when_checked() -> None:
    with pytest.raises(REPLTimeout, match="stopped after"):
        ran(status="timeout", duration_s=2.0).check()
    with pytest.raises(REPLError, match="NameError: x") as failed:
        ran(status="error", exit_code=1, error="NameError: x").check()
    assert failed.value.code == "error"
    with pytest.raises(REPLError, match="exit code 3"):
        ran(exit_code=3).check()


def test_a_fold_tells_its_ratio() -> None:
    assert FoldResult("t", 100, 25, "a", "p", "n").ratio == 0.25
    assert FoldResult("", 0, 0, "a", "p", "n").ratio == 1.0
