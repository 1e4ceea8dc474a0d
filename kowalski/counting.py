"""What one client's tasks came to, for `Kowalski.subscribe_to_metrics`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kowalski.results import Device, ExecutionMetrics, ExecutionResult


class Counted:
    """What one client's tasks came to."""

    """`waiting` are tasks of batches that have not been submitted."""

    def __init__(self) -> None:
        self.waiting = 0
        self._running = self._done = self._failed = self._calls = self._tokens = 0
        self._latency_s = 0.0
        self._began_at: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """For the length of one task."""
        self._running += 1
        if self._began_at is None:
            self._began_at = time.monotonic()
        try:
            yield
        finally:
            self._running -= 1

    def ended(self, result: ExecutionResult[Any]) -> None:
        self._done += result.state == "answered"
        self._failed += result.state != "answered"
        self._calls += result.metrics.calls
        self._tokens += result.metrics.prompt_tokens + result.metrics.completion_tokens
        self._latency_s += result.metrics.duration_s

    def metrics(self, usable: Sequence[Device]) -> ExecutionMetrics:
        over = self._done + self._failed
        elapsed_s = time.monotonic() - self._began_at if self._began_at is not None else 0.0
        return ExecutionMetrics(
            active_devices=len(usable),
            load=sum(one.load for one in usable) / max(1, len(usable)),
            tasks_running=self._running,
            queue_depth=self.waiting,
            tasks_done=self._done,
            tasks_failed=self._failed,
            throughput_per_s=over / elapsed_s if elapsed_s else 0.0,
            avg_latency_ms=1000 * self._latency_s / over if over else 0.0,
            calls=self._calls,
            tokens=self._tokens,
        )
