"""Workers as a simulated cluster has them, and what an asker knows of them."""

from __future__ import annotations

from math import inf

import pytest

from kowalski.protocol.messages.placement import Offer
from simulations.placement_cluster import (
    WORK,
    Clock,
    Cluster,
    Ending,
    GatedWorker,
    Job,
    Refused,
    View,
    Worker,
)


def job(number: int, work_s: float, *, deadline: float = inf) -> Job:
    return Job(number, work_s, 0.0, deadline)


def worker(kind: type[Worker], clock: Clock, *, slots: int = 1, speed: float = 1.0) -> Worker:
    return kind(clock, "worker", slots=slots, speed=speed, rtt_s=0.002)


def test_a_worker_does_one_after_the_other_at_its_speed() -> None:
    clock = Clock()
    one = worker(Worker, clock, speed=2.0)
    ends: list[tuple[float, Ending]] = []
    for number in range(2):
        one.ask(job(number, 4.0), lambda how: ends.append((clock.now, how)))
    assert (one.occupancy.running, one.occupancy.queued) == (1, 1)
    assert one.backlog_s == 4.0
    clock.run(10.0)
    assert ends == [(2.0, "done"), (4.0, "done")]


def test_one_that_lies_takes_longer_than_its_speed_says() -> None:
    clock = Clock()
    one = worker(Worker, clock)
    one.slowness = 10.0
    assert one.service_s(job(0, 1.0)) == 10.0


def test_what_has_begun_after_its_deadline_is_counted() -> None:
    clock = Clock()
    one = worker(Worker, clock)
    for number in range(2):
        one.ask(job(number, 4.0, deadline=3.0), lambda _how: None)
    clock.run(10.0)
    assert one.late == 1


def test_a_gate_promises_holds_and_takes_back() -> None:
    clock = Clock()
    one = worker(GatedWorker, clock)
    assert isinstance(one, GatedWorker)
    free = one.ask_offer("a", 60.0, 2.0)
    assert isinstance(free, Offer)
    assert free.wait_s == 0.0
    held = one.ask_offer("b", 60.0, 2.0)
    assert isinstance(held, Offer)
    assert held.wait_s > 0.0
    assert free.reservation is not None
    one.give_back(free.reservation)
    clock.run(5.0)
    again = one.ask_offer("c", 60.0, 0.0)
    assert isinstance(again, Offer)
    assert again.wait_s == 0.0


def test_a_gate_refuses_what_it_could_only_begin_too_late() -> None:
    clock = Clock()
    one = worker(GatedWorker, clock)
    assert isinstance(one, GatedWorker)
    ends: list[Ending] = []
    one.ask_for("a", job(0, 30.0), None, ends.append)
    one.ask_for("b", job(1, 30.0, deadline=0.1), None, ends.append)
    clock.run(1.0)
    assert len(ends) == 1
    assert isinstance(ends[0], Refused)


def test_a_view_counts_what_was_sent_since_it_was_told() -> None:
    cluster = Cluster(1, work_s=1.0, seed=1)
    (one,) = cluster.workers.values()
    view = View()
    view.hear(one.peer, one.occupancy, 5.0)
    view.sent[one.peer] = [4.0, 5.0, 6.0]
    assert view.candidate(one).own_in_flight == {WORK: 2}


def test_a_cluster_of_one_seed_is_the_same_and_says_how_much_it_can_do() -> None:
    one, two = (Cluster(20, work_s=1.0, seed=7) for _ in range(2))
    sizes = [[(w.slots, w.speed) for w in c.workers.values()] for c in (one, two)]
    assert sizes[0] == sizes[1]
    assert one.capacity == pytest.approx(sum(slots * speed for slots, speed in sizes[0]))
    for each in one.workers.values():
        each.slowness = 2.0
    assert one.capacity == pytest.approx(two.capacity / 2)
