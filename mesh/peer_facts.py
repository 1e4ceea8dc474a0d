"""One peer as seen from here, for those who choose and those who look."""

from __future__ import annotations

from dataclasses import dataclass

from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.telemetry import Hot, Profile


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """One peer as seen from here, now. Ages and round trips in seconds."""

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
