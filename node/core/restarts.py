"""Whether, and when, a child process that ended is started again.

One that ran for a while is started at once; one that ends soon, later each time, and no more after
a few times: then something is wrong with it that a start does not mend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SOON_S: Final = 10.0
"""Who ends before that after it was ready, or never was, did not run."""

DELAY_S: Final = 0.5
DELAY_S_MAX: Final = 30.0
ATTEMPTS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Restarts:
    """`in_vain` counts the starts in a row that did not last."""

    in_vain: int = 0

    def ended(self, ran_s: float) -> tuple[Restarts, float | None]:
        """The state after it ended, and seconds until the next start; None: leave it."""
        if ran_s >= SOON_S:
            return Restarts(), 0.0
        in_vain = self.in_vain + 1
        if in_vain >= ATTEMPTS_MAX:
            return Restarts(in_vain), None
        return Restarts(in_vain), min(DELAY_S_MAX, DELAY_S * 2 ** (in_vain - 1))
