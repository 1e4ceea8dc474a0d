"""The three published base scores. Higher is better; each can be recomputed by hand.

They shortlist; they do not decide alone under load, since every asker sees the same score a
second late (docs/architecture.md, placement).
"""

from __future__ import annotations

RTT_HALF_CODE_S = 0.1
"""Round trip at which the latency part of the code score is one half."""

RTT_HALF_FOLD_S = 0.01

TOKENS_PER_S_FULL = 100.0
"""Faster than this earns nothing more."""


def code_score(*, load: float, rtt_s: float) -> float:
    """0.6 x (1 - load) + 0.4 x 1/(1 + rtt/100 ms). `load` may exceed 1, and then costs."""
    return 0.6 * (1.0 - load) + 0.4 / (1.0 + rtt_s / RTT_HALF_CODE_S)


def inference_score(*, memory_used: float, tokens_per_s: float) -> float:
    """0.4 x (1 - memory used) + 0.6 x min(tokens per second / 100, 1)."""
    return 0.4 * (1.0 - memory_used) + 0.6 * min(tokens_per_s / TOKENS_PER_S_FULL, 1.0)


def folding_score(*, rtt_s: float) -> float:
    """1/(1 + rtt/10 ms)."""
    return 1.0 / (1.0 + rtt_s / RTT_HALF_FOLD_S)
