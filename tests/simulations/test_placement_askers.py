"""Those who ask a simulated cluster: a node, and those it is compared with."""

from __future__ import annotations

import pytest

from simulations.placement_askers import (
    Asker,
    Clairvoyant,
    Naive,
    Node,
    Omniscient,
    Sent,
    finish,
)
from simulations.placement_cluster import Cluster, GatedWorker, Job, Worker


def asked(make: type[Naive | Omniscient | Clairvoyant | Node], cluster: Cluster) -> Asker:
    return make(cluster, "asker", Sent())


@pytest.mark.parametrize(
    ("make", "worker"),
    [(Naive, Worker), (Omniscient, Worker), (Clairvoyant, Worker), (Node, GatedWorker)],
)
def test_every_asker_gets_its_work_done(
    make: type[Naive | Omniscient | Clairvoyant | Node], worker: type[Worker]
) -> None:
    cluster = Cluster(5, work_s=1.0, seed=3, make=worker)
    asker = asked(make, cluster)
    cluster.gossip()
    jobs = [Job(number, 0.5, 0.0, 60.0) for number in range(10)]
    for job in jobs:
        asker.submit(job)
    cluster.clock.run(60.0)
    assert all(job.latency_s is not None and job.latency_s >= 0.25 for job in jobs)


def test_the_omniscient_sees_at_once_who_is_slower_than_it_says() -> None:
    cluster = Cluster(5, work_s=1.0, seed=3, make=Worker)
    best = max(cluster.workers.values(), key=lambda one: one.slots * one.speed)
    best.slowness = 100.0
    job = Job(0, 1.0, 0.0, 60.0)
    asked(Omniscient, cluster).submit(job)
    cluster.clock.run(60.0)
    assert job.peer is not None
    assert job.peer != best.peer


def test_a_node_goes_elsewhere_where_a_worker_is_broken() -> None:
    cluster = Cluster(3, work_s=1.0, seed=3)
    *broken, well = cluster.workers.values()
    for one in broken:
        one.is_broken = True
    asker = asked(Node, cluster)
    jobs = [Job(number, 0.1, 0.0, 60.0) for number in range(3)]
    for job in jobs:
        asker.submit(job)
    cluster.clock.run(60.0)
    assert {job.peer for job in jobs} == {well.peer}


def test_an_answer_that_comes_second_changes_nothing() -> None:
    cluster = Cluster(2, work_s=1.0, seed=3)
    one, two = cluster.workers.values()
    job = Job(0, 1.0, 0.0, 60.0)
    finish(cluster, one, job)
    finish(cluster, two, job)
    assert job.peer == one.peer
