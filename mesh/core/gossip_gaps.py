"""How much gossip of others does not come, by the numbers that they give to what they say.

A number counts as lost once so many later ones have come that it will hardly come any more. One
that its origin said to a single peer, when that was new to it, counts too where we are another: the
count is an upper bound, and in a mesh at rest it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kowalski.protocol.ids import PeerId

LATE_MAX = 16
"""Numbers by which gossip may come out of its order."""

LEAP_MAX = 1000
"""What one number more may count: of a leap, nobody knows whether all in it was ever said."""


@dataclass(slots=True)
class _Origin:
    boot: str
    highest: int
    missing: set[int] = field(default_factory=set[int])


class GossipGaps:
    """Of the origins that are members."""

    def __init__(self) -> None:
        self._origins: dict[PeerId, _Origin] = {}
        self.lost = 0

    def hear(self, peer: PeerId, boot: str, sequence: int) -> None:
        origin = self._origins.get(peer)
        if origin is None or origin.boot != boot:
            self._origins[peer] = _Origin(boot, sequence)
            return
        if sequence == origin.highest + 1 and not origin.missing:
            origin.highest = sequence  # as nearly always
            return
        origin.missing.discard(sequence)
        if sequence <= origin.highest:
            return
        # Of a leap, no more is kept than may still come.
        first = max(origin.highest + 1, sequence - LATE_MAX)
        self.lost += min(first - origin.highest - 1, LEAP_MAX)
        origin.missing.update(range(first, sequence))
        origin.highest = sequence
        late = {one for one in origin.missing if one < sequence - LATE_MAX}
        origin.missing -= late
        self.lost += len(late)

    def forget(self, peer: PeerId) -> None:
        self._origins.pop(peer, None)
