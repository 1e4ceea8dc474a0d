"""How long to wait before trying again: full jitter.

Uniform between nothing and a bound that doubles (M. Brooker, "Exponential backoff and jitter",
AWS Architecture Blog, 2015). Chance comes in as an argument.
"""

from __future__ import annotations

BASE_S = 0.1
WAIT_S_MAX = 1.0


def full_jitter_s(failures: int, draw: float) -> float:
    """After so many failures; `draw` is uniform in [0, 1)."""
    return draw * min(WAIT_S_MAX, BASE_S * 2.0 ** min(failures, 30))


def spread_s(retry_after_s: float, draw: float) -> float:
    """What a refusal told to wait, and up to a half more, so that not all come back at once."""
    return retry_after_s * (1.0 + 0.5 * draw)
