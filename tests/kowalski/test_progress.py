"""Events of the node as updates that a program can show."""

from __future__ import annotations

from kowalski.progress import TaskProgress


def test_an_update_tells_how_far_a_task_is() -> None:
    progress = TaskProgress("", 30, began_at=100.0)
    first = progress.update({"kind": "submitted", "task": "t1", "mode": "rlm"}, 100.5)
    assert (first.task_id, first.kind, first.elapsed_s) == ("t1", "submitted", 0.5)
    progress.update({"kind": "coordinator", "name": "desk", "term": 1, "peer": "p"}, 101.0)
    progress.update({"kind": "call", "name": "gpu", "model": "m", "peer": "q"}, 102.0)
    turn = progress.update({"kind": "turn", "n": 1}, 102.0)
    assert (turn.iteration, turn.max_iterations, turn.active_devices, turn.calls) == (1, 30, 2, 1)
    cell = progress.update(
        {"kind": "cell", "cell": 0, "language": "python", "name": "desk", "status": "done"}, 103.0
    )
    assert cell.text == "cell 0 (python) on desk: done"
    assert (cell.active_devices, cell.task_id) == (2, "t1")
    assert progress.ended("answered", 104.0).text == "answered"


def test_what_a_newer_node_tells_is_passed_on_without_words() -> None:
    progress = TaskProgress("t", 5, began_at=0.0)
    assert progress.update({"kind": "call", "peer": "q"}, 1.0).text == ""
    new = progress.update({"kind": "levitated", "metres": 3}, 1.0)
    assert (new.kind, new.text, new.details["metres"]) == ("levitated", "", 3)
