"""Who is served next among those who wait: strictly by priority, and fairly within one.

Start-time fair queueing (P. Goyal, H. Vin and H. Cheng, SIGCOMM 1996) between flows, here
submitters: each is charged the seconds it is expected to take, and the one that was charged least
goes next, so that a flood of one delays itself. Who has waited long rises in priority and never
starves. When it is full, the longest flow pays (P. McKenney, "Stochastic fairness queueing", 1990).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kowalski.protocol.messages.placement import Priority

RANK: dict[Priority, int] = {"batch": 0, "normal": 1, "interactive": 2}

AGEING_S = 10.0
"""After each of these spent waiting, a rank higher."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """`cost_s`: expected seconds of work. `give_up_at`: when its asker no longer wants it begun.

    `is_own`: of the owner of this device. `is_bound`: it can go nowhere else.
    """

    ticket: int
    flow: str
    priority: Priority
    cost_s: float
    arrived_at: float
    give_up_at: float
    is_own: bool = False
    is_bound: bool = False

    def rank(self, now: float) -> int:
        return RANK[self.priority] + int(max(0.0, now - self.arrived_at) / AGEING_S)


@dataclass(frozen=True, slots=True)
class FairQueue:
    """`charged`: virtual time up to which each flow has been served, for those ahead of `now`."""

    waiting: tuple[Waiting, ...] = ()
    """In order of arrival."""
    virtual_s: float = 0.0
    charged: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.waiting)

    def push(self, one: Waiting) -> FairQueue:
        return FairQueue((*self.waiting, one), self.virtual_s, self.charged)

    def remove(self, ticket: int) -> FairQueue:
        left = tuple([one for one in self.waiting if one.ticket != ticket])
        return FairQueue(left, self.virtual_s, self.charged)

    def pop(self, now: float, *, newest_first: bool = False) -> tuple[FairQueue, Waiting] | None:
        """The next to be served, charged for; None if nobody waits.

        `newest_first`: of its flow. For times in which those who have waited longest are about to
        give up (B. Maurer, "Fail at scale", ACM Queue 2015).
        """
        if not self.waiting:
            return None
        highest = max(one.rank(now) for one in self.waiting)
        eligible = [one for one in self.waiting if one.rank(now) == highest]
        flow = min(eligible, key=lambda one: (self._start(one.flow), one.arrived_at)).flow
        of_flow = [one for one in eligible if one.flow == flow]
        chosen = of_flow[-1] if newest_first else of_flow[0]
        return self.remove(chosen.ticket).charge(flow, chosen.cost_s), chosen

    def charge(self, flow: str, cost_s: float) -> FairQueue:
        """Service of so many seconds has begun for `flow`, whether it had to wait or not."""
        start = self._start(flow)
        ahead = {name: until for name, until in self.charged.items() if until > start}
        if cost_s > 0:
            ahead[flow] = start + cost_s
        return FairQueue(self.waiting, max(self.virtual_s, start), ahead)

    def correct(self, flow: str, cost_s: float) -> FairQueue:
        """It took so much more, or less where negative, than was charged."""
        until = self._start(flow) + cost_s
        charged = {name: at for name, at in self.charged.items() if name != flow}
        if until > self.virtual_s:
            charged[flow] = until
        return FairQueue(self.waiting, self.virtual_s, charged)

    def ahead_of(self, flow: str, priority: Priority, now: float) -> tuple[Waiting, ...]:
        """Of those who wait, who would be served before one that came now."""
        rank, own = RANK[priority], Counter(one.flow for one in self.waiting)[flow]
        seen: Counter[str] = Counter()
        ahead: list[Waiting] = []
        for one in self.waiting:
            seen[one.flow] += 1
            is_before = one.flow == flow or seen[one.flow] <= own + 1
            if one.rank(now) > rank or (one.rank(now) == rank and is_before):
                ahead.append(one)
        return tuple(ahead)

    def victim(self, flow: str, priority: Priority, now: float) -> Waiting | None:
        """Who goes when one more of `flow` comes and all places are taken; None: the newcomer.

        The newest of the longest flow among those of the lowest rank, unless that is as good.
        """
        if not self.waiting:
            return None
        lowest = min(one.rank(now) for one in self.waiting)
        poorest = [one for one in self.waiting if one.rank(now) == lowest]
        if lowest > RANK[priority]:
            return None
        lengths = Counter(one.flow for one in poorest)
        longest = max(poorest, key=_by_length(lengths))
        if lowest == RANK[priority] and lengths[longest.flow] <= lengths[flow] + 1:
            return None
        return longest

    def _start(self, flow: str) -> float:
        return max(self.virtual_s, self.charged.get(flow, 0.0))


def _by_length(lengths: Counter[str]) -> Callable[[Waiting], tuple[int, float, int]]:
    return lambda one: (lengths[one.flow], one.arrived_at, one.ticket)
