"""Who asks the cluster for work to be done: as a node does it, and as others would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from kowalski.mesh.core import offers
from kowalski.mesh.core.blame import is_worth_another_peer
from kowalski.mesh.core.breaker import Breaker
from kowalski.mesh.core.decisions import Decision
from kowalski.mesh.core.experience import NOISE_S, Experience, Outcome
from kowalski.mesh.core.hedging import Hedging
from kowalski.mesh.core.placement import Candidate, Choice, Ranking, load, rank
from kowalski.mesh.core.retry_budget import RetryBudget
from kowalski.mesh.core.shortlist import uniform
from kowalski.node.core.tries import Tries
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.placement import Offer
from kowalski.protocol.messages.telemetry import Occupancy
from simulations.placement_cluster import (
    NEED,
    WORK,
    Cluster,
    Ending,
    GatedWorker,
    Job,
    Known,
    Refused,
    Surroundings,
    View,
    Worker,
)


class Asker(Protocol):
    def submit(self, job: Job) -> None: ...


@dataclass(slots=True)
class Sent:
    """Requests that reached a worker, hedges and further tries included; offers asked for."""

    requests: int = 0
    offers: int = 0
    hedges: int = 0


class Naive:
    """Sends to the best published score of what it last heard; asks nobody, learns nothing."""

    def __init__(self, cluster: Cluster, _name: str, sent: Sent) -> None:
        self._cluster = cluster
        self._sent = sent
        self._view = View()
        cluster.views.append(self._view)

    def submit(self, job: Job) -> None:
        view, workers = View(self._view.loads), self._cluster.workers
        ranking = rank(NEED, [view.candidate(worker) for worker in workers.values()])
        best = ranking.best
        assert best is not None
        _send_for_good(self._cluster, workers[best.peer], job, self._sent)


class Omniscient:
    """Knows at every instant who runs and waits where and how fast each worker really is.

    Sends where the job is expected to be done first (shortest expected delay). Like everybody else
    it does not know how long a job is before it is done.
    """

    def __init__(self, cluster: Cluster, _name: str, sent: Sent) -> None:
        self._cluster = cluster
        self._sent = sent

    def submit(self, job: Job) -> None:
        def done_s(worker: Worker) -> float:
            at, usual_s = worker.occupancy, self._cluster.work_s * worker.slowness / worker.speed
            ahead = max(0, at.running + at.queued + 1 - worker.slots)
            return usual_s * (1 + ahead / worker.slots) + worker.rtt_s

        best = min(self._cluster.workers.values(), key=done_s)
        _send_for_good(self._cluster, best, job, self._sent)


class Clairvoyant:
    """Knows in addition how long every job will take: a bound that nobody can reach."""

    def __init__(self, cluster: Cluster, _name: str, sent: Sent) -> None:
        self._cluster = cluster
        self._sent = sent

    def submit(self, job: Job) -> None:
        def done_s(worker: Worker) -> float:
            return worker.backlog_s + worker.service_s(job) + worker.rtt_s

        best = min(self._cluster.workers.values(), key=done_s)
        _send_for_good(self._cluster, best, job, self._sent)


def _send_for_good(cluster: Cluster, worker: Worker, job: Job, sent: Sent) -> None:
    sent.requests += 1

    def end(how: Ending) -> None:
        if how == "done":
            finish(cluster, worker, job)

    cluster.clock.after(worker.rtt_s / 2, lambda: worker.ask(job, end))


def finish(cluster: Surroundings, worker: Worker, job: Job) -> None:
    """The answer is on its way back."""
    if not job.is_over:
        job.is_over = True
        job.peer = worker.peer
        job.latency_s = cluster.clock.now + worker.rtt_s / 2 - job.asked_at


# --- as a node does it --------------------------------------------------------------------------


@dataclass(slots=True)
class _Flight:
    """A request under way, and how to take it back."""

    choice: Choice
    sent_at: float
    promised_s: float
    crowding: float
    take_back: Callable[[], None]


class Node:
    """The choices of `Dispatch` and `Placing`, made for one submitter. Offers are always asked."""

    def __init__(self, cluster: Surroundings, name: str, sent: Sent) -> None:
        self.clock = cluster.clock
        self.cluster = cluster
        self.name = name
        self._sent = sent
        self.view = View()
        cluster.views.append(self.view)
        self._experience = Experience()
        self._breakers: dict[PeerId, Breaker] = {}
        self._budget = RetryBudget()
        self._hedging = Hedging()
        self._draws = count()
        self._flights: dict[PeerId, list[_Flight]] = {}
        self._line: list[_Placing] = []

    def submit(self, job: Job) -> None:
        self._budget = self._budget.ask(self.clock.now)
        self._hedging = self._hedging.ask()
        placing = _Placing(self, job)
        self.clock.after(job.deadline - self.clock.now, placing.give_up)
        if self._line:
            self._line.append(placing)
        else:
            placing.choose()

    # --- what it knows --------------------------------------------------------------------------

    def worker(self, peer: PeerId) -> GatedWorker:
        worker = self.cluster.workers[peer]
        assert isinstance(worker, GatedWorker)
        return worker

    def rank(self, excluding: frozenset[PeerId]) -> Ranking:
        now = self.clock.now
        known = (self.known(worker, now) for worker in self.cluster.workers.values())
        return rank(NEED, known, excluding=excluding)

    def known(self, worker: Worker, now: float, seen_chance: float = 1.0) -> Candidate:
        peer, breaker = worker.peer, self._breakers.get(worker.peer)
        overdue = max(
            (
                (now - one.sent_at) / (one.promised_s + NOISE_S)
                for one in self._flights.get(peer, ())
            ),
            default=0.0,
        )
        known = Known(
            unit_s=self._experience.unit_s(peer, NEED.work),
            slowness=self._experience.slowness(peer, NEED.work, now, overdue=overdue),
            is_admitted=breaker is None or breaker.admits(now),
        )
        return self.view.candidate(worker, known, seen_chance)

    def uniform(self) -> float:
        return uniform(self.draw(), "wait")

    def draw(self) -> str:
        return f"{self.name} {next(self._draws)}"

    def hear(self, offer: Offer, peer: PeerId) -> None:
        at = Occupancy(running=offer.running, queued=offer.queued, slots=offer.slots)
        self.view.hear(peer, at, self.clock.now)

    def sending_s(self, worker: GatedWorker) -> float:
        """Until a request is at the worker: on a stream it comes late, and not never."""
        return worker.rtt_s / 2

    def delay_s(self, worker: GatedWorker) -> float | None:
        """Until what is sent to a worker, or by it, arrives; None: never, and nobody says so."""
        return worker.rtt_s / 2

    # --- what it sends, and learns --------------------------------------------------------------

    def asked_offers(self, count: int) -> None:
        self._sent.offers += count

    def send(
        self,
        take: offers.Take,
        job: Job,
        on_end: Callable[[Choice, Ending], None],
    ) -> _Flight:
        choice, now = take.choice, self.clock.now
        worker = self.worker(choice.peer)
        self._sent.requests += 1
        breaker = self._breakers.get(choice.peer) or Breaker(f"{self.name} {choice.peer}")
        self._breakers[choice.peer], passage = breaker.send(now)
        flight = _Flight(
            choice,
            now,
            offers.promise_s(choice, take.offer),
            1.0 + take.offer.wait_s / max(take.offer.service_s, NOISE_S),
            lambda: None,
        )
        self._flights.setdefault(choice.peer, []).append(flight)
        self.view.sent.setdefault(choice.peer, []).append(now)

        def heard(how: Ending) -> None:
            self._landed(flight)
            breaker = self._breakers[choice.peer]
            if how == "broken":
                self._breakers[choice.peer] = breaker.fail(passage, self.clock.now)
            else:
                self._breakers[choice.peer] = breaker.succeed(passage)
            if how == "done":
                self._learn(flight)
            on_end(choice, how)
            self.freed()

        def arrive() -> None:
            if job.is_over:
                self._landed(flight)
                return
            flight.take_back = worker.ask_for(
                self.name,
                job,
                take.offer.reservation,
                lambda how: self.clock.after(worker.rtt_s / 2, lambda: heard(how)),
            )

        self.clock.after(self.sending_s(worker), arrive)
        return flight

    def _landed(self, flight: _Flight) -> None:
        peer = flight.choice.peer
        if flight in self._flights.get(peer, ()):
            self._flights[peer].remove(flight)
            self.view.sent[peer].remove(flight.sent_at)

    def take_back(self, flight: _Flight) -> None:
        """Nobody wants it any more."""
        if flight in self._flights.get(flight.choice.peer, ()):
            self._landed(flight)
            flight.take_back()

    def _learn(self, flight: _Flight) -> None:
        took_s = self.clock.now - flight.sent_at
        outcome = Outcome(1.0, took_s, flight.promised_s, flight.crowding)
        peer, now = flight.choice.peer, self.clock.now
        self._experience = self._experience.learn(peer, NEED.work, outcome, now)
        self._hedging = self._hedging.answer(took_s)

    def may_try_again(self) -> bool:
        budget = self._budget.spend(self.clock.now)
        self._budget = budget or self._budget
        return budget is not None

    def hedge_after_s(self, expected_s: float) -> float | None:
        return self._hedging.after_s(expected_s)

    def may_hedge(self) -> bool:
        able = [choice.candidate for choice in self.rank(frozenset()).choices]
        mean_load = sum(load(one, WORK) for one in able) / max(1, len(able))
        hedging = self._hedging.spend(mean_load)
        self._hedging = hedging or self._hedging
        if hedging is not None:
            self._sent.hedges += 1
        return hedging is not None

    # --- the line -------------------------------------------------------------------------------

    def wait(self, placing: _Placing, wait_s: float) -> None:
        """To the head of the line if it is empty; only the head asks again."""
        if placing not in self._line:
            self._line.append(placing)
        if self._line[0] is placing:
            placing.wake_number += 1
            number = placing.wake_number
            self.clock.after(wait_s, lambda: self._wake(placing, number))

    def _wake(self, placing: _Placing, number: int) -> None:
        is_head = bool(self._line) and self._line[0] is placing
        if is_head and placing.wake_number == number:
            placing.wake_number += 1
            placing.choose()

    def leave(self, placing: _Placing) -> None:
        """It has found a peer, or given up; the next in line may ask."""
        if placing in self._line:
            was_head = self._line[0] is placing
            self._line.remove(placing)
            if was_head and self._line:
                self._line[0].choose()

    def freed(self) -> None:
        if self._line and not self._line[0].is_choosing:
            self._line[0].wake_number += 1
            self._line[0].choose()


class _Placing:
    """One job until it is over."""

    def __init__(self, node: Node, job: Job) -> None:
        self._node = node
        self._job = job
        self._tries = Tries()
        self._state: offers.Choosing | None = None
        self._held: dict[PeerId, int] = {}
        self._flights: list[_Flight] = []
        self._asking_since = 0
        self.is_choosing = False
        self.wake_number = 0

    @property
    def _now(self) -> float:
        return self._node.clock.now

    def choose(self, *, hedging: bool = False) -> None:
        if self._job.is_over or self.is_choosing:
            return
        tried = frozenset(flight.choice.peer for flight in self._flights)
        if not hedging:
            self._tries.busy.clear()
        ranking = self._node.rank(self._tries.excluded | tried)
        if not ranking.choices:
            if not hedging:
                self._fail()
            return
        self.is_choosing = True
        self._asking_since += 1
        state, effects = offers.begin(NEED, ranking, self._node.draw(), self._now)
        self._take(state, effects)

    def _take(self, state: offers.Choosing, effects: tuple[offers.Effect, ...]) -> None:
        self._state = state
        for effect in effects:
            match effect:
                case offers.AskOffers(peers=peers):
                    self._node.asked_offers(len(peers))
                    for peer in peers:
                        self._ask(peer, self._asking_since)
                case offers.GiveBack(peers=peers):
                    for peer in peers:
                        self._give_back(peer, self._held.pop(peer))
                case offers.Take():
                    self._send(effect)
                case offers.NobodyFree():
                    self._nobody(state, effect)
        number = self._asking_since
        if self.is_choosing and (due := offers.wake_at(self._state)) < 1e9:
            self._node.clock.after(
                max(0.0, due - self._now),
                lambda: self._happens(offers.TimePassed(), number),
            )

    def _ask(self, peer: PeerId, number: int) -> None:
        worker = self._node.worker(peer)

        def arrive() -> None:
            if worker.is_broken:
                answer: Offer | Refused = Refused("broken", None)
            else:
                left_s = self._job.deadline - self._now
                answer = worker.ask_offer(self._node.name, left_s, offers.RESERVE_S)
            if (back_s := self._node.delay_s(worker)) is not None:
                self._node.clock.after(back_s, lambda: self._heard(peer, answer, number))

        if (there_s := self._node.delay_s(worker)) is not None:
            self._node.clock.after(there_s, arrive)

    def _heard(self, peer: PeerId, answer: Offer | Refused, number: int) -> None:
        if isinstance(answer, Refused):
            no = offers.Refusal(answer.why, answer.retry_after_s)
            self._happens(offers.OfferRefused(peer, no), number)
            return
        self._node.hear(answer, peer)
        assert answer.reservation is not None
        if not self.is_choosing or number != self._asking_since:
            self._give_back(peer, answer.reservation)
            return
        self._held[peer] = answer.reservation
        self._happens(offers.OfferHeard(peer, answer), number)

    def _give_back(self, peer: PeerId, reservation: int) -> None:
        worker = self._node.worker(peer)
        self._node.clock.after(worker.rtt_s / 2, lambda: worker.give_back(reservation))

    def _happens(self, event: offers.Event, number: int) -> None:
        if self.is_choosing and number == self._asking_since and self._state is not None:
            self._take(*offers.step(self._state, event, self._now))

    def _release(self, taken: PeerId | None) -> None:
        self.is_choosing = False
        for peer, reservation in self._held.items():
            if peer != taken:
                self._give_back(peer, reservation)
        self._held.clear()

    def _send(self, take: offers.Take) -> None:
        self._release(take.choice.peer)
        self._node.leave(self)
        flight = self._node.send(take, self._job, self._ended)
        self._flights.append(flight)
        hedge_after_s = self._node.hedge_after_s(take.expected_s)
        if hedge_after_s is not None and len(self._flights) == 1:
            self._node.clock.after(hedge_after_s, lambda: self._hedge(flight))

    def _hedge(self, flight: _Flight) -> None:
        if not self._job.is_over and self._flights == [flight] and self._node.may_hedge():
            self.choose(hedging=True)

    def _nobody(self, state: offers.Choosing, end: offers.NobodyFree) -> None:
        self._release(None)
        if self._flights:
            return  # it was for a hedge
        if end.retry_after_s is None and state.ranking.best is not None:
            broken = Offer(wait_s=0.0, service_s=0.0)
            self._send(offers.Take(state.ranking.best, broken, 0.0, "no offers could be had"))
            return
        self._tries.add_refusals(
            Decision(
                self._now, NEED, "offers", state.ranking, None, end.why, refusals=state.refusals
            )
        )
        self._node.wait(self, self._tries.wait_s(self._node.uniform()))

    def _ended(self, choice: Choice, how: Ending) -> None:
        self._flights = [one for one in self._flights if one.choice.peer != choice.peer]
        if self._job.is_over:
            return
        if how == "done":
            self._over()
            finish(self._node.cluster, self._node.worker(choice.peer), self._job)
            return
        error = (
            RequestRefusedError("busy", how.why, how.retry_after_s)
            if isinstance(how, Refused)
            else RequestFailedError("backend", "broken")
        )
        self._tries.add(choice.peer, choice.name, error)
        if self._flights:
            return
        if isinstance(how, Refused):
            self._node.wait(self, self._tries.wait_s(self._node.uniform()))
        elif self._tries.are_too_many or not self._node.may_try_again():
            self._fail()
        else:
            assert is_worth_another_peer(error)
            pause_s = self._tries.pause_s(self._node.uniform())
            self._node.clock.after(pause_s, self.choose)

    def give_up(self) -> None:
        if not self._job.is_over:
            self._fail()

    def _fail(self) -> None:
        self._job.is_over = True
        self._over()

    def _over(self) -> None:
        self._release(None)
        for flight in self._flights:
            self._node.take_back(flight)
        self._flights.clear()
        self._node.leave(self)
