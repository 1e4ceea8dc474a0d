"""One peer as seen from here, for those who choose and those who look."""

from __future__ import annotations

from dataclasses import dataclass

from kowalski.mesh.core.latency import Latency
from kowalski.mesh.core.membership import Membership, State
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.telemetry import Hot, Profile


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """One peer as seen from here, now. Ages and round trips in seconds.

    `state` is that of our connection, `membership` what the mesh thinks; None: it never heard of
    the peer. `incarnation` and `membership_age_s` tell of which run, and for how long.
    """

    peer: PeerId
    name: str
    is_self: bool
    state: str
    is_routable: bool
    why_not: str
    addresses: tuple[Address, ...]
    roles: tuple[str, ...]
    rtt_s: float | None
    age_s: float | None
    profile: Profile | None
    hot: Hot | None
    membership: State | None = None
    incarnation: int = 0
    membership_age_s: float | None = None
    latency: Latency | None = None


def own_facts(
    table: Membership, profile: Profile, addresses: tuple[Address, ...], *, warning: str
) -> PeerFacts:
    """Of ourselves."""
    return PeerFacts(
        peer=table.me,
        name=profile.name,
        is_self=True,
        state="member",
        is_routable=True,
        why_not=warning,
        addresses=addresses,
        roles=profile.roles,
        rtt_s=0.0,
        age_s=0.0,
        profile=profile,
        hot=profile.hot,
        membership=table.state_of(table.me),
        incarnation=table.incarnation,
    )
