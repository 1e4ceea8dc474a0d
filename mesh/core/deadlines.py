"""How much of the time that is left is passed on to the next hop: less than we have.

Whoever works for us must give up before we do: its no then still reaches us, and can be told from
silence. Durations only; no two clocks are compared.
"""

from __future__ import annotations

MARGIN_SHARE = 0.02
MARGIN_S_MAX = 0.5


def passed_on_s(remaining_s: float, rtt_s: float) -> float:
    """What to tell a peer that far away."""
    margin_s = min(MARGIN_S_MAX, MARGIN_SHARE * remaining_s)
    return max(0.0, remaining_s - rtt_s - margin_s)
