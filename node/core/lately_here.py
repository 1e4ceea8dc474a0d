"""Who could do a piece of work, was here a moment ago, and may be back in another.

A device drops off its network for ten seconds and is given up meanwhile. What was asked of it then
waits (`missed.may_come_back`); so does what would have been asked, where nobody else can do it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from kowalski.mesh.core.placement import Devices, Need, lacks
from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.core.missed import LOST_S
from kowalski.protocol.messages.telemetry import Profile


@dataclass(frozen=True, slots=True)
class Absent:
    """One that cannot be reached now, what it could do, and how long ago it was heard of."""

    profile: Profile
    age_s: float

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(self.profile.roles)

    @property
    def languages(self) -> frozenset[str]:
        return frozenset(one.name for one in self.profile.languages)

    @property
    def models(self) -> frozenset[str]:
        return frozenset(one.name for one in self.profile.models)


def lately_here(everybody: Iterable[PeerFacts], devices: Devices) -> tuple[Absent, ...]:
    """Those that are gone without a goodbye, and were heard of within `LOST_S`."""
    if devices == "local":
        return ()
    return tuple(
        Absent(one.profile, one.age_s)
        for one in everybody
        if not (one.is_self or one.is_routable or one.membership == "left")
        and one.profile is not None
        and one.age_s is not None
        and one.age_s < LOST_S
    )


def gone_s(everybody: Iterable[PeerFacts], need: Need) -> float:
    """How long ago one that could do it was last heard of; inf: there is none to wait for."""
    able = (one for one in lately_here(everybody, need.devices) if not lacks(need, one))
    return min((one.age_s for one in able), default=inf)
