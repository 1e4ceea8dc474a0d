"""Telemetry of thousands: said once, heard by each in its own time."""

from __future__ import annotations

from kowalski.mesh.core import announcements
from kowalski.protocol.messages.telemetry import Occupancy
from simulations.campus_gossip import DELAY_S_MAX, CampusGossip
from simulations.placement_cluster import Clock

IDLE, BUSY = Occupancy(slots=4), Occupancy(running=4, slots=4)


class World:
    """One node that speaks, and as many as one likes that listen."""

    def __init__(self, *, loss: float = 0.0, size: int = 50) -> None:
        self.clock = Clock()
        self.now_says = IDLE
        self.gossip = CampusGossip(
            self.clock,
            seed=1,
            loss=loss,
            occupancy=lambda _number: self.now_says,
            mesh_size=lambda _number: size,
            speaks=lambda number: number == 0,
            params=lambda size: announcements.stretched(announcements.Params(), size),
        )
        self.gossip.look(0)


def test_what_was_said_is_heard_a_moment_later_and_by_each_at_another_time() -> None:
    world = World()
    assert world.gossip.heard(0, 1) is None
    world.clock.run(DELAY_S_MAX / 2)
    some = sum(world.gossip.heard(0, hearer) is not None for hearer in range(1, 101))
    assert 20 < some < 80
    world.clock.run(DELAY_S_MAX)
    assert all(world.gossip.heard(0, hearer) is not None for hearer in range(1, 101))


def test_the_newest_that_has_arrived_is_heard() -> None:
    world = World()
    world.clock.run(2.0)
    world.now_says = BUSY
    world.gossip.look(0)
    before = world.gossip.heard(0, 1)
    world.clock.run(2.0 + DELAY_S_MAX)
    after = world.gossip.heard(0, 1)
    assert before is not None
    assert after is not None
    assert (before.occupancy, after.occupancy) == (IDLE, BUSY)


def test_who_does_not_speak_is_not_heard() -> None:
    world = World()
    world.gossip.look(3)
    world.clock.run(10.0)
    assert world.gossip.heard(3, 1) is None


def test_so_many_are_lost_as_the_weather_says() -> None:
    world = World(loss=0.3)
    world.clock.run(1.0)
    heard = sum(world.gossip.heard(0, hearer) is not None for hearer in range(1, 1001))
    assert 650 < heard < 750


def test_it_is_said_again_as_seldom_as_the_core_says() -> None:
    small, large = World(size=50), World(size=1000)
    for world in (small, large):
        world.clock.run(301.0)
    assert (small.gossip.said, large.gossip.said) == (61, 4)
