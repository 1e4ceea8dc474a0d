"""How long a round trip to a peer takes: smoothed, its jitter, and the least of late.

The smoothed value says what to expect, the least what the path costs when nobody queues. Jitter is
the mean deviation, smoothed alike (RFC 6298 uses the same for retransmission timers).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WEIGHT = 0.3
WINDOW_S = 30.0
KEPT_MAX = 32


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds, all of them. `minima`: when, and how much; ascending in both."""

    smooth_s: float
    jitter_s: float
    minima: tuple[tuple[float, float], ...]
    measured_at: float

    def least_s(self, now: float) -> float:
        """Within the last half minute; the last value of all where nothing was measured since."""
        recent = [rtt_s for at, rtt_s in self.minima if at > now - WINDOW_S]
        return recent[0] if recent else self.minima[-1][1]


def measure(before: Latency | None, rtt_s: float, now: float) -> Latency:
    if before is None:
        return Latency(rtt_s, rtt_s / 2, ((now, rtt_s),), now)
    # Whatever is older and larger can never be the least of a window again.
    smaller = tuple(
        (at, value) for at, value in before.minima if value < rtt_s and at > now - WINDOW_S
    )
    return replace(
        before,
        smooth_s=before.smooth_s + WEIGHT * (rtt_s - before.smooth_s),
        jitter_s=before.jitter_s + WEIGHT * (abs(rtt_s - before.smooth_s) - before.jitter_s),
        minima=(*smaller, (now, rtt_s))[-KEPT_MAX:],
        measured_at=now,
    )
