"""When a node that stands by takes work: once those that are active have had too much for a while.

The auto-scaling of the source design, without a scaler: every standby decides for itself, by what
it hears of the load of the others. The first in an order that all know wakes first, so that they
come one after the other, and it goes back below half of the load that woke it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf

from kowalski.mesh.core.placement import ROLE_OF, Candidate, Kind, load
from kowalski.protocol.ids import PeerId

STANDBY = "standby"
"""What a node that stands by says of why it takes no work."""


@dataclass(frozen=True, slots=True)
class Params:
    wakes_above: float = 0.8
    rests_below: float = 0.4
    after_s: float = 5.0
    each_s: float = 3.0
    """Later, for each standby that comes before."""


PARAMS = Params()


@dataclass(frozen=True, slots=True)
class Activation:
    """`since`: from when on the load has been such that this should change."""

    is_active: bool = False
    since: float = inf


def look(
    state: Activation, busiest: float, before: int, now: float, params: Params = PARAMS
) -> Activation:
    """The state at a load of the others (`busiest`), with so many standbys `before` us."""
    if state.is_active:
        should_change = busiest < params.rests_below
        # Whoever woke last rests first.
        patience_s = params.after_s
    else:
        should_change = busiest > params.wakes_above
        patience_s = params.after_s + params.each_s * before
    if not should_change:
        return replace(state, since=inf)
    since = min(state.since, now)
    if now - since >= patience_s:
        return Activation(is_active=not state.is_active)
    return replace(state, since=since)


def busiest_load(candidates: Iterable[Candidate], kinds: Iterable[Kind]) -> float:
    """The load of the active peers that do what we could do: of the kind that is worst off.

    Infinite where nobody active does it: then we are needed whatever the load.
    """
    able = [one for one in candidates if one.is_routable and not one.is_self and not one.paused]
    loads = [
        sum(load(one, kind) * max(1, one.occupancy[kind].slots) for one in doing)
        / sum(max(1, one.occupancy[kind].slots) for one in doing)
        if (doing := [one for one in able if ROLE_OF[kind] in one.roles])
        else inf
        for kind in kinds
    ]
    return max(loads, default=0.0)


def standbys_before(me: PeerId, candidates: Iterable[Candidate]) -> int:
    """How many that stand by come before us in the order that all standbys agree on."""
    ours = _place(me)
    return sum(
        one.is_routable and one.paused == STANDBY and _place(one.peer) < ours
        for one in candidates
        if one.peer != me
    )


def _place(peer: PeerId) -> bytes:
    return blake2b(peer.encode(), digest_size=8).digest()
