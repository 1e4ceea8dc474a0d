"""Nobody can do a piece of work just now, but somebody may be able to in a moment.

A peer that misses two signs of life is sent nothing until it answers (`mesh.core.connectivity`).
Mostly it is back within a second: on a loaded machine, or a bad wireless link. Where it is the only
one with a model or a language, that is worth a moment's wait, and no failure of what is asked.

A node that has just begun, or is just back from a sleep or a long stop, has not heard yet what the
others are: a task that it takes up again from its disk must not fail for that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from math import inf

from kowalski.mesh.core.placement import Candidate, Need, rank
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.task import Failover

MISSED_S = 5.0
"""How long such a peer is waited for: suspected and given up takes about as long."""

NEW_S = 5.0
"""How long a node is here only just: dialled, proven and told takes a second or two."""

LOOK_S = 0.2
"""Between two looks."""

LOOK_AGAIN_S = 1.0
"""Between two looks where it may take longer, which the user is told."""

NOBODY = frozenset({"no_peer", "peers_failed"})
"""Nobody has the model, or all who had it are gone."""

COMING_S = 3.0
"""How long a session that cannot open waits for a peer that only just comes."""

NOT_YET = frozenset({"no_language", "no_model"})
"""Why a session cannot open, which somebody who comes may change."""

LOST_S = 30.0
"""How long whoever went away in the middle of an answer is waited for: a device that is started
anew is back by then."""

LOSSES_MAX = 3
"""Of one question: it may be what they die of."""


def is_worth_a_wait(
    need: Need, candidates: Iterable[Candidate], waited_s: float, here_s: float
) -> bool:
    """Whether one of `candidates` could do it, but that it cannot be reached just now.

    Or, where this node is here for `here_s` seconds only, somebody of whom it has not heard yet.
    """
    if here_s < NEW_S and need.devices != "local":
        return waited_s < MISSED_S
    return waited_s < MISSED_S and is_somebody_missed(need, candidates)


def is_somebody_missed(
    need: Need, candidates: Iterable[Candidate], failed: Collection[PeerId] = ()
) -> bool:
    """Whether one of `candidates` that is not among the `failed` could do it if it were reached."""
    silent = [one for one in candidates if not one.is_routable and one.peer not in failed]
    back = (replace(one, is_routable=True) for one in silent)
    return bool(rank(need, back).choices)


def may_come_back(losses: int, gone_s: float) -> bool:
    """Whether to wait for those that are gone, of whom one was there so long ago.

    `losses`: how often all that could answer this one question were lost while it was under way.
    """
    return losses < LOSSES_MAX and gone_s < LOST_S


@dataclass(frozen=True, slots=True)
class No:
    """What came of a question or a cell that nobody did. `are_lost`: all who tried went away."""

    code: str
    are_lost: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Before it is asked again. `is_told`: it may be long, and the user should know."""

    seconds: float
    is_told: bool


def wait_to_open(code: str, failover: Failover, waited_s: float, *, is_missed: bool) -> Wait | None:
    """How long to wait before a session that cannot open is tried again; None: it cannot.

    `is_missed`: somebody who was here a moment ago could do it. Who is waited for may be heard of
    all the time, by way of others, and never be reached: so there is an end to it. A task that
    queues waits where its submitter sees it.
    """
    if code not in NOT_YET:
        return None
    if waited_s < COMING_S:
        return Wait(LOOK_S, is_told=False)
    if failover == "redistribute" and is_missed and waited_s < LOST_S:
        return Wait(LOOK_AGAIN_S, is_told=True)
    return None


@dataclass(slots=True)
class Patience:
    """Of one question or cell, which was `began` to be asked at that time."""

    began: float
    losses: int = 0

    def after(self, no: No, *, failover: Failover, is_missed: bool, gone_s: float) -> Wait | None:
        """How long to wait before it is asked again; None: the `no` stands.

        `is_missed`: as `is_worth_a_wait` says; `gone_s`: as long ago somebody was there.
        """
        self.losses += no.are_lost
        if no.code == "no_peer" and is_missed:
            return Wait(LOOK_S, is_told=False)
        if failover == "queue" and no.code in NOBODY:
            return Wait(LOOK_AGAIN_S, is_told=True)
        is_nobody_there = no.code == "no_peer" or no.are_lost
        if failover == "fail" or not is_nobody_there or not may_come_back(self.losses, gone_s):
            return None
        return Wait(LOOK_AGAIN_S, is_told=True)


@dataclass(slots=True)
class Presence:
    """When somebody who has a model, or a language, was last there to be asked, in one session."""

    _there_at: dict[str, float] = field(default_factory=dict)

    def saw(self, what: str, now: float) -> None:
        self._there_at[what] = now

    def gone_s(self, what: str, now: float) -> float:
        return now - self._there_at.get(what, -inf)

    def wait_after(
        self,
        no: No,
        what: str,
        patience: Patience,
        *,
        need: Need,
        candidates: Iterable[Candidate],
        failover: Failover,
        now: float,
        here_since: float,
        gone_s: float = inf,
    ) -> Wait | None:
        """As `Patience.after`, of work that needs `what`, as `need` says in full.

        `gone_s`: as `lately_here` says, of those whom nobody here has asked yet. They may be heard
        of all the time, by way of others: what counts is how long they were waited for, at least.
        """
        if no.are_lost:
            self.saw(what, now)
        waited_s, here_s = now - patience.began, now - here_since
        return patience.after(
            no,
            failover=failover,
            is_missed=is_worth_a_wait(need, candidates, waited_s, here_s),
            gone_s=min(max(gone_s, waited_s), self.gone_s(what, now)),
        )
