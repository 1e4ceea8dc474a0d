"""Quiet wires: one weather for all, and links that can be cut."""

from __future__ import annotations

from kowalski.mesh.loopback_wires import Link, Weather, Wires
from kowalski.protocol.ids import PeerId

A, B, C = PeerId("AAAAAAAA"), PeerId("BBBBBBBB"), PeerId("CCCCCCCC")


def test_a_link_is_closed_both_ways_until_it_is_opened() -> None:
    wires = Wires()
    wires.close(A, B)
    assert {wires.link(A, B), wires.link(B, A)} == {Link.CLOSED}
    assert wires.link(A, C) is Link.OPEN
    wires.open(B, A)
    assert wires.link(A, B) is Link.OPEN


def test_travel_takes_latency_and_up_to_the_jitter() -> None:
    wires = Wires(3, Weather(latency_s=1.0, jitter_s=0.5))
    times = [wires.travel_s(A, B, 10) for _ in range(200)]
    assert 1.0 <= min(times) < 1.05
    assert 1.45 < max(times) <= 1.5


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    def drawn(seed: int) -> list[float]:
        wires = Wires(seed, Weather(jitter_s=1.0))
        return [wires.travel_s(A, B, 0) for _ in range(5)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_gossip_is_lost_as_often_as_the_weather_says_and_heard_once_at_once() -> None:
    wires = Wires(1, Weather(gossip_loss=0.25))
    lost = sum(wires.is_gossip_lost(A, B) for _ in range(4000))
    assert 850 < lost < 1150
    assert wires.gossip_delays_s(B) == (0.0,)
