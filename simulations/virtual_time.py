"""Virtual time that waits for threads, and a scheduler that takes turns by a seed.

trio's own `MockClock` takes a task that waits for a thread for an idle one, and jumps: a fetch
from disk would time out for no reason. This clock, an ordinary `trio.abc.Clock`, jumps only while
no thread is at work. Where nothing uses threads, a run is decided by its seed to the last step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from math import inf

import trio

THREAD_WAIT_S = 60.0
"""Real seconds; the end of a thread wakes the loop at once, this only bounds the wait."""


class JumpingClock(trio.abc.Clock):
    """Stands still while any task or thread is at work, else jumps to the next deadline."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def start_clock(self) -> None:
        """Nothing to start: time passes in jumps."""

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Real seconds to wait for what comes from outside; asked when no task can go on."""
        if trio.to_thread.current_default_thread_limiter().borrowed_tokens or deadline == inf:
            return THREAD_WAIT_S
        self._now = max(self._now, deadline)
        return 0.0


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """Make trio take turns in an order that follows from `seed`, for what is run in the block.

    trio shuffles on purpose, with a generator of its own. It has a switch for tests (its plugin
    for Hypothesis uses it) but no public one; the version is pinned below the next minor.
    """
    scheduler = import_module("trio._core._run")
    switch = "_ALLOW_DETERMINISTIC_SCHEDULING"
    before = getattr(scheduler, switch)
    assert isinstance(before, bool), "trio has changed its scheduler"
    setattr(scheduler, switch, True)
    scheduler._r.seed(seed)  # noqa: SLF001 see above
    try:
        yield
    finally:
        setattr(scheduler, switch, before)
        scheduler._r.seed()  # noqa: SLF001 see above
