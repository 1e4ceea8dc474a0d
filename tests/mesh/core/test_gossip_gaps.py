"""What of others' gossip never came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.gossip_gaps import LATE_MAX, LEAP_MAX, GossipGaps
from tests.mesh.members import peer_of

A, B = peer_of("A"), peer_of("B")


def after(*numbers: int) -> int:
    gaps = GossipGaps()
    for number in numbers:
        gaps.hear(A, "boot", number)
    return gaps.lost


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ((5, 6, 7), 0),
        ((1, 3), 0),  # it may still come
        ((1, 3, 2, *range(4, 40)), 0),
        ((1, *range(3, 40)), 1),
        ((1, 1, 1, *range(2, 40)), 0),
        ((1, 1 + LATE_MAX, *range(2, 1 + LATE_MAX)), 0),
    ],
)
def test_a_number_is_lost_once_many_later_ones_have_come(
    numbers: tuple[int, ...], lost: int
) -> None:
    assert after(*numbers) == lost


def test_who_begins_anew_has_lost_nothing() -> None:
    gaps = GossipGaps()
    gaps.hear(A, "boot", 50)
    gaps.hear(A, "next", 1)
    gaps.hear(A, "next", 2)
    gaps.hear(B, "boot", 1000)
    assert gaps.lost == 0


def test_who_is_forgotten_is_no_gap_when_it_comes_back() -> None:
    gaps = GossipGaps()
    gaps.hear(A, "boot", 1)
    gaps.forget(A)
    gaps.hear(A, "boot", 500)
    assert gaps.lost == 0


def test_a_leap_that_somebody_made_up_costs_and_counts_little() -> None:
    assert after(1, 2**60) == LEAP_MAX


@given(st.sets(st.integers(1, 60)))
def test_in_order_all_that_is_left_out_is_counted_in_the_end(left_out: set[int]) -> None:
    came = [number for number in range(1, 61) if number not in left_out]
    assert after(0, *came, *range(61, 62 + LATE_MAX)) == len(left_out)
