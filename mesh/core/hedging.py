"""When to ask a second peer although the first has not failed, only taken long.

J. Dean and L. Barroso, "The tail at scale", CACM 2013: after the 95th percentile, so that few
requests are sent twice. Only for work that may be done twice, and never while the mesh is full,
since then a hedge makes the others slower.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kowalski.mesh.core.latencies import Latencies

QUANTILE = 0.95
SHARE_MAX = 0.05
"""Of the requests of a kind: hedges never exceed it."""

SAVED_MAX = 3.0
"""Hedges that a quiet time may save up."""

LOAD_MAX = 0.8
"""Of the peers that could do it, on average."""

EXPECTED_TIMES = 2.0


@dataclass(frozen=True, slots=True)
class Hedging:
    """Of one kind of work. Latencies are to the first sign of an answer."""

    latencies: Latencies = field(default_factory=Latencies)
    saved: float = 0.0

    def ask(self) -> Hedging:
        return Hedging(self.latencies, min(SAVED_MAX, self.saved + SHARE_MAX))

    def answer(self, seconds: float) -> Hedging:
        return Hedging(self.latencies.add(seconds), self.saved)

    def after_s(self, expected_s: float) -> float | None:
        """How long to wait for the first peer; None while nobody knows what is usual."""
        usual_s = self.latencies.quantile(QUANTILE)
        return None if usual_s is None else max(usual_s, EXPECTED_TIMES * expected_s)

    def spend(self, load: float) -> Hedging | None:
        """After one hedge at this load of the mesh; None if there may be none."""
        if load > LOAD_MAX or self.saved < 1.0 - 1e-9:
            return None
        return Hedging(self.latencies, max(0.0, self.saved - 1.0))
