"""What one client's tasks came to."""

from __future__ import annotations

from kowalski.counting import Counted
from kowalski.results import Device, result_of


def device(load: float) -> Device:
    return Device("p", "n", True, True, load, None, (), (), ())


def test_tasks_are_counted_as_they_begin_and_end() -> None:
    counted = Counted()
    before = counted.metrics([])
    assert (before.tasks_running, before.throughput_per_s, before.avg_latency_ms) == (0, 0, 0)
    counted.waiting = 3
    with counted.running():
        during = counted.metrics([device(0.5), device(1.5)])
        assert (during.tasks_running, during.active_devices, during.load) == (1, 2, 1.0)
        stats = {"calls": 4, "prompt_tokens": 10, "completion_tokens": 5}
        done = {"task": "t", "state": "answered", "answer": "", "mode": "rlm", "stats": stats}
        counted.ended(result_of(done, 2.0))
        counted.ended(result_of({**done, "state": "failed"}, 4.0))
    after = counted.metrics([])
    assert (after.tasks_running, after.tasks_done, after.tasks_failed) == (0, 1, 1)
    assert (after.calls, after.tokens, after.avg_latency_ms) == (8, 30, 3000.0)
    assert (after.queue_depth, after.throughput_per_s > 0) == (3, True)
