"""Wires of a simulated network: what each kind of bad weather does, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from kowalski.mesh.loopback_carrier import Carrier
from kowalski.mesh.loopback_wires import Link, Weather
from kowalski.protocol.ids import PeerId
from simulations.virtual_time import JumpingClock, NodeTime, deadlines_by_node
from simulations.wires import RETRANSMIT_S, Gossiping, StormyWires

A, B, C = PeerId("AAAAAAAA"), PeerId("BBBBBBBB"), PeerId("CCCCCCCC")


def wires(**more: float) -> StormyWires:
    return StormyWires(JumpingClock(), seed=1, weather=Weather(latency_s=0.01), **more)  # type: ignore[arg-type]


def test_without_a_storm_they_are_quiet() -> None:
    quiet = wires()
    assert quiet.travel_s(A, B, 10**9) == 0.01
    assert quiet.gossip_delays_s(B) == (0.0,)
    assert quiet.link(A, B) is Link.OPEN
    assert quiet.awake_at(A) <= quiet.now()


def test_a_link_may_be_silent_or_closed_in_one_direction_alone() -> None:
    at = wires()
    at.storm.silent[A, B] += 1
    at.storm.closed[B, C] += 1
    links = [at.link(*pair) for pair in ((A, B), (B, A), (B, C), (C, B))]
    assert links == [Link.SILENT, Link.OPEN, Link.CLOSED, Link.OPEN]


def test_packets_that_are_lost_come_late_and_are_never_missing() -> None:
    at = wires()
    at.storm.packet_loss = 0.3
    times = [at.travel_s(A, B, 100) for _ in range(2000)]
    on_time = sum(each == 0.01 for each in times)
    assert 1300 < on_time < 1500
    assert pytest.approx(min(each for each in times if each > 0.01)) == 0.01 + RETRANSMIT_S
    assert max(times) < 60


def test_a_narrow_wire_makes_large_things_wait_for_each_other() -> None:
    at = wires()
    at.storm.bytes_per_s = 1000.0
    assert at.travel_s(A, B, 500) == pytest.approx(0.51)
    assert at.travel_s(A, B, 500) == pytest.approx(1.01)
    assert at.travel_s(B, A, 500) == pytest.approx(0.51)


def test_a_slow_link_is_slow_one_way() -> None:
    at = wires()
    at.storm.slow_s[A, B] = 2.0
    assert (at.travel_s(A, B, 1), at.travel_s(B, A, 1)) == (2.01, 0.01)


def test_arrivals_fall_on_the_grain_and_never_before_their_time() -> None:
    at = wires(grain_s=0.004)
    assert at.travel_s(A, B, 1) == pytest.approx(0.012)


@pytest.mark.parametrize(
    ("what", "heard"),
    [
        ("lost", ()),
        ("doubled", 2),
        ("late", 1),
        ("replayed", 2),
    ],
)
def test_what_may_happen_to_gossip(what: str, heard: tuple[()] | int) -> None:
    at = wires()
    at.storm.gossip = replace(Gossiping(), **{what: 1.0})
    delays_s = at.gossip_delays_s(B)
    if heard == ():
        assert delays_s == ()
    else:
        assert len(delays_s) == heard
        assert max(delays_s) > 0
    if what == "replayed":
        assert max(delays_s) > 120, "later than gossipsub remembers"


def test_who_is_frozen_hears_nothing_until_it_is_not() -> None:
    at = wires()
    at.times[A] = NodeTime(frozen_until=4.0)
    assert at.awake_at(A) == 4.0


@pytest.mark.trio
async def test_what_is_carried_by_alarms_arrives_in_its_time_and_order(
    virtual_time: JumpingClock,
) -> None:
    at = StormyWires(virtual_time, seed=1, weather=Weather(latency_s=0.01))
    carrier = Carrier(at, lambda one, other: None)
    heard: list[tuple[float, str]] = []

    def say(receiver: PeerId, words: str) -> None:
        carrier.post(A, receiver, 1, lambda: heard.append((round(at.now(), 3), words)))

    at.times[C] = NodeTime()
    with deadlines_by_node():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carrier.carry)
            carrier.schedule(7.0, B, lambda: heard.append((round(at.now(), 3), "late")))
            at.times[C].freeze(at.now(), 5.0)
            say(C, "to a frozen one")
            at.storm.slow_s[A, B] = 2.0
            say(B, "slow")
            at.storm.slow_s[A, B] = 0.0
            say(B, "overtakes nobody")
            await trio.sleep(3)
            say(B, "later")
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
    assert heard == [
        (2.01, "slow"),
        (2.01, "overtakes nobody"),
        (3.01, "later"),
        (5.0, "to a frozen one"),
        (7.0, "late"),
    ]
