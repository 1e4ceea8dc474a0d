"""One kind of work at a worker: who runs, whose place is reserved, who waits in which order."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TypeVar

from kowalski.node.core.fair_queue import FairQueue
from kowalski.protocol.messages.placement import Priority

K = TypeVar("K")
T = TypeVar("T")

RETRY_AFTER_S_MIN = 0.05
RETRY_AFTER_S_MAX = 10.0

COST_S_LEAST_SHARE = 0.5
"""Of its expected time, what is assumed to be left of work that has run longer than expected."""


@dataclass(frozen=True, slots=True)
class Running:
    flow: str
    cost_s: float
    started_at: float
    is_lent: bool = False

    def left_s(self, now: float) -> float:
        return max(self.cost_s - (now - self.started_at), COST_S_LEAST_SHARE * self.cost_s)


@dataclass(frozen=True, slots=True)
class Reserved:
    asker: str
    flow: str
    cost_s: float
    until: float


@dataclass(frozen=True, slots=True)
class Lane:
    """`reserved`: by the number of the promise that was made; they run when they come."""

    slots: int
    running: dict[int, Running] = field(default_factory=dict)
    reserved: dict[int, Reserved] = field(default_factory=dict)
    queue: FairQueue = field(default_factory=FairQueue)

    @property
    def busy(self) -> int:
        """Slots that are taken; may exceed `slots` for a while, when lent ones come back."""
        return len([one for one in self.running.values() if not one.is_lent])

    @property
    def queued(self) -> int:
        return len(self.queue) + len(self.reserved)

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.reserved and not len(self.queue)

    def wait_s(self, flow: str, priority: Priority, now: float) -> float:
        """How long one that came now would wait, list scheduling those before it onto the slots."""
        slots = max(1, self.slots)
        ends = sorted(one.left_s(now) for one in self.running.values() if not one.is_lent)
        # Where more run than there are slots, the first to end make room for nobody.
        ends = ends[max(0, len(ends) - slots) :]
        ends += [0.0] * (slots - len(ends))
        heapq.heapify(ends)
        before = [one.cost_s for one in self.queue.ahead_of(flow, priority, now)]
        before += [one.cost_s for one in self.reserved.values()]
        for cost_s in before:
            heapq.heapreplace(ends, ends[0] + cost_s)
        return ends[0]

    def retry_after_s(self, now: float) -> float:
        """Until somebody is expected to be done, or when to look again."""
        soonest_s = min((one.left_s(now) for one in self.running.values()), default=0.0)
        return min(RETRY_AFTER_S_MAX, max(RETRY_AFTER_S_MIN, soonest_s))

    def __str__(self) -> str:
        return f"{self.busy} running, {self.queued} waiting, {self.slots} slots"


def without(keyed: dict[K, T], key: K) -> dict[K, T]:
    """All but one."""
    return {other: one for other, one in keyed.items() if other != key}
