"""What we have seen of peers at work, against what they say of themselves.

A peer that lies, throttles or swaps takes longer than it promised: its promises are multiplied by
its slowness from then on, and what it promised is believed again, bit by bit, as time passes
without contrary evidence. Nothing of this is gossiped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from kowalski.protocol.ids import PeerId

WEIGHT = 0.15
"""Of the latest request in an average. Work that differs in length by nature must not look like
peers that differ in honesty; a peer that takes ten times as long is found out all the same by two.
"""

SLOWNESS_MIN = 0.1
SLOWNESS_MAX = 64.0
BELIEVED = (0.5, 1.6)
"""Between these a promise was about right: it is taken at its word."""

OVERDUE_TIMES = 4.0
"""An unanswered promise that is so many times overdue counts, as if it had been answered now."""

HALF_LIFE_S = 30.0
"""After this long without evidence, half of the slowness (on a scale of logarithms) is forgiven."""

NOISE_S = 0.02
"""Added to both sides of a comparison: a promise of 1 ms that took 10 is no sign of anything."""

PEERS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one peer at one piece of work. `unit_s`: seconds a unit, when nobody else is served."""

    unit_s: float
    slowness: float = 1.0
    at: float = -inf
    count: int = 0

    def slowness_at(self, now: float) -> float:
        return float(self.slowness ** (0.5 ** (max(0.0, now - self.at) / HALF_LIFE_S)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request went: `took_s` in all, where its peer's word was `promised_s`.

    `crowding` is how many times over the peer was full when it was sent, at least 1.
    """

    units: float
    took_s: float
    promised_s: float
    crowding: float = 1.0


@dataclass(frozen=True, slots=True)
class Experience:
    """The longest unheard of are forgotten first."""

    seen: dict[tuple[PeerId, str], Seen] = field(default_factory=dict)

    def learn(self, peer: PeerId, work: str, outcome: Outcome, now: float) -> Experience:
        """Take in how a request went at `peer`; `work` names what is comparable with each other."""
        key = (peer, work)
        unit_s = outcome.took_s / outcome.crowding / max(outcome.units, 1e-9)
        ratio = (outcome.took_s + NOISE_S) / (outcome.promised_s + NOISE_S)
        ratio = min(SLOWNESS_MAX, max(SLOWNESS_MIN, ratio))
        before = self.seen.get(key)
        count = 1 if before is None else before.count + 1
        weight = max(WEIGHT, 1.0 / count)
        if before is not None:
            unit_s = before.unit_s + weight * (unit_s - before.unit_s)
        told = 1.0 if before is None else before.slowness_at(now)
        updated = Seen(unit_s, told + WEIGHT * (ratio - told), now, count)
        seen = dict(self.seen)
        seen.pop(key, None)  # to the end: the latest heard of
        if len(seen) >= PEERS_MAX:
            del seen[next(iter(seen))]
        seen[key] = updated
        return Experience(seen)

    def unit_s(self, peer: PeerId, work: str) -> float | None:
        """What a unit of `work` takes at `peer`; None if we never saw it at that."""
        one = self.seen.get((peer, work))
        return None if one is None else one.unit_s

    def usual_unit_s(self, work: str) -> float | None:
        """The median over all peers that we have seen at it."""
        units = sorted(one.unit_s for (_, name), one in self.seen.items() if name == work)
        return units[len(units) // 2] if units else None

    def slowness(self, peer: PeerId, work: str, now: float, *, overdue: float = 0.0) -> float:
        """By how much to multiply what `peer` promises.

        `overdue`: what has passed of its oldest unanswered promise to us, as a multiple of it. A
        peer that has stopped tells nothing, and is found out all the same.
        """
        one = self.seen.get((peer, work))
        told = 1.0 if one is None else one.slowness_at(now)
        if overdue > OVERDUE_TIMES:
            told = max(told, overdue)
        least, most = BELIEVED
        return 1.0 if least <= told <= most else min(SLOWNESS_MAX, max(SLOWNESS_MIN, told))

    def forget(self, peer: PeerId) -> Experience:
        return Experience({key: one for key, one in self.seen.items() if key[0] != peer})
