"""What a session may fill of a window: never more than the model reads, whoever counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.rlm.window_size import (
    FACTOR_MAX,
    FACTOR_MIN,
    REPLY_TOKENS_MAX,
    UNLEARNT,
    WINDOW_TOKENS_DEFAULT,
    TokenScale,
    is_worth_counting,
    room_tokens,
)

LONG = st.integers(100, 1_000_000)
FACTOR = st.floats(FACTOR_MIN, FACTOR_MAX)


def test_what_is_guessed_has_a_larger_margin_than_what_is_learnt() -> None:
    assert UNLEARNT.at_most(1000) == 1100
    assert TokenScale(2.0, is_learnt=True).at_most(1000) == 2100
    assert TokenScale(2.0, is_learnt=True).ours(3000) == 1500
    assert UNLEARNT.ours(3000) == 3000


def test_more_counts_at_once_and_less_by_and_by() -> None:
    first = UNLEARNT.heard(200, 400)
    assert first == TokenScale(2.0, is_learnt=True)
    assert first.heard(200, 600).factor == 3.0
    assert first.heard(200, 200).factor == pytest.approx(1.7)
    assert UNLEARNT.heard(200, 160).factor == 0.8  # the first is taken as it is


@pytest.mark.parametrize(("estimated", "counted"), [(99, 99), (200, 99), (200, 1601), (200, 0)])
def test_a_count_that_cannot_be_of_the_whole_text_teaches_nothing(
    estimated: int, counted: int
) -> None:
    known = TokenScale(1.5, is_learnt=True)
    assert known.heard(estimated, counted) is known
    assert UNLEARNT.heard(estimated, counted) is UNLEARNT


def test_a_peer_that_knows_no_better_teaches_nothing_and_one_that_counts_the_same_does() -> None:
    assert UNLEARNT.told(500, 500, is_exact=False) is UNLEARNT
    assert UNLEARNT.told(500, 500, is_exact=True) == TokenScale(1.0, is_learnt=True)
    assert UNLEARNT.told(500, 900, is_exact=False) == TokenScale(1.8, is_learnt=True)


@given(FACTOR, st.lists(st.tuples(LONG, st.floats(0, 20))))
def test_nothing_that_is_heard_makes_a_scale_absurd(
    factor: float, heard: list[tuple[int, float]]
) -> None:
    scale = TokenScale(factor, is_learnt=True)
    for estimated, ratio in heard:
        before, counted = scale, int(estimated * ratio)
        scale = scale.heard(estimated, counted)
        assert FACTOR_MIN <= scale.factor <= FACTOR_MAX
        # What was counted just now is never held for less than it is, if it is more than usual.
        if before.factor < counted / estimated <= FACTOR_MAX:
            assert scale.at_most(estimated) >= counted


def test_a_reply_keeps_its_room_and_a_wish_its_bound() -> None:
    assert room_tokens(100_000, [8192]) == 6144
    assert room_tokens(100_000, [32_768, 16_384]) == 16_384 - REPLY_TOKENS_MAX
    assert room_tokens(100_000, [200_000]) == 100_000
    assert room_tokens(1000, [8192]) == 1000
    assert room_tokens(100_000, [None]) == WINDOW_TOKENS_DEFAULT * 3 // 4
    assert room_tokens(100_000, []) == 100_000


@given(st.integers(256, 10_000_000), st.lists(st.integers(1, 2_000_000), min_size=1))
def test_there_is_never_more_room_than_any_window_has(wanted: int, windows: list[int]) -> None:
    room = room_tokens(wanted, windows)
    assert 1 <= room <= min(wanted, *windows)
    assert room + min(REPLY_TOKENS_MAX, min(windows) // 4) <= max(min(windows), 1) or room == wanted


@given(LONG, st.integers(100, 1_000_000), FACTOR)
def test_what_is_not_counted_is_plain_for_any_vocabulary(
    estimated: int, room: int, factor: float
) -> None:
    if not is_worth_counting(estimated, room):
        fits = estimated * FACTOR_MAX <= room
        assert fits == (estimated * factor <= room) or estimated * factor == room
