"""A cluster on one heap of (time, event): workers with the real gate, askers with the real choice.

The cores are those of a node: `mesh.core` decides where work goes, `node.core.admission` what is
taken on. The shells are a few lines here in place of `node.services`, so that ten thousand requests
take seconds. Messages take time, telemetry comes once a second and late, work takes as long as the
worker is fast, and a worker may be slower than it says, or broken.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import count
from math import inf
from typing import Literal, Protocol

from kowalski.mesh.core.placement import Candidate, Kind, Need
from kowalski.node.core import admission
from kowalski.node.core.admission import Admission
from kowalski.node.core.job import Job as WorkerJob
from kowalski.node.core.job import Speeds, Usual
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.placement import Offer
from kowalski.protocol.messages.telemetry import Occupancy

WORK: Kind = "code"
NEED = Need(WORK, language="python")
ROLES, LANGUAGES = frozenset({"repl"}), frozenset({"python"})
NO_MODELS = frozenset[str]()
TELEMETRY_S = 1.0
PROGRAM = WorkerJob(WORK, language="python")
"""What every job is to its worker."""
BROKEN_S = 0.01


class Timer(Protocol):
    @property
    def now(self) -> float: ...

    def after(self, seconds: float, act: Callable[[], None]) -> None: ...


class Clock:
    """What happens when, in order of time and then of being planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._plans, (self.now + seconds, next(self._numbers), act))

    def run(self, until: float) -> None:
        while self._plans and self._plans[0][0] <= until:
            self.now, _, act = heapq.heappop(self._plans)
            act()
        self.now = until


@dataclass(slots=True)
class Job:
    """`work_s` at speed 1. `latency_s` None: it failed, or was given up."""

    number: int
    work_s: float
    asked_at: float
    deadline: float
    latency_s: float | None = None
    peer: PeerId | None = None
    is_over: bool = False
    begun_at: float | None = None
    is_lost: bool = False
    """With who asked for it."""


@dataclass(frozen=True, slots=True)
class Refused:
    why: str
    retry_after_s: float | None


Ending = Literal["done", "broken"] | Refused
OnEnd = Callable[[Ending], None]


@dataclass(slots=True)
class Load:
    """What a worker said of itself, and when it was heard."""

    occupancy: Occupancy
    heard_at: float = -inf


@cache
def _silent(slots: int) -> Load:
    """Of a worker that has said nothing yet."""
    return Load(Occupancy(slots=slots))


class Worker:
    """Takes everything on, in the order in which it comes.

    `speed` is what it says, `slowness` by how much it is slower than that. `is_broken`: every
    request ends in an error, soon.
    """

    def __init__(self, clock: Timer, name: str, *, slots: int, speed: float, rtt_s: float) -> None:
        self.peer = PeerId(name)
        self.slots = slots
        self.speed = speed
        self.rtt_s = rtt_s
        self.slowness = 1.0
        self.is_broken = False
        self.clock = clock
        self.late = 0
        """Pieces of work begun after their deadline."""
        self._numbers = count(1)
        self._asked: dict[int, tuple[Job, OnEnd]] = {}
        self._ends: dict[int, float] = {}

    @property
    def occupancy(self) -> Occupancy:
        running = len(self._ends)
        return Occupancy(running=running, queued=len(self._asked) - running, slots=self.slots)

    @property
    def backlog_s(self) -> float:
        """True seconds of work before a newcomer would begin, for who knows everything."""
        now = self.clock.now
        ends = sorted(max(0.0, end - now) for end in self._ends.values())
        ends += [0.0] * (self.slots - len(ends))
        for number, (job, _) in self._asked.items():
            if number not in self._ends:
                heapq.heapreplace(ends, ends[0] + self.service_s(job))
        return ends[0]

    def service_s(self, job: Job) -> float:
        return job.work_s * self.slowness / self.speed

    def ask(self, job: Job, on_end: OnEnd) -> None:
        number = next(self._numbers)
        self._asked[number] = (job, on_end)
        if len(self._ends) < self.slots:
            self._start(number)

    def _start(self, number: int) -> None:
        job, now = self._asked[number][0], self.clock.now
        self.late += now > job.deadline
        self._ends[number] = now + self.service_s(job)
        self.clock.after(self.service_s(job), lambda: self._end(number, now))

    def _end(self, number: int, _began_at: float) -> None:
        _, on_end = self._asked.pop(number)
        del self._ends[number]
        waiting = next((one for one in self._asked if one not in self._ends), None)
        if waiting is not None:
            self._start(waiting)
        on_end("broken" if self.is_broken else "done")


class GatedWorker(Worker):
    """Behind the gate of a node: offers, reservations, a short and fair line."""

    def __init__(self, clock: Timer, name: str, *, slots: int, speed: float, rtt_s: float) -> None:
        super().__init__(clock, name, slots=slots, speed=speed, rtt_s=rtt_s)
        self._state = Admission()
        self._usual = Usual()
        self._answers: dict[int, Offer | Refused] = {}
        self._wakes_at = inf

    @property
    def _cost_s(self) -> float:
        return self._usual.cost(PROGRAM, Speeds()).seconds

    @property
    def occupancy(self) -> Occupancy:
        lane = self._state.lanes.get(WORK)
        return Occupancy(
            running=lane.busy if lane else 0, queued=lane.queued if lane else 0, slots=self.slots
        )

    def forget(self) -> None:
        """All that it was to do, and was doing: its process has ended."""
        self._asked.clear()
        self._ends.clear()
        self._answers.clear()
        self._state = Admission()
        self._wakes_at = inf

    def ask_offer(self, asker: str, remaining_s: float, reserve_s: float) -> Offer | Refused:
        number = next(self._numbers)
        self._step(admission.OfferWanted(number, self._wish(asker, remaining_s), reserve_s))
        return self._answers.pop(number)

    def give_back(self, reservation: int) -> None:
        self._step(admission.GivenBack(reservation))

    def ask_for(
        self, asker: str, job: Job, reservation: int | None, on_end: OnEnd
    ) -> Callable[[], None]:
        """Send it; returns how to take it back."""
        if self.is_broken:
            self.clock.after(BROKEN_S, lambda: on_end("broken"))
            return lambda: None
        number = next(self._numbers)
        self._asked[number] = (job, on_end)
        wish = self._wish(asker, job.deadline - self.clock.now)
        self._step(admission.Arrived(number, wish, reservation))
        return lambda: self._leave(number)

    def _wish(self, asker: str, remaining_s: float) -> admission.Wish:
        left_s = max(0.0, remaining_s)
        return admission.Wish(WORK, self.slots, asker, asker, "normal", self._cost_s, left_s)

    def _leave(self, number: int) -> None:
        if self._asked.pop(number, None) is not None:
            self._ends.pop(number, None)
            self._step(admission.Left(number))

    def _end(self, number: int, began_at: float) -> None:
        if number not in self._asked:
            return  # taken back
        _, on_end = self._asked[number]
        self._usual = self._usual.learn(PROGRAM, self.clock.now - began_at)
        self._leave(number)
        on_end("broken" if self.is_broken else "done")

    def _step(self, event: admission.Event) -> None:
        self._state, effects = admission.step(self._state, event, self.clock.now)
        for effect in effects:
            match effect:
                case admission.Start(ticket=number):
                    self._start(number)
                case admission.Refuse(ticket=number, refusal=no):
                    self._asked.pop(number)[1](Refused(no.detail, no.retry_after_s))
                case admission.Promise(reservation=number, wait_s=wait_s):
                    at = self.occupancy
                    self._answers[number] = Offer(
                        reservation=number,
                        wait_s=wait_s,
                        service_s=self._cost_s,
                        running=at.running,
                        queued=at.queued,
                        slots=at.slots,
                    )
                case admission.RefuseOffer(reservation=number, refusal=no):
                    self._answers[number] = Refused(no.detail, no.retry_after_s)
        due = admission.wake_at(self._state)
        if due < self._wakes_at:
            self._wakes_at = due
            self.clock.after(max(0.0, due - self.clock.now), self._wake)

    def _wake(self) -> None:
        self._wakes_at = inf
        self._step(admission.TimePassed())


@dataclass(frozen=True, slots=True)
class Known:
    """What an asker knows of a worker better than it says itself."""

    unit_s: float | None = None
    slowness: float = 1.0
    is_admitted: bool = True


STRANGER = Known()


@dataclass(slots=True)
class View:
    """What an asker knows of all workers: what they last said, and what it sent since."""

    loads: dict[PeerId, Load] = field(default_factory=dict)
    sent: dict[PeerId, list[float]] = field(default_factory=dict)
    """When, in order."""

    def hear(self, peer: PeerId, occupancy: Occupancy, now: float) -> None:
        self.loads[peer] = Load(occupancy, now)

    def candidate(
        self, worker: Worker, known: Known = STRANGER, seen_chance: float = 1.0
    ) -> Candidate:
        load = self.loads.get(worker.peer) or _silent(worker.slots)
        sent = self.sent.get(worker.peer, ())
        return Candidate(
            peer=worker.peer,
            name=worker.peer,
            roles=ROLES,
            languages=LANGUAGES,
            models=NO_MODELS,
            occupancy={WORK: load.occupancy},
            memory_used=0.5,
            tokens_per_s={},
            rtt_s=worker.rtt_s,
            is_routable=True,
            own_in_flight={WORK: len(sent) - bisect_left(sent, load.heard_at)},
            speed=worker.speed,
            unit_s=known.unit_s,
            slowness=known.slowness,
            is_admitted=known.is_admitted,
            seen_chance=seen_chance,
        )


class Surroundings(Protocol):
    """Where a node's choices are made: a cluster, or a campus of tier B."""

    @property
    def clock(self) -> Timer: ...
    @property
    def workers(self) -> dict[PeerId, Worker]: ...
    @property
    def views(self) -> list[View]: ...


class Cluster:
    """Workers of different slots and speeds, as households have them."""

    def __init__(
        self, workers: int, *, work_s: float, seed: int, make: type[Worker] = GatedWorker
    ) -> None:
        self.work_s = work_s
        """Of a job, on average."""
        self.clock = Clock()
        self.random = random.Random(seed)
        self.jobs = random.Random(seed + 1)
        """For what is asked, so that all policies are asked the same."""
        made = [
            make(
                self.clock,
                f"worker{number:03}",
                slots=self.random.choice((1, 2, 4)),
                speed=self.random.choice((0.5, 1.0, 1.0, 2.0)),
                rtt_s=self.random.uniform(0.001, 0.005),
            )
            for number in range(workers)
        ]
        self.workers = {worker.peer: worker for worker in made}
        self.views: list[View] = []

    @property
    def capacity(self) -> float:
        """Seconds of work a second, honestly."""
        return sum(one.slots * one.speed / one.slowness for one in self.workers.values())

    def gossip(self) -> None:
        """Every worker tells everybody how busy it is, once a second, each at its own time."""
        for worker in self.workers.values():
            self.clock.after(self.random.uniform(0, TELEMETRY_S), partial(self._tell, worker))

    def _tell(self, worker: Worker) -> None:
        said, now = worker.occupancy, self.clock.now
        for view in self.views:
            delay_s = self.random.uniform(0.02, 0.04)
            # Heard later, but true of now: what was sent since is not in it.
            self.clock.after(delay_s, partial(view.hear, worker.peer, said, now))
        self.clock.after(TELEMETRY_S, lambda: self._tell(worker))
