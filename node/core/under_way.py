"""Requests that were sent and are not answered yet, and how much too long they take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kowalski.mesh.core.breaker import Passage
from kowalski.mesh.core.experience import NOISE_S
from kowalski.mesh.core.placement import Kind


@dataclass(slots=True)
class UnderWay:
    """`promised_s`: when the answer was expected, from `sent_at` on the driver's clock."""

    sent_at: float
    promised_s: float
    kind: Kind
    passage: Passage


def most_overdue(sent: Iterable[UnderWay], now: float) -> float:
    """How many times as long as promised the slowest of them takes by now; 0 where none is."""
    return max(((now - one.sent_at) / (one.promised_s + NOISE_S) for one in sent), default=0.0)
