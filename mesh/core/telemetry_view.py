"""What the peers last said of themselves. For choosing only: nothing is granted on it.

Every signed message carries the boot of its origin and a sequence; what is not newer than what
was heard is a replay or a straggler, and is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kowalski.mesh.core.evolving import evolve
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Hot, HotDelta, Profile

RETIRED_BOOTS_MAX = 64
"""Restarts of one peer after which what it said before the first of them could be replayed."""


@dataclass(frozen=True)  # no slots: see `evolving`
class PeerTelemetry:
    """`heard_at` is when the hot values were last renewed, on the driver's clock."""

    profile: Profile
    hot: Hot
    sequence: int
    heard_at: float
    retired_boots: tuple[str, ...] = ()


@dataclass(frozen=True)
class TelemetryView:
    peers: dict[PeerId, PeerTelemetry] = field(default_factory=dict)
    dropped: int = 0
    """Replays and stragglers so far."""
    profile_changes: int = field(default=0, compare=False)
    """How often a peer came, went, or said other than before what it can do."""

    def hear_profile(self, origin: PeerId, profile: Profile, now: float) -> TelemetryView:
        known = self.peers.get(origin)
        retired: tuple[str, ...] = ()
        if known is not None:
            if not _is_newer(known, profile.boot, profile.sequence):
                return evolve(self, dropped=self.dropped + 1)
            retired = known.retired_boots
            if profile.boot != known.profile.boot:
                retired = (known.profile.boot, *retired)[:RETIRED_BOOTS_MAX]
        heard = PeerTelemetry(profile, profile.hot, profile.sequence, now, retired)
        is_change = known is None or abilities(known.profile) != abilities(profile)
        return evolve(
            self,
            peers={**self.peers, origin: heard},
            profile_changes=self.profile_changes + is_change,
        )

    def hear_hot(self, origin: PeerId, delta: HotDelta, now: float) -> TelemetryView:
        """Deltas of a boot whose profile was never heard say nothing yet, and are dropped."""
        known = self.peers.get(origin)
        if (
            known is None
            or known.profile.boot != delta.boot
            or not _is_newer(known, delta.boot, delta.sequence)
        ):
            return evolve(self, dropped=self.dropped + 1)
        heard = evolve(known, hot=delta.hot, sequence=delta.sequence, heard_at=now)
        return evolve(self, peers={**self.peers, origin: heard})

    def hear_reply(self, origin: PeerId, hot: Hot | None, now: float) -> TelemetryView:
        """Values piggybacked on a reply: fresh, and proven by the stream they came on."""
        known = self.peers.get(origin)
        if known is None or hot is None:
            return self
        return evolve(self, peers={**self.peers, origin: evolve(known, hot=hot, heard_at=now)})

    def forget(self, peer: PeerId) -> TelemetryView:
        left = {k: v for k, v in self.peers.items() if k != peer}
        return evolve(self, peers=left, profile_changes=self.profile_changes + 1)


def abilities(profile: Profile) -> tuple[object, ...]:
    """Of a profile, what decides which work its peer could do, and how fast."""
    return profile.roles, profile.languages, profile.models, profile.speed


def _is_newer(known: PeerTelemetry, boot: str, sequence: int) -> bool:
    if boot == known.profile.boot:
        return sequence > known.sequence
    return boot not in known.retired_boots
