"""Which of those that wait is next: by priority, then the client who had least, then the oldest.

Clients of one priority take turns, however much each of them has asked for. A client that was not
served for long rises, a priority for each `age_s`: those of higher priority cannot keep it out for
ever, and one that asks for much does not rise by its own queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

CLIENTS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Waiting:
    """`since` is a time of the driver's clock."""

    name: str
    client: str
    priority: int
    since: float


class Served(NamedTuple):
    """When a client was served last: the turn and the time."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class FairOrder:
    age_s: float = 60.0
    turn: int = 0
    clients: Mapping[str, Served] = field(default_factory=dict)
    """The longest unserved are forgotten first."""

    def next_up(
        self, waiting: Iterable[Waiting], busy: Mapping[str, int], now: float
    ) -> Waiting | None:
        """Who is next. `busy` is how much of each client's is at work now."""
        return min(waiting, key=lambda one: self._rank(one, busy, now), default=None)

    def _rank(
        self, one: Waiting, busy: Mapping[str, int], now: float
    ) -> tuple[int, int, int, float, str]:
        served = self.clients.get(one.client, Served(0, one.since))
        unserved_s = now - max(one.since, served.at)
        risen = one.priority + int(max(0.0, unserved_s) / self.age_s)
        return -risen, busy.get(one.client, 0), served.turn, one.since, one.name

    def served(self, client: str, now: float) -> FairOrder:
        """The order after a turn of `client`'s."""
        clients = {name: last for name, last in self.clients.items() if name != client}
        if len(clients) >= CLIENTS_MAX:
            clients.pop(next(iter(clients)))
        turn = self.turn + 1
        return FairOrder(self.age_s, turn, {**clients, client: Served(turn, now)})
