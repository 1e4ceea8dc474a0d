"""What a claim is worth: the order in which claims come, and how often, does not matter."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core import membership
from kowalski.mesh.core.membership import (
    INCARNATION_LEAP_MAX,
    Claim,
    Membership,
    State,
    check,
    check_news,
)
from kowalski.protocol.ids import PeerId

ME, A, B, C = (PeerId(name * 8) for name in "MABC")
STATES: tuple[State, ...] = ("alive", "suspect", "failed", "left")


def learn(
    table: Membership, *claims: Claim, now: float = 0.0, members_max: int = 100
) -> Membership:
    table, _ = membership.learn(table, claims, now, members_max=members_max)
    check(table)
    return table


def knowing(*claims: Claim, now: float = 0.0) -> Membership:
    return learn(membership.new(ME, 1), *claims, now=now)


# --- what stands --------------------------------------------------------------------------------


@pytest.mark.parametrize(("better", "worse"), [*pairwise(STATES)])
def test_at_one_incarnation_the_worse_news_stands(better: State, worse: State) -> None:
    table = knowing(Claim(A, "alive", 5))
    table = learn(table, Claim(A, better, 5), Claim(A, worse, 5))
    assert table.state_of(A) == worse
    assert learn(table, Claim(A, better, 5)) is table


@pytest.mark.parametrize("gone", ["suspect", "failed", "left"])
def test_nobody_is_resurrected_at_or_below_the_incarnation_that_ended(gone: State) -> None:
    table = learn(knowing(Claim(A, "alive", 5)), Claim(A, gone, 5))
    for incarnation in range(6):
        assert learn(table, Claim(A, "alive", incarnation)) is table
    assert learn(table, Claim(A, "alive", 6)).state_of(A) == "alive"


def test_news_of_the_same_batch_is_told_once_and_as_it_ended() -> None:
    suspect, back = Claim(A, "suspect", 5, B), Claim(A, "alive", 6)
    _, news = membership.learn(
        knowing(Claim(A, "alive", 5)), (suspect, back, suspect), 1.0, members_max=9
    )
    assert news == (back,)


def test_that_an_unknown_peer_is_gone_is_no_news() -> None:
    table = membership.new(ME, 1)
    assert learn(table, Claim(A, "failed", 3), Claim(B, "left", 9)) is table


def test_an_incarnation_out_of_reach_is_a_lie() -> None:
    table = knowing(Claim(A, "alive", 5))
    assert learn(table, Claim(A, "alive", 6 + INCARNATION_LEAP_MAX)) is table
    assert membership.refute(table, Claim(ME, "failed", 2 + INCARNATION_LEAP_MAX)) is table


@given(
    st.lists(
        st.builds(Claim, st.sampled_from([A, B, C]), st.sampled_from(STATES), st.integers(0, 3)),
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_tables_end_alike_whatever_order_and_however_often_claims_come(
    claims: list[Claim], chance: random.Random
) -> None:
    met = [Claim(peer, "alive", 0) for peer in (A, B, C)]
    one = other = knowing(*met)
    for claim in claims:
        one = learn(one, claim)
    shuffled = claims * 2
    chance.shuffle(shuffled)
    for at in range(0, len(shuffled), 3):
        other = learn(other, *shuffled[at : at + 3])
    assert set(membership.rows(one)) == set(membership.rows(other))
    assert one.digest == other.digest


@given(st.lists(st.tuples(st.sampled_from(STATES), st.integers(0, 5)), max_size=20))
def test_the_incarnation_of_a_member_never_falls(claims: list[tuple[State, int]]) -> None:
    table, highest = knowing(Claim(A, "alive", 0)), 0
    for state, incarnation in claims:
        table = learn(table, Claim(A, state, incarnation))
        assert table.members[A].incarnation >= highest
        highest = table.members[A].incarnation


# --- about ourselves ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["suspect", "failed", "left"])
def test_we_contradict_by_an_incarnation_above_the_claim(state: State) -> None:
    table = membership.refute(membership.new(ME, 4), Claim(ME, state, 6))
    check(table)
    assert table.own_claim() == Claim(ME, "alive", 7)


@pytest.mark.parametrize("claim", [Claim(ME, "alive", 4), Claim(ME, "failed", 3)])
def test_what_is_no_worse_than_what_we_say_is_not_contradicted(claim: Claim) -> None:
    table = membership.new(ME, 4)
    assert membership.refute(table, claim) is table


def test_that_somebody_knows_a_later_run_of_ours_raises_us_above_it() -> None:
    """As after a disk was restored from a backup."""
    assert membership.refute(membership.new(ME, 4), Claim(ME, "alive", 9)).incarnation == 10


def test_who_has_left_does_not_argue() -> None:
    table = membership.leave(membership.new(ME, 4))
    check(table)
    assert table.own_claim() == Claim(ME, "left", 4)
    assert membership.refute(table, Claim(ME, "failed", 9)) is table


# --- bounds -------------------------------------------------------------------------------------


def test_a_full_table_takes_a_newcomer_in_place_of_the_oldest_tombstone() -> None:
    table = knowing(Claim(A, "alive", 1), Claim(B, "alive", 1))
    table = learn(table, Claim(A, "failed", 1), now=1.0)
    table = learn(table, Claim(B, "left", 1), now=2.0)
    table = learn(table, Claim(C, "alive", 1), members_max=2)
    assert set(table.members) == {B, C}


def test_a_table_full_of_the_living_takes_nobody() -> None:
    table = knowing(Claim(A, "alive", 1))
    assert learn(table, Claim(B, "alive", 1), members_max=1) is table


def test_tombstones_are_forgotten_after_their_time_and_not_brought_back() -> None:
    table = knowing(Claim(A, "alive", 1), Claim(B, "alive", 1))
    table = learn(table, Claim(A, "failed", 1), now=10.0)
    assert membership.bury(table, 109.0, after_s=100.0) is table
    table = membership.bury(table, 110.0, after_s=100.0)
    check(table)
    assert set(table.members) == {B}
    assert learn(table, Claim(A, "failed", 1)) is table


def test_an_expelled_member_leaves_no_trace() -> None:
    table = membership.expel(knowing(Claim(A, "alive", 3)), A)
    check(table)
    assert table.digest == membership.new(ME, 1).digest
    assert table.state_of(A) is None


# --- checking -----------------------------------------------------------------------------------


def test_rows_that_held_are_not_summed_up_again() -> None:
    table = knowing(Claim(A, "alive", 1), Claim(B, "suspect", 1))
    held = check_news(table, None)
    assert (held.living, held.suspects) == ({A, B}, {B})
    assert check_news(membership.leave(table), held) is held


def test_a_row_that_was_altered_in_place_is_found() -> None:
    table = knowing(Claim(A, "alive", 1))
    held = check_news(table, None)
    table.members[A] = replace(table.members[A], incarnation=2)
    with pytest.raises(AssertionError):
        check_news(table, held)


@pytest.mark.parametrize("wrong", [{"living": 2}, {"digest": 7}, {"incarnation": 2}, {"me": A}])
def test_what_does_not_fit_the_rows_that_held_is_found(wrong: dict[str, Any]) -> None:
    table = knowing(Claim(A, "alive", 1))
    held = check_news(table, None)
    with pytest.raises(AssertionError):
        check_news(replace(table, **wrong), held)


# --- comparing ----------------------------------------------------------------------------------


def test_of_two_tables_each_learns_what_the_other_knows_better() -> None:
    one = knowing(Claim(A, "failed", 2), Claim(B, "alive", 7))
    one = learn(one, Claim(A, "alive", 2), Claim(A, "failed", 2))
    other = membership.new(C, 3)
    other = learn(other, Claim(ME, "alive", 1), Claim(A, "alive", 3), Claim(B, "alive", 6))
    one = learn(one, *membership.rows(other))
    better = membership.better_rows(one, membership.rows(other))
    assert set(better) == {Claim(B, "alive", 7)}
    assert learn(other, *better).digest == one.digest
