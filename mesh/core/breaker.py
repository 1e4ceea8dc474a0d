"""Circuit breaker of one peer for one kind of work: stop sending to what keeps failing.

Closed, it counts outcomes; open, it lets nothing through for a while that doubles each time; half
open, exactly one request at a time finds out. The states are those of M. Nygard, "Release It!",
2007; window and thresholds are near resilience4j's. Local, never gossiped: it says what *we* saw.

What counts as a failure is the caller's to decide: a program that exits 1, a `busy` and a deadline
that was too short say nothing about the peer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from hashlib import blake2b
from math import inf


@dataclass(frozen=True, slots=True)
class Params:
    """`open_s` doubles with each opening in a row, up to `open_s_max`."""

    outcomes: int = 20
    """The window: of so many, counted from the last."""
    outcomes_min: int = 5
    failed_share: float = 0.5
    failures_in_a_row: int = 3
    open_s: float = 2.0
    open_s_max: float = 60.0
    successes_to_close: int = 2


PARAMS = Params()


class Standing(Enum):
    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


@dataclass(frozen=True, slots=True)
class Passage:
    """What a request was let through as; its outcome is told with it.

    `era` counts the changes of standing: an outcome of an earlier era is no news.
    """

    era: int
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Breaker:
    """`name` seeds the jitter, so that not all breakers of a mesh try again at one instant."""

    name: str
    params: Params = PARAMS
    standing: Standing = Standing.CLOSED
    era: int = 0
    has_failed: tuple[bool, ...] = ()
    """Outcomes while closed, oldest first."""
    openings: int = 0
    """In a row, without having closed."""
    open_until: float = -inf
    is_probing: bool = False
    successes: int = 0
    """Of probes, in a row."""

    def admits(self, now: float) -> bool:
        """Whether a request may go through."""
        match self.standing:
            case Standing.CLOSED:
                return True
            case Standing.OPEN:
                return now >= self.open_until
            case Standing.HALF_OPEN:
                return not self.is_probing

    def send(self, now: float) -> tuple[Breaker, Passage]:
        """Let a request through.

        Also where it does not admit one, for those who ignore breakers since too many are open:
        such a request is no probe, but its success is as good as one.
        """
        if self.standing is Standing.CLOSED:
            return self, Passage(self.era)
        if not self.admits(now):
            return self, Passage(self.era)
        half_open = self._stand(Standing.HALF_OPEN) if self.standing is Standing.OPEN else self
        return replace(half_open, is_probing=True), Passage(half_open.era, is_probe=True)

    def succeed(self, passage: Passage) -> Breaker:
        if passage.era != self.era:
            return self
        match self.standing:
            case Standing.CLOSED:
                counted = self._counted(failed=False)
                # Of a peer that is well the window says the same as before.
                return self if counted == self.has_failed else replace(self, has_failed=counted)
            case Standing.OPEN:  # a request that ignored it
                return replace(self._stand(Standing.HALF_OPEN), successes=1)
            case Standing.HALF_OPEN:
                successes = self.successes + 1
                if successes >= self.params.successes_to_close:
                    return replace(self._stand(Standing.CLOSED), openings=0)
                return replace(self, successes=successes, is_probing=self._probes_on(passage))

    def fail(self, passage: Passage, now: float) -> Breaker:
        if passage.era != self.era or self.standing is Standing.OPEN:
            return self
        if self.standing is Standing.HALF_OPEN:
            return self._open(now)
        has_failed = self._counted(failed=True)
        if self._is_bad(has_failed):
            return self._open(now)
        return replace(self, has_failed=has_failed)

    def abandon(self, passage: Passage) -> Breaker:
        """The request was given up before it could tell; it proves nothing."""
        if passage.era != self.era or not passage.is_probe:
            return self
        return replace(self, is_probing=False)

    def _probes_on(self, passage: Passage) -> bool:
        return self.is_probing and not passage.is_probe

    def _counted(self, *, failed: bool) -> tuple[bool, ...]:
        return (*self.has_failed, failed)[-self.params.outcomes :]

    def _is_bad(self, seen: tuple[bool, ...]) -> bool:
        params, in_a_row = self.params, self.params.failures_in_a_row
        if len(seen) >= in_a_row and all(seen[-in_a_row:]):
            return True
        return len(seen) >= params.outcomes_min and sum(seen) >= params.failed_share * len(seen)

    def _open(self, now: float) -> Breaker:
        params = self.params
        full_s = min(params.open_s_max, params.open_s * 2.0 ** min(self.openings, 30))
        opened = self._stand(Standing.OPEN)
        return replace(
            opened, openings=self.openings + 1, open_until=now + full_s * self._jitter(opened.era)
        )

    def _jitter(self, era: int) -> float:
        """From 3/4 to 1."""
        digest = blake2b(f"{self.name} {era}".encode(), digest_size=4).digest()
        return 0.75 + 0.25 * int.from_bytes(digest, "big") / 2**32

    def _stand(self, standing: Standing) -> Breaker:
        """In a new era, which starts with a clean record."""
        return replace(
            self,
            standing=standing,
            era=self.era + 1,
            has_failed=(),
            is_probing=False,
            successes=0,
        )


def check(breaker: Breaker) -> None:
    """What must hold after every step."""
    assert breaker.standing is Standing.HALF_OPEN or not breaker.is_probing
    assert breaker.standing is Standing.HALF_OPEN or breaker.successes == 0
    assert breaker.successes < breaker.params.successes_to_close
    assert (breaker.openings == 0) == (breaker.standing is Standing.CLOSED)
    assert len(breaker.has_failed) <= breaker.params.outcomes
    assert breaker.standing is Standing.CLOSED or not breaker.has_failed
