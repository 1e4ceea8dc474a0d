"""A machine that slept is told from one that was merely slow."""

from __future__ import annotations

import time

import pytest

from kowalski.mesh.sleep_watch import ASLEEP_S_MIN, SleepWatch, time_with_sleep


class Clocks:
    def __init__(self) -> None:
        self.awake = self.all = 100.0

    def pass_(self, awake_s: float, asleep_s: float = 0.0) -> None:
        self.awake += awake_s
        self.all += awake_s + asleep_s


def test_time_that_the_machine_slept_through_is_told_once() -> None:
    clocks = Clocks()
    watch = SleepWatch(lambda: clocks.all, lambda: clocks.awake)
    clocks.pass_(5.0)
    assert watch.away_s() == 0.0
    clocks.pass_(1.0, asleep_s=3600.0)
    assert watch.away_s() == pytest.approx(3600.0)
    clocks.pass_(50.0)
    assert watch.away_s() == 0.0


@pytest.mark.parametrize("correction_s", [-3600.0, -1.0, ASLEEP_S_MIN / 2])
def test_a_clock_that_is_corrected_is_no_sleep(correction_s: float) -> None:
    clocks = Clocks()
    watch = SleepWatch(lambda: clocks.all, lambda: clocks.awake)
    clocks.pass_(1.0, asleep_s=correction_s)
    assert watch.away_s() == 0.0


def test_the_clock_that_counts_sleep_goes_on() -> None:
    before = time_with_sleep()
    time.sleep(0.01)
    assert time_with_sleep() > before
