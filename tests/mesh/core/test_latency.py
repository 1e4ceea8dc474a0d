"""Round trips: what to expect, how much that varies, and what the path costs by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.latency import KEPT_MAX, WINDOW_S, Latency, measure


def measured(*values: tuple[float, float]) -> Latency:
    latency = None
    for at, rtt_s in values:
        latency = measure(latency, rtt_s, at)
    assert latency is not None
    return latency


def test_round_trips_are_smoothed_with_three_tenths_of_the_newest() -> None:
    assert measured((0, 0.1), (1, 0.2)).smooth_s == pytest.approx(0.7 * 0.1 + 0.3 * 0.2)


def test_jitter_shrinks_where_every_round_trip_is_like_the_last() -> None:
    steady = measured(*((at, 0.1) for at in range(40)))
    assert steady.jitter_s < 1e-6
    restless = measured(*((at, 0.1 + 0.1 * (at % 2)) for at in range(40)))
    assert 0.03 < restless.jitter_s < 0.1


def test_the_least_is_that_of_the_last_half_minute() -> None:
    latency = measured((0, 0.010), (10, 0.030), (20, 0.020))
    assert latency.least_s(20) == 0.010
    assert latency.least_s(WINDOW_S + 1) == 0.020
    assert latency.least_s(1000) == 0.020, "the last one, where nothing was measured since"


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.0001, 2)), min_size=1, max_size=200))
def test_the_least_is_what_a_look_at_all_values_says(steps: list[tuple[float, float]]) -> None:
    latency, now, seen = None, 0.0, []
    for wait_s, rtt_s in steps:
        now += wait_s
        seen.append((now, rtt_s))
        latency = measure(latency, rtt_s, now)
    assert latency is not None
    assert len(latency.minima) <= KEPT_MAX
    recent = [rtt_s for at, rtt_s in seen if at > now - WINDOW_S]
    if len(recent) <= KEPT_MAX:
        assert latency.least_s(now) == min(recent)
    least, most = min(rtt for _, rtt in seen), max(rtt for _, rtt in seen)
    assert least - 1e-9 <= latency.smooth_s <= most + 1e-9
