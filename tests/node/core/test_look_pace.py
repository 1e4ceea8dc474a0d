"""Strangers at usual ports are left alone for longer and longer; nobody and servers never."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.look_pace import STRANGER_PAUSE_S_MAX, LookPace

HERE, THERE = "http://127.0.0.1:8080", "http://127.0.0.1:8000"
INTERVAL_S = 30.0


def looks_in(minutes: int, *, is_stranger: bool) -> list[float]:
    pace, looks = LookPace(), []
    for number in range(minutes * 2):
        now = number * INTERVAL_S
        if pace.is_due(HERE, now):
            looks.append(now)
            pace = pace.after(HERE, now, is_stranger=is_stranger)
    return looks


def test_a_stranger_is_asked_less_and_less_often_down_to_every_four_minutes() -> None:
    assert looks_in(14, is_stranger=True) == [0, 60, 180, 420, 660]


def test_where_nobody_or_a_server_is_every_look_is_due() -> None:
    assert len(looks_in(14, is_stranger=False)) == 28


def test_who_was_no_stranger_in_between_is_a_new_one() -> None:
    pace = LookPace().after(HERE, 0, is_stranger=True).after(HERE, 60, is_stranger=True)
    assert not pace.is_due(HERE, 179)
    pace = pace.after(HERE, 180, is_stranger=False).after(HERE, 200, is_stranger=True)
    assert pace.is_due(HERE, 260)


@given(st.lists(st.tuples(st.sampled_from([HERE, THERE]), st.booleans(), st.floats(0, 100))))
def test_no_address_is_ever_forgotten(history: list[tuple[str, bool, float]]) -> None:
    pace, now = LookPace(), 0.0
    for url, is_stranger, passed_s in history:
        now += passed_s
        before = pace
        pace = pace.after(url, now, is_stranger=is_stranger)
        assert pace.is_due(url, now) == (not is_stranger)
        assert pace.is_due(url, now + STRANGER_PAUSE_S_MAX)
        other = THERE if url == HERE else HERE
        assert pace.is_due(other, now) == before.is_due(other, now)
