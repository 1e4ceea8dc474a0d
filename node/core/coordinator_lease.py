"""How long a coordinator may dispatch work: by its own clock, from when it heard the grant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """`until` is our clock. A lease that is over may be renewed: terms fence, leases do not."""

    term: int
    until: float

    def is_held(self, now: float) -> bool:
        return now < self.until

    def renewed(self, term: int, lease_s: float, now: float) -> Lease:
        """The lease after a renewal; one of another term changes nothing."""
        if term != self.term:
            return self
        return Lease(term, max(self.until, now + lease_s))
