"""A node on a campus: a worker with the real gate, and whoever asks there with the real choice."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from kowalski.mesh.core.glance import Row, glance
from kowalski.mesh.core.placement import Candidate, Ranking, rank
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.placement import Offer
from kowalski.protocol.messages.telemetry import Occupancy
from simulations.detectors import Detectors
from simulations.placement_askers import Node, Sent
from simulations.placement_cluster import (
    NEED,
    GatedWorker,
    Job,
    OnEnd,
    Refused,
    Surroundings,
    Timer,
)

GONE = Refused("connection refused", None)


class CampusWorker(GatedWorker):
    """`on_moved` hears when work begins or ends here. `says`: what it claims in place of the truth.

    What it runs when it dies is broken off; the askers learn it as `CampusWorld` lets them.
    """

    def __init__(self, clock: Timer, name: str, *, slots: int, speed: float, rtt_s: float) -> None:
        super().__init__(clock, name, slots=slots, speed=speed, rtt_s=rtt_s)
        self.is_up = True
        self.frozen_until = -inf
        self.forgets_work = False
        self.counted_until = inf
        self.busy_s = 0.0
        """Of all its places together, up to `counted_until`."""
        self.begun = 0
        self.says: Occupancy | None = None
        self.on_moved: Callable[[], None] = lambda: None

    def ask_offer(self, asker: str, remaining_s: float, reserve_s: float) -> Offer | Refused:
        return super().ask_offer(asker, remaining_s, reserve_s) if self.is_up else GONE

    def ask_for(
        self, asker: str, job: Job, reservation: int | None, on_end: OnEnd
    ) -> Callable[[], None]:
        if not self.is_up:
            on_end("broken")
            return lambda: None
        return super().ask_for(asker, job, reservation, on_end)

    def _start(self, number: int) -> None:
        job = self._asked[number][0]
        super()._start(number)
        self.begun += 1
        left_s = max(0.0, self.counted_until - self.clock.now)
        self.busy_s += min(self.service_s(job), left_s)
        if job.begun_at is None:
            job.begun_at = self.clock.now
        self.on_moved()

    def _end(self, number: int, began_at: float) -> None:
        if not self.forgets_work:
            super()._end(number, began_at)

    def _leave(self, number: int) -> None:
        super()._leave(number)
        self.on_moved()

    def die(self) -> list[OnEnd]:
        """Whoever waits for an answer from here."""
        waiting = [on_end for _, on_end in self._asked.values()]
        self.is_up = False
        self.forget()
        return waiting


class Campus(Surroundings, Protocol):
    """What a node on it knows without being told, and can do."""

    @property
    def detectors(self) -> Detectors: ...
    @property
    def row(self) -> Row: ...
    def number_of(self, peer: PeerId) -> int: ...
    def heard(self, hearer: int, peer: PeerId) -> None: ...


class CampusNode(Node):
    """Chooses as a node of a large mesh does: among those that a glance shows it."""

    def __init__(self, campus: Campus, number: int, sent: Sent, *, glances: bool = True) -> None:
        super().__init__(campus, campus.detectors.peers[number], sent)
        self._campus = campus
        self._number = number
        self._looks = 0
        self._glances = glances

    def rank(self, excluding: frozenset[PeerId]) -> Ranking:
        """Of those that its detector holds for alive and that it reaches."""
        self._looks += 1
        now, campus = self.clock.now, self._campus
        me = campus.detectors.peers[self._number]
        if self._glances:
            draw = f"{self.name} {self._looks}"
            seen = glance(campus.row, draw, takes_work=self._is_routable, always=(me,))
        else:
            seen = {peer: 1.0 for peer in campus.row.peers if self._is_routable(peer)}
        found: list[Candidate] = []
        for peer, chance in seen.items():
            campus.heard(self._number, peer)
            found.append(self.known(campus.workers[peer], now, chance))
        return rank(NEED, found, excluding=excluding)

    def _is_routable(self, peer: PeerId) -> bool:
        node = self._campus.detectors.nodes[self._number]
        return peer == node.state.me or (
            node.state.table.state_of(peer) == "alive" and node.misses.get(peer, 0) < 2
        )

    def delay_s(self, worker: GatedWorker) -> float | None:
        """Silence where a link is cut, or whoever is there cannot speak."""
        assert isinstance(worker, CampusWorker)
        there = self._campus.number_of(worker.peer)
        if there == self._number:
            return 0.0
        detectors = self._campus.detectors
        is_cut = detectors.is_blocked(self._number, there)
        is_mute = not worker.is_up and not detectors.nodes[there].is_refusing
        if is_cut or is_mute or worker.frozen_until > self.clock.now:
            return None
        return worker.rtt_s / 2

    def sending_s(self, worker: GatedWorker) -> float:
        assert isinstance(worker, CampusWorker)
        return max(worker.rtt_s / 2, worker.frozen_until - self.clock.now)
