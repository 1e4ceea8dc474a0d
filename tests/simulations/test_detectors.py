"""Failure detectors by the dozen: who crashes is given up by all, who does not by nobody."""

from __future__ import annotations

import statistics

import pytest

from simulations.detectors import Detectors, Weather


def failed(world: Detectors, about: int) -> dict[int, float]:
    """When each observer gave it up first."""
    found: dict[int, float] = {}
    for change in world.changes:
        if change.about == about and change.state == "failed":
            found.setdefault(change.observer, change.at)
    return found


@pytest.mark.parametrize("count", [2, 3, 8, 20])
@pytest.mark.parametrize("is_silent", [False, True])
def test_a_crash_is_noticed_by_all_and_nobody_else_is_given_up(count: int, is_silent: bool) -> None:
    for seed in range(3):
        world = Detectors(count, seed=seed)
        world.run(10.0)
        assert not world.changes
        world.crash(0, is_silent=is_silent)
        world.run(70.0)
        found = failed(world, 0)
        assert len(found) == count - 1
        assert max(found.values()) - 10.0 < 8.0
        assert {change.about for change in world.changes} == {0}
        assert not is_silent or {about for _, _, about in world.unroutable} == {0}


def test_with_a_fifth_of_all_segments_lost_nobody_is_given_up() -> None:
    world = Detectors(16, seed=5, weather=Weather(loss=0.2))
    world.run(600.0)
    assert not [change for change in world.changes if change.state == "failed"]


def test_a_node_that_stood_still_accuses_nobody_when_it_goes_on() -> None:
    world = Detectors(10, seed=1)
    world.run(5.0)
    world.stall(3, 4.0)
    world.run(60.0)
    assert not [change for change in world.changes if change.observer == 3 and change.about != 3]
    assert {change.about for change in world.changes} <= {3}
    last = {c.observer: c.state for c in world.changes if c.about == 3}
    assert set(last.values()) <= {"alive"}, "it has contradicted"


def test_a_node_that_restarts_is_alive_for_all_again() -> None:
    world = Detectors(10, seed=2)
    world.run(5.0)
    world.crash(3)
    world.run(25.0)
    world.restart(3)
    world.run(40.0)
    states = [node.state.table.state_of(world.peers[3]) for node in world.nodes]
    assert states == ["alive"] * 10
    assert len({node.state.table.digest for node in world.nodes}) == 1


def test_two_halves_give_each_other_up_after_a_reprieve_and_views_converge_after_it() -> None:
    world = Detectors(12, seed=3)
    world.run(5.0)
    world.cut(range(6), range(6, 12))
    world.run(60.0)
    assert {number for _, number in world.partitions} == set(range(12))
    for observer in range(12):
        at = [c.at for c in world.changes if (c.state, c.observer) == ("failed", observer)]
        assert sum(when < 5.0 + 9.0 for when in at) <= 4, "a third of the others"
        assert len(at) == 6
    world.mend()
    world.reconnect(0, 6)
    world.run(100.0)
    everybody = dict.fromkeys(world.peers, "alive")
    for node in world.nodes:
        assert {peer: node.state.table.state_of(peer) for peer in world.peers} == everybody


def test_an_asymmetric_block_makes_nobody_fail() -> None:
    world = Detectors(8, seed=4)
    world.run(5.0)
    world.block([0], [1])
    world.run(120.0)
    assert not [change for change in world.changes if change.state == "failed"]
    assert {(who, about) for _, who, about in world.unroutable} == {(0, 1), (1, 0)}


def test_an_idle_node_sends_few_messages_whatever_the_size_of_the_mesh() -> None:
    for count in (3, 20, 70):
        world = Detectors(count, seed=6)
        world.run(30.0)
        assert world.messages / count / 30.0 <= 5.0


def test_the_same_seed_tells_the_same_story() -> None:
    def story() -> list[object]:
        world = Detectors(10, seed=9, weather=Weather(loss=0.3))
        world.run(3.0)
        world.crash(1)
        world.run(30.0)
        return [*world.changes, *world.unroutable]

    assert story() == story()


def test_it_takes_about_two_seconds_to_suspect_and_five_to_give_up() -> None:
    times = []
    for seed in range(10):
        world = Detectors(24, seed=seed)
        world.run(5.0 + seed / 20)
        began = world.now
        world.crash(0)
        world.run(began + 30.0)
        times.append(max(failed(world, 0).values()) - began)
    assert statistics.median(times) < 5.0
