"""How many pieces of work at a time a server can take without making each of them slower.

TCP Vegas on the time that a unit of work takes (L. Brakmo and L. Peterson, 1995; as in Netflix's
concurrency-limits): from the best pace seen, it can be told how many of those in flight only wait
inside the server. A line that we can see is better: it is fair, and others can be sent elsewhere.
Now and then the load is taken down for a moment to see what the best pace is by now, as BBR does.
"""

from __future__ import annotations

from dataclasses import dataclass

ALPHA = 2
"""Fewer than so many waiting inside: one more may be sent."""

BETA = 4

SAMPLES_BETWEEN = 4
"""Changes are made after so many, and take effect before the next."""

BELIEVED_SAMPLES = 500
"""After so many that were all slower, the best pace is measured anew."""

AS_GOOD = 1.1


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """`most` is what the server says it can take. The limit never exceeds it, nor falls below 1."""

    most: int
    limit: int
    best_unit_s: float | None = None
    slower: int = 0
    """Samples in a row that were not nearly as good as the best."""
    samples: int = 0
    unit_s: float = 0.0
    """Sum over the samples since the last change."""

    def resize(self, most: int) -> ConcurrencyLimit:
        if most == self.most:
            return self
        return ConcurrencyLimit(most, max(1, most))

    def learn(self, unit_s: float, in_flight: int) -> ConcurrencyLimit:
        """A piece of work is done: what a unit of it took, and how many ran beside it."""
        best_unit_s = unit_s if self.best_unit_s is None else min(unit_s, self.best_unit_s)
        slower = self.slower + 1 if unit_s > AS_GOOD * best_unit_s else 0
        samples, sum_s = self.samples + 1, self.unit_s + unit_s
        if slower >= BELIEVED_SAMPLES:
            return ConcurrencyLimit(self.most, max(1, self.limit // 4))
        if samples < SAMPLES_BETWEEN:
            return ConcurrencyLimit(self.most, self.limit, best_unit_s, slower, samples, sum_s)
        mean_s = sum_s / samples
        waiting_inside = in_flight * (1.0 - best_unit_s / mean_s) if mean_s > 0 else 0.0
        limit = self.limit
        if waiting_inside > BETA:
            limit -= 1
        elif waiting_inside < ALPHA and 2 * in_flight >= limit:
            limit += 1
        limit = max(1, min(limit, max(1, self.most)))
        return ConcurrencyLimit(self.most, limit, best_unit_s, slower)
