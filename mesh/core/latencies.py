"""The last latencies of one kind of work, and from which one on a request is a straggler."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

KEPT = 100
NEEDED = 20
"""With fewer, a 95th percentile says nothing."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds, oldest first."""

    seen: tuple[float, ...] = ()

    def add(self, seconds: float) -> Latencies:
        return Latencies((*self.seen, seconds)[-KEPT:])

    def quantile(self, share: float) -> float | None:
        """The least that `share` of them do not exceed; None while too few were seen."""
        if len(self.seen) < NEEDED:
            return None
        return sorted(self.seen)[max(0, ceil(share * len(self.seen)) - 1)]
