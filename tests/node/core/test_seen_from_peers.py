"""Clocks and addresses as peers see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.seen_from_peers import (
    ASKERS_MAX,
    AskingRate,
    Exchange,
    Seen,
    check_clocks,
    check_reach,
    chosen_peers,
)
from kowalski.protocol.ids import Address, PeerId

HOME = Address("/ip4/192.168.1.7/tcp/4170")
V6 = Address("/ip6/fd00::7/tcp/4170")
NOW = 1_764_240_000.0
WAY_S = st.floats(0, 10)


@given(ahead_s=st.floats(-1e5, 1e5), there_s=WAY_S, there_for_s=WAY_S, back_s=WAY_S)
def test_an_offset_is_right_within_half_of_the_way(
    ahead_s: float, there_s: float, there_for_s: float, back_s: float
) -> None:
    received = NOW + there_s
    replied = received + there_for_s
    seen = Exchange(NOW, received + ahead_s, replied + ahead_s, replied + back_s)
    assert seen.delay_s == pytest.approx(there_s + back_s, abs=1e-5)
    assert abs(seen.offset_s - ahead_s) <= seen.delay_s / 2 + 1e-5


def ahead(offset_s: float) -> Exchange:
    return Exchange(NOW, NOW + offset_s + 0.001, NOW + offset_s + 2.001, NOW + 2.002)


@pytest.mark.parametrize(
    ("offset_s", "verdict", "words"),
    [
        (0.25, "ok", "250.0 ms behind lab, give or take 1.0 ms"),
        (-59.9, "ok", "59.9 s ahead of lab"),
        (-61.0, "warn", "61.0 s ahead of lab"),
        (3600.0, "warn", "3600.0 s behind lab"),
    ],
)
def test_a_clock_a_minute_off_is_warned_of(offset_s: float, verdict: str, words: str) -> None:
    (check,) = check_clocks([Seen("lab", ahead(offset_s)), Seen("old", why="unsupported")])
    assert check.verdict == verdict
    assert words in check.found
    assert bool(check.cure) == (verdict == "warn")


def test_each_address_has_a_verdict_and_one_is_enough() -> None:
    lab = Seen("lab", ahead(0), frozenset({HOME}))
    pi = Seen("pi", ahead(0))
    reached, other = check_reach([HOME, V6], [lab, pi])
    assert (reached.verdict, reached.found) == ("ok", f"lab reached {HOME}")
    assert other.verdict == "ok"
    assert "not reached by lab, pi" in other.found
    checks = check_reach([HOME, V6], [pi])
    assert [check.verdict for check in checks] == ["warn", "warn"]
    assert all("firewall" in check.cure for check in checks)


def test_peers_that_cannot_tell_are_no_warning() -> None:
    (check,) = check_reach([HOME], [Seen("old", why="does not speak it")])
    assert (check.verdict, check.found) == ("ok", "no peer could tell (old: does not speak it)")
    assert check_reach([HOME], []) == []


def test_each_asker_is_admitted_once_in_a_while() -> None:
    rate = AskingRate(5.0)
    one, other = PeerId("one"), PeerId("other")
    assert rate.wait_s(one, 100.0) == 0
    assert rate.wait_s(one, 102.0) == 3.0
    assert rate.wait_s(other, 102.0) == 0
    assert rate.wait_s(one, 105.0) == 0
    for number in range(ASKERS_MAX):
        rate.wait_s(PeerId(str(number)), 106.0)
    assert len(rate.last) == ASKERS_MAX


def test_the_nearest_are_asked_first() -> None:
    a, b, c = PeerId("a"), PeerId("b"), PeerId("c")
    assert chosen_peers({a: None, b: 0.02, c: 0.001}, 2) == [c, b]
    assert chosen_peers({a: None}, 2) == [a]
