"""One choice of a peer, with everything that it was made from: for those who ask why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kowalski.mesh.core.offers import Refusal
from kowalski.mesh.core.placement import Need, Ranking
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.placement import Offer

Way = Literal["nobody", "only", "direct", "offers", "bound"]
"""Nobody can; one alone can; short work, to the better of two; by live offers; it was given."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`chosen` None: nobody can, or all are full. Times in seconds of the decider's clock."""

    at: float
    need: Need
    way: Way
    ranking: Ranking
    chosen: PeerId | None
    why: str
    offers: dict[PeerId, Offer] = field(default_factory=dict)
    refusals: dict[PeerId, Refusal] = field(default_factory=dict)
    expected_s: float | None = None
    retry_after_s: float | None = None
