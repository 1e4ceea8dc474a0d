"""Whom simulated nodes send something: those who are there, and soon nobody who is not."""

from __future__ import annotations

import statistics

from kowalski.mesh.core.failure_detector_events import Heard
from kowalski.mesh.core.membership import Claim
from simulations.detectors import Detectors, Weather
from simulations.routability import Routability


def silent_after_s(world: Detectors, looking: Routability, seconds: float) -> list[float]:
    """How soon each survivor of a crash of the first node sends it nothing any more."""
    began = world.now
    world.crash(0)
    world.run(began + seconds)
    found: dict[int, float] = {}
    for turn in looking.turns:
        if turn.about == 0 and turn.at >= began and not turn.is_routable:
            found.setdefault(turn.observer, turn.at - began)
    return list(found.values())


def test_half_of_fifty_send_nothing_two_seconds_after_a_crash_and_all_after_four() -> None:
    times: list[float] = []
    for seed in range(8):
        world = Detectors(50, seed=seed)
        looking = Routability(world)
        world.run(3.0 + seed / 11)
        silent = silent_after_s(world, looking, 4.0)
        assert len(silent) == 49
        assert {turn.about for turn in looking.turns} == {0}
        times += silent
    assert statistics.median(times) <= 2.0


def test_who_is_suspected_and_answers_is_sent_to_throughout() -> None:
    world = Detectors(12, seed=3)
    looking = Routability(world)
    world.run(3.0)
    world.tell(1, Heard(world.peers[2], (Claim(world.peers[0], "suspect", 1, world.peers[2]),)))
    world.run(20.0)
    assert {change.state for change in world.changes if change.about == 0} == {"suspect", "alive"}
    assert not looking.turns


def test_who_stood_still_is_sent_to_again_when_it_goes_on() -> None:
    world = Detectors(8, seed=4)
    looking = Routability(world)
    world.run(3.0)
    world.stall(0, 4.0)
    world.run(40.0)
    last = {turn.observer: turn.is_routable for turn in looking.turns if turn.about == 0}
    assert last == dict.fromkeys(range(1, 8), True)


def test_the_world_is_the_same_whether_anybody_looks_on_or_not() -> None:
    def story(*, is_seen: bool) -> list[object]:
        world = Detectors(10, seed=9, weather=Weather(loss=0.3))
        if is_seen:
            Routability(world)
        world.run(3.0)
        world.crash(1)
        world.run(30.0)
        return [*world.changes, *world.unroutable]

    assert story(is_seen=True) == story(is_seen=False)
