"""Who leads a task: weighted rendezvous hashing.

The winner is the peer with the highest -w / ln(h), h a hash of task and peer in (0, 1). Every
node comes to the same order from the same view, load spreads by weight, and a peer that comes or
goes moves only the tasks that it wins (Schindelhauer and Schomaker, "Weighted distributed hash
tables", 2005).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from math import log

from kowalski.protocol.ids import PeerId, TaskId

WEIGHT_STEP = 1 / 16
"""Weights are quantised, so that the noise of telemetry does not move tasks."""

_DRAW_BITS = 52
"""With the half, what a float holds exactly: no draw is rounded up to 1."""


def quantised(weight: float) -> float:
    return max(WEIGHT_STEP, round(weight / WEIGHT_STEP) * WEIGHT_STEP)


def order(
    task: TaskId, weights: Mapping[PeerId, float], *, excluding: Iterable[PeerId | None] = ()
) -> tuple[PeerId, ...]:
    """Coordinator first, then its standbys."""
    excluded = frozenset(excluding)
    left = [peer for peer in weights if peer not in excluded]
    return tuple(sorted(left, key=lambda p: (-score(task, p, quantised(weights[p])), p)))


def score(task: TaskId, peer: PeerId, weight: float) -> float:
    digest = blake2b(f"{task}\0{peer}".encode(), digest_size=8).digest()
    draw = ((int.from_bytes(digest, "big") >> (64 - _DRAW_BITS)) + 0.5) / 2**_DRAW_BITS
    return -weight / log(draw)
