"""Which peer gets the next questions of a batch, and who gets none of the last ones.

Equal jobs on machines of unequal speed are over soonest if each goes to where it ends first (the
earliest finish time, for independent tasks: O. Ibarra and C. Kim, JACM 1977). A free slot of a slow
peer is therefore no reason to give it a question, once the quicker ones would have answered all
that is left before it has answered that one. And a quick one has its next group before the last one
ends: it would else be idle while that is put together and sent.

Nothing waits for an estimate that turns out wrong: who is passed over for as long as it would have
taken itself is asked after all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from math import inf

from kowalski.protocol.ids import PeerId

QUICKEST_S = 1e-4
"""No question is taken to be quicker, whatever a clock says."""

AHEAD_TIMES = 2.0
"""Whoever takes at most so many times as long as the quickest has its next group ahead."""


@dataclass(frozen=True, slots=True)
class Server:
    """A peer, each slot of which answers a question in `each_s`; None where that is not known.

    `under_way`: questions of ours that it has and has not answered; `groups`: in how many requests,
    those that are on their way there included.
    """

    peer: PeerId
    each_s: float | None
    slots: int
    under_way: int = 0
    groups: int = 0

    @property
    def pace_s(self) -> float:
        return inf if self.each_s is None else max(self.each_s, QUICKEST_S)


@dataclass(frozen=True, slots=True)
class ToWhomIsFree:
    """Whoever of those with a free slot offers to be done first."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """To this one, to wait there."""

    peer: PeerId


Next = ToWhomIsFree | Ahead | None
"""None: all have as much as they should."""


def next_place(
    servers: Collection[Server],
    offered: int,
    passed_over: Collection[PeerId],
    full: Collection[PeerId] = (),
) -> Next:
    """Where the next group should go, while so many seek a free slot already (`offered`).

    `full` are those whose line others have filled: nothing more can wait there.
    """
    able = [one for one in servers if one.peer not in passed_over]
    free = sum(max(0, one.slots - one.groups) for one in able)
    under_way = offered + sum(one.groups for one in servers)
    if free > offered or not under_way:
        return ToWhomIsFree()
    quick = [one for one in _quick(able) if one.peer not in full]
    roomy = [one for one in quick if one.groups < 2 * one.slots]
    if offered or not roomy:
        return None
    return Ahead(min(roomy, key=lambda one: (one.groups / one.slots, one.pace_s, one.peer)).peer)


def not_to_ask(servers: Collection[Server], passed_over: Collection[PeerId]) -> frozenset[PeerId]:
    """Who should not be asked for an offer: those, and who has enough of ours.

    Enough is a group for each slot. If all have that, who is quick may have as many again; and if
    all have that, too, any but those passed over may be asked.
    """
    able = [one for one in servers if one.peer not in passed_over]
    asked = (
        [one for one in able if one.groups < one.slots]
        or [one for one in _quick(able) if one.groups < 2 * one.slots]
        or able
    )
    return frozenset(one.peer for one in servers) - {one.peer for one in asked}


def _quick(servers: Collection[Server]) -> list[Server]:
    quickest_s = min((one.pace_s for one in servers), default=inf)
    known = (one for one in servers if one.pace_s < inf)
    return [one for one in known if one.pace_s <= AHEAD_TIMES * quickest_s]


def rest_s(servers: Iterable[Server], unasked: int) -> dict[PeerId, float]:
    """Until those quicker than it would have answered, without it, all that is left.

    Infinite for the quickest. Not counted is what they do for others, see `Tail`.
    """
    found: dict[PeerId, float] = {}
    rate, left, until_one_s = 0.0, float(unasked), 0.0
    for pace_s, alike in groupby(sorted(servers, key=_pace_s), _pace_s):
        same = tuple(alike)
        within_s = left / rate + until_one_s if rate else inf
        found |= {one.peer: within_s for one in same}
        until_one_s = until_one_s or pace_s
        rate += sum(max(1, one.slots) for one in same) / pace_s
        left += sum(one.under_way for one in same)
    return found


def _pace_s(one: Server) -> float:
    return one.pace_s


@dataclass(slots=True)
class Tail:
    """Who is passed over since when, while questions of one kind are asked."""

    _since: dict[PeerId, float] = field(default_factory=dict)
    _until: dict[PeerId, float] = field(default_factory=dict)

    def passed_over(
        self, servers: Collection[Server], unasked: int, now: float
    ) -> frozenset[PeerId]:
        """Those who are to get none of the `unasked` now: never one whose pace is not known."""
        rest = rest_s(servers, unasked)
        late = {one.peer: one.pace_s for one in servers if rest[one.peer] < one.pace_s < inf}
        self._since = {peer: self._since.get(peer, now) for peer in late}
        until = {peer: self._since[peer] + pace_s for peer, pace_s in late.items()}
        self._until = {peer: at for peer, at in until.items() if at > now}
        return frozenset(self._until)

    @property
    def wake_at(self) -> float:
        """When the next of them is to be asked after all."""
        return min(self._until.values(), default=inf)
