"""How long a coordinator may dispatch work: by its own clock, from when it heard the grant.

A lease that is over may be renewed: terms fence, leases do not. Where the task says `hold`, a
coordinator whose submitter is gone goes on without a lease, if it can tell that it is not the one
who was cut off: of the standbys that it was granted at least one must say that it has heard of no
higher term. With none granted nobody else can have been appointed but by the submitter itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.task import SubmitterGone

Phase = Literal["held", "lapsed", "holding", "abandoned"]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds."""

    hold_after_s: float = 5.0
    """From the end of the lease until we go on without one. A submitter that is well and has lost
    us appoints another one earlier."""
    witness_s: float = 5.0
    """How long a standby's word counts."""
    abort_after_s: float = 2.0
    """From the end of the lease until a task is dropped that says `abort`."""
    silent_s: float = 60.0
    """From the last word of a submitter that is there until its task is dropped."""
    gone_s: float = 600.0
    """The same of one that is gone, as long as we cannot go on."""


@dataclass(frozen=True, slots=True)
class Lease:
    """`until` and the other times are our clock."""

    term: int
    until: float
    policy: SubmitterGone = "hold"
    patience: Patience = field(default_factory=Patience)
    heard_at: float = -inf
    """The last word of the submitter's."""
    is_submitter_here: bool = True
    standbys: tuple[PeerId, ...] = ()
    witnesses: Mapping[PeerId, float] = field(default_factory=dict)
    """When each standby said last that it knows of no higher term."""

    def is_held(self, now: float) -> bool:
        return now < self.until

    def may_dispatch(self, now: float) -> bool:
        return self.phase(now) in {"held", "holding"}

    def phase(self, now: float) -> Phase:
        """What the lease allows, at this moment."""
        if self.is_held(now):
            return "held"
        if now >= self._abandoned_at():
            return "abandoned"
        is_holding = self.policy == "hold" and not self.is_submitter_here
        if is_holding and now >= self._hold_at() and self._has_witness(now):
            return "holding"
        return "lapsed"

    def wake_at(self, now: float) -> float:
        """When the phase may change next, unless something is heard."""
        times = (
            self.until,
            self._hold_at(),
            self._abandoned_at(),
            *(at + self.patience.witness_s for at in self.witnesses.values()),
        )
        return min((at for at in times if at > now), default=inf)

    def _hold_at(self) -> float:
        return self.until + self.patience.hold_after_s

    def _has_witness(self, now: float) -> bool:
        if not self.standbys:
            return True
        return any(now < at + self.patience.witness_s for at in self.witnesses.values())

    def _abandoned_at(self) -> float:
        """When everything is dropped; never while we hold, since witnesses keep that up."""
        patience = self.patience
        if self.is_submitter_here:
            return max(self.until, self.heard_at + patience.silent_s)
        if self.policy == "abort":
            return self.until + patience.abort_after_s
        last_word = max((self.heard_at, *self.witnesses.values()))
        return inf if not self.standbys else last_word + patience.gone_s


def renewed(lease: Lease, term: int, lease_s: float, now: float) -> Lease:
    """After a renewal; one of another term changes nothing."""
    if term != lease.term:
        return lease
    return replace(lease, until=max(lease.until, now + lease_s), heard_at=now)


def granted(
    lease: Lease, term: int, lease_s: float, standbys: tuple[PeerId, ...], now: float
) -> Lease:
    """After a grant, of this term or a higher one."""
    if term == lease.term:
        return replace(renewed(lease, term, lease_s, now), standbys=standbys)
    return replace(
        lease, term=term, until=now + lease_s, heard_at=now, standbys=standbys, witnesses={}
    )


def heard(lease: Lease, now: float) -> Lease:
    """The submitter has said something."""
    return replace(lease, heard_at=now)


def submitter_seen(lease: Lease, *, is_here: bool) -> Lease:
    return replace(lease, is_submitter_here=is_here)


def witnessed(lease: Lease, standby: PeerId, now: float) -> Lease:
    """A standby has said that it knows of no higher term."""
    if standby not in lease.standbys:
        return lease
    return replace(lease, witnesses={**lease.witnesses, standby: now})
