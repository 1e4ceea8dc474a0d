"""Folding to a budget that another counts: which budget of ours comes out as theirs.

Our own estimate is off by a few per cent, and by much for an unusual vocabulary. What a fold of it
came out as says by how much, so the next budget is scaled. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

ROUNDS_MAX: Final = 4
NEAR: Final = 0.95
"""A fold that fills so much of the budget is good enough."""

AIM: Final = 0.985
"""Of the budget: a fold comes out in whole sentences, a little more or less than asked for."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """`ours` is the budget to fold to next, by our estimate; `wanted` the one by exact counts."""

    wanted: int
    ours: int
    round: int = 0
    least_over: int | None = None
    """The smallest budget of ours that came out too long."""

    def counted(self, tokens: int) -> Fitting | None:
        """What to fold to next, after a fold to `ours` came out as `tokens`; None: it was the last.

        `tokens` 0 is a text that has nothing to fold.
        """
        is_over = tokens > self.wanted
        over = self.least_over
        if is_over:
            over = self.ours if over is None else min(over, self.ours)
        is_good = not is_over and tokens >= NEAR * self.wanted
        if tokens <= 0 or is_good or self.round + 1 >= ROUNDS_MAX:
            return None
        ours = max(1, int(self.ours * AIM * self.wanted / tokens))
        if over is not None:
            ours = min(ours, over - 1)
        if ours == self.ours or ours < 1:
            return None
        return replace(self, ours=ours, round=self.round + 1, least_over=over)


def first(wanted: int, counted: int, estimated: int) -> Fitting:
    """The first budget, from how some of the text is counted and what we estimate for it."""
    ours = wanted if counted <= 0 else int(AIM * wanted * estimated / counted)
    return Fitting(wanted, max(1, ours))
