"""The news that a node still passes on: each claim a bounded number of times, a few a message.

SWIM's infection-style dissemination: what is told `times_max` times by everybody who hears it
reaches all with high probability (Das, Gupta, Motivala, DSN 2002, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log

from kowalski.mesh.core.membership import Claim
from kowalski.protocol.ids import PeerId

CLAIMS_PER_MESSAGE = 8
TIMES_FACTOR = 3
"""Times the natural logarithm of the size of the mesh, as in SWIM's evaluation."""


@dataclass(frozen=True, slots=True)
class Rumour:
    claim: Claim
    told: int = 0


@dataclass(frozen=True, slots=True)
class Rumours:
    """In the order in which they go out next, at most one for each peer."""

    waiting: dict[PeerId, Rumour] = field(default_factory=dict)


def times_max(mesh_size: int) -> int:
    return TIMES_FACTOR * ceil(log(max(mesh_size, 1) + 1))


def spread(rumours: Rumours, claims: tuple[Claim, ...]) -> Rumours:
    """Pass these on as well, before all others, in place of what was said of the same peers."""
    if not claims:
        return rumours
    fresh = {claim.peer: Rumour(claim) for claim in claims}
    older = {peer: one for peer, one in rumours.waiting.items() if peer not in fresh}
    return Rumours({**fresh, **older})


def drop(rumours: Rumours, peer: PeerId) -> Rumours:
    if peer not in rumours.waiting:
        return rumours
    return Rumours({name: one for name, one in rumours.waiting.items() if name != peer})


def take(rumours: Rumours, mesh_size: int) -> tuple[Rumours, tuple[Claim, ...]]:
    """What goes into the next message. What was told often enough is dropped."""
    if not rumours.waiting:
        return rumours, ()
    waiting, limit = dict(rumours.waiting), times_max(mesh_size)
    taken: list[Claim] = []
    for peer in tuple(waiting)[:CLAIMS_PER_MESSAGE]:
        rumour = waiting.pop(peer)
        taken.append(rumour.claim)
        if rumour.told + 1 < limit:
            waiting[peer] = Rumour(rumour.claim, rumour.told + 1)
    return Rumours(waiting), tuple(taken)


def check(rumours: Rumours, mesh_size_max: int) -> None:
    """What must hold after every step; `mesh_size_max` is the largest the mesh has been."""
    for peer, rumour in rumours.waiting.items():
        assert rumour.claim.peer == peer
        assert rumour.told < times_max(mesh_size_max)
