"""Tier B: thousands of nodes as cores on one heap of (time, event).

Real here: the failure detector and membership of every node, when telemetry is said, whom a choice
looks at and how it ranks them (glance, placement, shortlist), offers and the gate of each worker,
breakers, hedges and retry budgets. Not here: bytes, streams, certificates, coordinators and
journals, which tier A has. A task is one piece of work, as long as its cells wait together, and
whoever is asked places it. `tell` gives the same kind of report as `story.tell`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from math import ceil

from kowalski.mesh.core import announcements
from kowalski.mesh.core.failure_detector_state import Params
from kowalski.mesh.core.glance import row
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Occupancy
from simulations.campus_gossip import CampusGossip
from simulations.campus_nodes import CampusNode, CampusWorker
from simulations.checkers.campus import CampusChecker
from simulations.detectors import Change, Detectors, Weather
from simulations.determinism import nothing_collected
from simulations.menu import Fault
from simulations.placement_askers import Sent
from simulations.placement_cluster import Job, OnEnd, View, Worker
from simulations.plan import Ask, Plan
from simulations.reports import Report

MEMBERS_MAX = 16_384
"""A node as it comes holds 4,096; beyond, tables are tried out here alone."""

QUESTION_S = 0.2
"""A task that is one model call."""

WAITS = re.compile(r"wait ([0-9.]+)")

NOTICED_S = 10.0
"""After which the connections to a peer that vanished are given up without a verdict (yamux)."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a test may set otherwise, to see that it is found out."""

    detector: Params = field(default_factory=lambda: Params(members_max=MEMBERS_MAX))
    telemetry: Callable[[int], announcements.Params] = lambda size: announcements.stretched(
        announcements.Params(), size
    )
    glances: bool = True
    forgets_work: bool = False
    """Workers lose what they were given as it ends."""


@dataclass(slots=True)
class CampusReport(Report):
    """And what only so many nodes show."""

    waits_s: list[float] = field(default_factory=list)
    """From being asked for until the work began."""
    loads: list[float] = field(default_factory=list)
    """Share of its places that each node which was up all the time had busy."""
    telemetry_heard_per_s: float = 0.0
    """At one node, on average; and in the worst second."""
    telemetry_heard_per_s_max: int = 0
    swim_per_s: float = 0.0
    """Messages of a node, sent."""


class CampusWorld:
    def __init__(self, plan: Plan, tuning: Tuning | None = None) -> None:
        scenario, network = plan.scenario, plan.scenario.network
        self.plan = plan
        self.tuning = tuning or Tuning()
        self._random = random.Random(f"{plan.seed} campus")
        self.clock = self.detectors = Detectors(
            scenario.nodes,
            seed=plan.seed,
            params=self.tuning.detector,
            weather=Weather(
                network.latency_ms / 1000,
                (network.latency_ms + network.jitter_ms) / 1000,
                network.packet_loss,
            ),
        )
        peers = self.detectors.peers
        self._numbers = {peer: number for number, peer in enumerate(peers)}
        self.views: list[View] = []
        self.workers: dict[PeerId, Worker] = {}
        self._members: list[CampusWorker] = []
        for devices in scenario.devices:
            for _ in range(devices.count):
                self._add_worker(devices.slots, 1.0 / devices.slowness)
        self.row = row({one.peer: one.slots * one.speed for one in self._members})
        self.gossip = CampusGossip(
            self.clock,
            seed=plan.seed,
            loss=network.gossip_loss,
            occupancy=self._told_by,
            mesh_size=lambda number: self.detectors.nodes[number].state.mesh_size,
            speaks=self._speaks,
            params=self.tuning.telemetry,
        )
        self._nodes: dict[int, CampusNode] = {}
        self._orphans: dict[int, list[OnEnd]] = {}
        self.sent = Sent()
        self.jobs: list[tuple[int, Job]] = []
        """With who was asked."""
        self.fired: dict[str, int] = {}
        self.trace: list[str] = []
        self._digest = blake2b(digest_size=16)
        self.checker = CampusChecker(self)
        self.detectors.on_change = self._changed

    def _add_worker(self, slots: int, speed: float) -> None:
        network, number = self.plan.scenario.network, len(self._members)
        worker = CampusWorker(
            self.clock,
            self.detectors.peers[number],
            slots=slots,
            speed=speed,
            rtt_s=2 * (network.latency_ms + network.jitter_ms * self._random.random()) / 1000,
        )
        worker.forgets_work = self.tuning.forgets_work
        worker.counted_until = self.plan.scenario.seconds
        worker.on_moved = lambda: self.gossip.look(number)
        self._members.append(worker)
        self.workers[worker.peer] = worker

    # --- what nodes know ------------------------------------------------------------------------

    def number_of(self, peer: PeerId) -> int:
        return self._numbers[peer]

    def worker(self, number: int) -> CampusWorker:
        return self._members[number]

    def is_up(self, number: int) -> bool:
        return self.detectors.nodes[number].is_up

    def _speaks(self, number: int) -> bool:
        return self.is_up(number) and self._members[number].frozen_until <= self.clock.now

    def _told_by(self, number: int) -> Occupancy:
        worker = self._members[number]
        return worker.occupancy if worker.says is None else worker.says

    def heard(self, hearer: int, peer: PeerId) -> None:
        """Bring what one node knows of another up to now."""
        speaker, view = self._numbers[peer], self._node(hearer).view
        if speaker == hearer:
            view.hear(peer, self._members[hearer].occupancy, self.clock.now)
            return
        said, known = self.gossip.heard(speaker, hearer), view.loads.get(peer)
        if said is not None and (known is None or said.at > known.heard_at):
            view.hear(peer, said.occupancy, said.at)

    def _node(self, number: int) -> CampusNode:
        if number not in self._nodes:
            glances = self.tuning.glances
            self._nodes[number] = CampusNode(self, number, self.sent, glances=glances)
        return self._nodes[number]

    # --- what happens ---------------------------------------------------------------------------

    def tell(self) -> CampusReport:
        scenario = self.plan.scenario
        # They have long been speaking, each at its own time.
        round_s = self.tuning.telemetry(scenario.nodes).hot_s_max
        for number in range(scenario.nodes):
            self.clock.after(self._random.random() * round_s, partial(self.gossip.look, number))
        for ask in self.plan.asks:
            if ask.kind == "submit":
                self.clock.after(ask.at_s, partial(self._submit, ask))
        for fault in self.plan.faults:
            self.clock.after(fault.at_s, partial(self._befall, fault))
        self.detectors.run(scenario.seconds)
        self._note("quiet from now on")
        self.detectors.run(scenario.seconds + scenario.settle_s)
        self.checker.check_all()
        return self._report()

    def _note(self, line: str) -> None:
        told = f"{self.clock.now:.6f} {line}"
        self._digest.update(told.encode())
        self.trace.append(told)

    def _submit(self, ask: Ask) -> None:
        number = self._somebody_up(ask.node)
        work_s = sum(float(wait) for _, code in ask.cells for wait in WAITS.findall(code))
        now, end_s = self.clock.now, self.plan.scenario.seconds + self.plan.scenario.settle_s
        job = Job(len(self.jobs), work_s or QUESTION_S, now, min(now + ask.timeout_s, end_s))
        self.jobs.append((number, job))
        self._node(number).submit(job)

    def _somebody_up(self, number: int) -> int:
        count = len(self._members)
        return next(n % count for n in range(number, number + count) if self._speaks(n % count))

    def _changed(self, change: Change) -> None:
        self._note(f"{change.observer} of {change.about}: {change.state} {change.incarnation}")
        self.checker.changed(change)

    # --- faults ---------------------------------------------------------------------------------

    def _befall(self, fault: Fault) -> None:
        number = fault.nodes[0] if fault.nodes else 0
        lasts_s = fault.lasts_s
        if fault.nodes and not self._speaks(number):
            return
        self.fired[fault.kind] = self.fired.get(fault.kind, 0) + 1
        self.checker.befell(fault)
        self._note(str(fault))
        worker = self._members[number]
        match fault.kind:
            case "crash" | "restart" | "power-cut" | "lost":
                self._end(number, is_silent=fault.kind in {"power-cut", "lost"})
                if fault.kind != "lost":
                    back_s = 1.0 if fault.kind == "restart" else max(1.0, lasts_s)
                    self.clock.after(back_s, partial(self._begin, number))
            case "freeze":
                self.detectors.stall(number, fault.amount)
                worker.frozen_until = self.clock.now + fault.amount
            case "isolate":
                self.detectors.cut_off(number)
                self.clock.after(lasts_s, partial(self._join_again, number))
            case "slow-worker":
                worker.slowness = fault.amount
                self.clock.after(lasts_s, partial(setattr, worker, "slowness", 1.0))
            case "lies-idle" | "lies-busy":
                busy = worker.slots if fault.kind == "lies-busy" else 0
                worker.says = Occupancy(running=busy, queued=busy, slots=worker.slots)
                self.gossip.look(number)
                self.clock.after(lasts_s, partial(setattr, worker, "says", None))
            case "packet-loss":
                before = self.detectors.weather
                self.detectors.weather = Weather(
                    before.delay_s_min, before.delay_s_max, fault.amount
                )
                self.clock.after(lasts_s, partial(setattr, self.detectors, "weather", before))
            case "gossip-lost":
                usual = self.plan.scenario.network.gossip_loss
                self.gossip.loss = fault.amount
                self.clock.after(lasts_s, partial(setattr, self.gossip, "loss", usual))
            case unknown:
                raise ValueError(f"{unknown} is no fault of tier B")

    def _end(self, number: int, *, is_silent: bool) -> None:
        self.detectors.crash(number, is_silent=is_silent)
        waiting = self._members[number].die()
        if is_silent:
            self._orphans.setdefault(number, []).extend(waiting)
            self.clock.after(NOTICED_S, partial(self._break_off, number))
        else:
            for on_end in waiting:
                self.clock.after(self._members[number].rtt_s / 2, partial(on_end, "broken"))
        for asker, job in self.jobs:
            if asker == number and not job.is_over:
                job.is_over = job.is_lost = True
        self._nodes.pop(number, None)

    def _break_off(self, number: int) -> None:
        for on_end in self._orphans.pop(number, ()):
            on_end("broken")

    def _begin(self, number: int) -> None:
        self._break_off(number)
        self._members[number].is_up = True
        self._note(f"{number} is back")
        self.checker.came_back(number)
        self.detectors.restart(number)
        self.clock.after(1.0, partial(self.gossip.look, number))

    def _join_again(self, number: int) -> None:
        self.detectors.mend(number)
        self.checker.came_back(number)
        if self.is_up(number):
            self.detectors.meet_all(number)

    # --- what came of it ------------------------------------------------------------------------

    def _report(self) -> CampusReport:
        scenario, count = self.plan.scenario, self.plan.scenario.nodes
        lasted_s = scenario.seconds + scenario.settle_s
        report = CampusReport(self.plan, lasted_s=lasted_s)
        for number, job in self.jobs:
            end = "lost" if job.is_lost else "completed" if job.latency_s is not None else "failed"
            report.ends[end] += 1
            self._note(f"task {job.number} of {number}: {end} {job.latency_s} at {job.peer}")
            if job.latency_s is not None:
                report.task_s.append(job.latency_s)
            if job.begun_at is not None:
                report.waits_s.append(job.begun_at - job.asked_at)
        report.loads = sorted(
            one.busy_s / (one.slots * scenario.seconds)
            for number, one in enumerate(self._members)
            if not self.checker.was_troubled(number)
        )
        report.swim_per_s = self.detectors.messages / count / lasted_s
        report.telemetry_heard_per_s = self.gossip.said / lasted_s * (count - 1) / count
        report.telemetry_heard_per_s_max = max(self.gossip.said_in.values(), default=0)
        report.messages.update(
            {
                "swim": self.detectors.messages,
                "telemetry said": self.gossip.said,
                "offers asked": self.sent.offers,
                "requests": self.sent.requests,
            }
        )
        report.fired = self.fired
        report.evaluated = self.checker.evaluated
        report.violation = self.checker.violation
        report.trace_hash = self._digest.hexdigest()
        report.trace = self.trace
        return report


def tell(plan: Plan, tuning: Tuning | None = None) -> CampusReport:
    """Tell the story of a plan of tier B. It is the same story every time."""
    with nothing_collected():
        return CampusWorld(plan, tuning).tell()


def describe(report: CampusReport) -> str:
    """In words, for a person."""
    waits, tasks, loads = (sorted(one) for one in (report.waits_s, report.task_s, report.loads))
    return (
        f"a node sent {report.swim_per_s:.1f} messages of membership a second, and heard "
        f"{report.telemetry_heard_per_s:.1f} of telemetry (at most "
        f"{report.telemetry_heard_per_s_max})\n"
        f"work began after p50 {_share(waits, 0.5):.2f} s, p99 {_share(waits, 0.99):.2f} s, at "
        f"most {_share(waits, 1.0):.2f} s; was done after p50 {_share(tasks, 0.5):.1f} s, p99 "
        f"{_share(tasks, 0.99):.1f} s\n"
        f"busy places by node: p1 {_share(loads, 0.01):.0%}, p50 {_share(loads, 0.5):.0%}, p99 "
        f"{_share(loads, 0.99):.0%}"
    )


def _share(values: list[float], share: float) -> float:
    return values[max(0, ceil(share * len(values)) - 1)] if values else 0.0
