"""The promises of tier B: each is seen where it is broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulations import plan
from simulations.campus import CampusWorld
from simulations.checkers.campus import TELEMETRY_HEARD_MAX
from simulations.detectors import Change
from simulations.placement_cluster import Job
from simulations.scale import sized


@pytest.fixture
def world() -> CampusWorld:
    calm = sized(10, 1.0, has_faults=False)
    return CampusWorld(replace(plan.draw(calm, 1), asks=()))


def broken(world: CampusWorld) -> str:
    world.checker.check_all()
    violation = world.checker.violation
    return violation.invariant if violation else "nothing"


def test_where_nothing_is_wrong_nothing_is_found(world: CampusWorld) -> None:
    assert broken(world) == "nothing"


def test_a_member_that_rises_from_the_dead_by_an_old_word(world: CampusWorld) -> None:
    world.detectors.crash(3)
    world.checker.changed(Change(1.0, 1, 3, "failed", 1))
    world.checker.changed(Change(2.0, 1, 3, "alive", 1))
    assert broken(world) == "membership_monotone"


def test_an_incarnation_that_nobody_has_taken(world: CampusWorld) -> None:
    world.checker.changed(Change(1.0, 1, 3, "alive", 2))
    assert broken(world) == "incarnation_is_its_own"


def test_one_that_is_given_up_and_is_there(world: CampusWorld) -> None:
    world.checker.changed(Change(1.0, 1, 3, "failed", 1))
    assert broken(world) == "nobody_is_given_up_for_nothing"


def test_one_that_is_gone_and_held_for_alive(world: CampusWorld) -> None:
    world.detectors.crash(3)
    assert broken(world) == "no_ghosts"


@pytest.mark.parametrize(
    "job",
    [Job(0, 1.0, 0.0, 60.0, is_over=True), Job(0, 1.0, 0.0, 60.0, latency_s=99.0, begun_at=98.0)],
    ids=["never done", "late"],
)
def test_work_that_starves(world: CampusWorld, job: Job) -> None:
    world.jobs.append((0, job))
    assert broken(world) == "nobody_starves"


def test_work_without_an_end(world: CampusWorld) -> None:
    world.jobs.append((0, Job(0, 1.0, 0.0, 60.0)))
    assert broken(world) == "tasks_are_conserved"


def test_more_telemetry_than_a_node_can_hear(world: CampusWorld) -> None:
    world.gossip.said_in[7] = TELEMETRY_HEARD_MAX + 1
    assert broken(world) == "telemetry_within_budget"
