"""News is told a bounded number of times, a few a message, the newest first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core import rumours
from kowalski.mesh.core.membership import Claim
from kowalski.mesh.core.rumours import CLAIMS_PER_MESSAGE, Rumours, check
from kowalski.protocol.ids import PeerId


def claim(number: int, incarnation: int = 1) -> Claim:
    return Claim(PeerId(f"peer{number:04d}"), "alive", incarnation)


def claims(count: int) -> tuple[Claim, ...]:
    return tuple(claim(number) for number in range(count))


def everything_told(state: Rumours, mesh_size: int) -> list[tuple[Claim, ...]]:
    """Message by message, until there is nothing left to say."""
    told = []
    while state.waiting:
        state, message = rumours.take(state, mesh_size)
        check(state, mesh_size)
        told.append(message)
    return told


@pytest.mark.parametrize("size", [1, 3, 50, 1000])
def test_each_claim_is_told_so_often_and_no_more(size: int) -> None:
    told = everything_told(rumours.spread(Rumours(), claims(20)), size)
    for one in claims(20):
        assert sum(one in message for message in told) == rumours.times_max(size)
    assert max(map(len, told)) <= CLAIMS_PER_MESSAGE
    assert all(len(set(message)) == len(message) for message in told)


def test_it_takes_more_times_in_a_larger_mesh_but_only_by_its_logarithm() -> None:
    assert [rumours.times_max(size) for size in (1, 2, 8, 50, 1000, 10_000)] == [
        3,
        6,
        9,
        12,
        21,
        30,
    ]


def test_news_goes_out_before_what_was_told_already() -> None:
    state, _ = rumours.take(rumours.spread(Rumours(), claims(3)), 50)
    _, message = rumours.take(rumours.spread(state, (claim(9),)), 50)
    assert message[0] == claim(9)


def test_a_claim_replaces_what_was_said_of_the_same_peer() -> None:
    state = rumours.spread(rumours.spread(Rumours(), (claim(1, 1),)), (claim(1, 2),))
    assert [one.claim for one in state.waiting.values()] == [claim(1, 2)]


def test_of_a_peer_that_was_dropped_nothing_is_told() -> None:
    state = rumours.drop(rumours.spread(Rumours(), claims(2)), claim(0).peer)
    assert rumours.take(state, 50)[1] == (claim(1),)
    assert rumours.drop(state, claim(0).peer) is state


def test_nothing_to_tell_costs_nothing() -> None:
    quiet = Rumours()
    assert rumours.take(quiet, 50) == (quiet, ())
    assert rumours.spread(quiet, ()) is quiet


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 200))
def test_whatever_comes_while_telling_messages_stay_small_and_it_ends(
    peers: list[int], size: int
) -> None:
    state, messages = Rumours(), 0
    for number in peers:
        state, message = rumours.take(rumours.spread(state, (claim(number),)), size)
        assert len(message) <= CLAIMS_PER_MESSAGE
        check(state, size)
    while state.waiting:
        state, _ = rumours.take(state, size)
        messages += 1
    assert messages <= 31 * rumours.times_max(size)
