"""Notices that this machine was asleep: its monotonic clock stood still while time went on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import trio

ASLEEP_S_MIN = 2.0
"""Clocks are corrected by less, and nobody gives us up so soon."""


def time_with_sleep() -> float:
    """Seconds of a clock that goes on while the machine sleeps; with no meaning but differences."""
    if sys.platform == "linux":
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME)
    elif sys.platform == "darwin":
        # Apple's, unlike Linux's of that name, and unlike `time.monotonic`.
        seconds = time.clock_gettime(time.CLOCK_MONOTONIC)
    else:
        seconds = time.time()
    return seconds


class SleepWatch:
    """Compares two clocks, each time it is asked. Two of the same kind never see any sleep."""

    def __init__(
        self,
        with_sleep: Callable[[], float] = trio.current_time,
        without: Callable[[], float] = trio.current_time,
    ) -> None:
        self._with_sleep = with_sleep
        self._without = without
        self._ahead_s = with_sleep() - without()

    def away_s(self) -> float:
        """For how long we slept since this was asked last; 0 if we did not."""
        before_s, self._ahead_s = self._ahead_s, self._with_sleep() - self._without()
        away_s = self._ahead_s - before_s
        return away_s if away_s >= ASLEEP_S_MIN else 0.0
