"""Who is not a member any more: revocations, which only grow.

Each revocation proves itself by its signature, and of two for one peer the higher epoch counts,
so two rosters merge into the same peers and epochs in whatever order they are heard. A peer that
is invited again gets a certificate of a higher epoch than the one that was revoked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import MEMBERS_MAX
from kowalski.protocol.messages.trust import Revocation, Roster, SignedRevocation

PEERS_MAX = MEMBERS_MAX
"""As many as one message carries; a home that revokes more founds a new mesh."""


@dataclass(frozen=True, slots=True)
class Revoked:
    revocation: Revocation
    signed: SignedRevocation


@dataclass(frozen=True, slots=True)
class RevocationList:
    """Signatures were checked by whoever calls `hear`."""

    revoked: dict[PeerId, Revoked] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """Rises with everything heard: lists of one version are the same in practice."""
        return sum(one.revocation.epoch + 1 for one in self.revoked.values())

    def is_revoked(self, peer: PeerId, epoch: int) -> bool:
        known = self.revoked.get(peer)
        return known is not None and epoch <= known.revocation.epoch

    def hear(self, revocation: Revocation, signed: SignedRevocation) -> RevocationList:
        """The list with `revocation`; itself where that is no news, or where it is full."""
        known = self.revoked.get(revocation.peer)
        if known is not None and revocation.epoch <= known.revocation.epoch:
            return self
        if known is None and len(self.revoked) >= PEERS_MAX:
            return self
        heard = Revoked(revocation, signed)
        return replace(self, revoked={**self.revoked, revocation.peer: heard})

    def message(self) -> Roster:
        return Roster(revocations=tuple(one.signed for one in self.revoked.values()))


def check(roster: RevocationList) -> None:
    """What must hold after every step."""
    assert len(roster.revoked) <= PEERS_MAX
    assert all(peer == one.revocation.peer for peer, one in roster.revoked.items())
