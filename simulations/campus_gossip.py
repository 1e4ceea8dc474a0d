"""What everybody on a campus says of itself, and who has heard it when: said once, heard lazily.

Each utterance is kept once, for all. Whether one node has heard it by now follows from a hash of
the seed, the speaker, the utterance and the hearer: when it arrives, or that it was lost. So ten
thousand nodes hear of ten thousand others, and nothing is computed of what nobody looks at. When
a node speaks is decided by `mesh.core.announcements`, as in a node.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from kowalski.mesh.core import announcements
from kowalski.protocol.messages.telemetry import Hot, Occupancy
from simulations.placement_cluster import Timer

KEPT = 8
"""Utterances of one node that are still on their way to somebody, at most."""

DELAY_S_MIN, DELAY_S_MAX = 0.02, 0.4
"""A hop of gossipsub is a few milliseconds; among thousands there are four or five, on busy
nodes."""

EPSILON_S = 1e-6


@dataclass(frozen=True, slots=True)
class Utterance:
    at: float
    number: int
    occupancy: Occupancy


class CampusGossip:
    """`occupancy` gives what a node has to say now, `mesh_size` how large it holds the mesh."""

    def __init__(
        self,
        timer: Timer,
        *,
        seed: int,
        loss: float,
        occupancy: Callable[[int], Occupancy],
        mesh_size: Callable[[int], int],
        speaks: Callable[[int], bool],
        params: Callable[[int], announcements.Params],
    ) -> None:
        self._timer = timer
        self._seed = seed
        self.loss = loss
        self._occupancy = occupancy
        self._mesh_size = mesh_size
        self._speaks = speaks
        self._params = params
        self._said: dict[int, deque[Utterance]] = {}
        self._hot: dict[int, Hot] = {}
        self._due: dict[int, float] = {}
        self.said = 0
        self.said_in: Counter[int] = Counter()
        """Utterances by second: so many each node hears, but its own and those lost."""

    def look(self, number: int) -> None:
        """Something may have moved at a node: it speaks now, or later, as the core says."""
        now = self._timer.now
        if not self._speaks(number):
            return
        hot = Hot(repl=self._occupancy(number))
        last = self._said.get(number)
        params = self._params(self._mesh_size(number))
        due = announcements.hot_due_at(
            params, self._hot.get(number), hot, last[-1].at if last else -inf
        )
        if due <= now + EPSILON_S:
            self._say(number, hot)
            due = announcements.hot_due_at(params, hot, hot, now)
        if due < self._due.get(number, inf):
            self._due[number] = due
            self._timer.after(due - now, lambda: self._wake(number, due))

    def _wake(self, number: int, due: float) -> None:
        if self._due.get(number) == due:
            del self._due[number]
            self.look(number)

    def _say(self, number: int, hot: Hot) -> None:
        said = self._said.setdefault(number, deque(maxlen=KEPT))
        self.said += 1
        self.said_in[int(self._timer.now)] += 1
        said.append(Utterance(self._timer.now, self.said, hot.repl))
        self._hot[number] = hot

    def heard(self, speaker: int, hearer: int) -> Utterance | None:
        """The last that has reached the hearer by now."""
        now = self._timer.now
        for one in reversed(self._said.get(speaker, ())):
            chance = _uniform(self._seed, one.number, hearer)
            if chance < self.loss:
                continue
            share = (chance - self.loss) / (1.0 - self.loss)
            if one.at + DELAY_S_MIN + share * (DELAY_S_MAX - DELAY_S_MIN) <= now:
                return one
        return None


def _uniform(seed: int, utterance: int, hearer: int) -> float:
    """In [0, 1), from three numbers (S. Vigna's SplitMix64): the same in every process."""
    word = (seed * 0x9E3779B97F4A7C15 + utterance * 0xBF58476D1CE4E5B9 + hearer) % 2**64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
    return (word ^ (word >> 31)) / 2**64
