"""One node of a campus: what it sees of the others, and what is left of it when it dies."""

from __future__ import annotations

from kowalski.mesh.core.glance import LOOKED_AT
from kowalski.protocol.messages.placement import Offer
from simulations import plan
from simulations.campus import CampusWorld
from simulations.campus_nodes import GONE, CampusNode, CampusWorker
from simulations.placement_askers import Sent
from simulations.placement_cluster import Clock, Ending, Job
from simulations.scale import sized


def worker() -> tuple[Clock, CampusWorker]:
    clock = Clock()
    return clock, CampusWorker(clock, "worker", slots=1, speed=1.0, rtt_s=0.01)


def test_who_waits_for_work_of_one_that_dies_is_told_by_whoever_lets_it_die() -> None:
    clock, one = worker()
    ends: list[Ending] = []
    job = Job(0, 5.0, 0.0, 60.0)
    one.ask_for("asker", job, None, ends.append)
    clock.run(1.0)
    assert job.begun_at == 0.0
    (on_end,) = one.die()
    clock.run(20.0)
    assert not ends
    on_end("broken")
    assert ends == ["broken"]
    assert one.ask_offer("asker", 10.0, 2.0) is GONE


def test_one_that_came_back_begins_anew() -> None:
    clock, one = worker()
    one.ask_for("asker", Job(0, 50.0, 0.0, 60.0), None, lambda _how: None)
    clock.run(1.0)
    one.die()
    one.is_up = True
    assert isinstance(one.ask_offer("asker", 10.0, 2.0), Offer)
    ends: list[Ending] = []
    one.ask_for("asker", Job(1, 1.0, 1.0, 60.0), None, ends.append)
    clock.run(10.0)
    assert ends == ["done"]


def test_among_many_a_bounded_number_is_looked_at_and_nobody_that_is_known_to_be_gone() -> None:
    world = CampusWorld(plan.draw(sized(200, 1.0), 1))
    node = CampusNode(world, 7, Sent())
    everybody = CampusNode(world, 7, Sent(), glances=False)
    assert LOOKED_AT // 2 < len(node.rank(frozenset()).choices) <= LOOKED_AT + 1
    assert len(everybody.rank(frozenset()).choices) == 200
    world.detectors.crash(3)
    world.detectors.run(40.0)
    peers = {choice.peer for choice in everybody.rank(frozenset()).choices}
    assert world.detectors.peers[3] not in peers
    assert len(peers) == 199


def test_nothing_comes_from_one_that_is_cut_off_or_silent() -> None:
    world = CampusWorld(plan.draw(sized(20, 1.0), 1))
    node = CampusNode(world, 7, Sent())
    assert node.delay_s(world.worker(7)) == 0.0
    assert node.delay_s(world.worker(3)) == world.worker(3).rtt_s / 2
    world.detectors.cut_off(3)
    assert node.delay_s(world.worker(3)) is None
    world.worker(4).frozen_until = 5.0
    assert node.delay_s(world.worker(4)) is None
    assert node.sending_s(world.worker(4)) == 5.0
