"""Whom a choice looks at, where there are too many to look at all."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.glance import LOOKED_AT, PASSED_OVER_MAX, glance, row
from kowalski.protocol.ids import PeerId

capacities = st.lists(st.floats(0.01, 1000.0), max_size=300).map(
    lambda widths: {PeerId(f"{number:04}"): width for number, width in enumerate(widths)}
)


def all_do(_peer: PeerId) -> bool:
    return True


@given(capacities, st.text(max_size=8))
def test_few_are_all_looked_at_and_many_never_more_than_that(
    widths: dict[PeerId, float], draw: str
) -> None:
    seen = glance(row(widths), draw, takes_work=all_do)
    assert seen.keys() <= widths.keys()
    if len(widths) <= LOOKED_AT:
        assert seen == dict.fromkeys(widths, 1.0)
    else:
        assert 0 < len(seen) <= LOOKED_AT
    assert all(0.0 < chance <= 1.0 for chance in seen.values())


@given(capacities, st.sets(st.integers(0, 400)))
def test_those_who_are_always_wanted_are_always_there(
    widths: dict[PeerId, float], numbers: set[int]
) -> None:
    always = [PeerId(f"{number:04}") for number in sorted(numbers)]
    seen = glance(row(widths), "draw", takes_work=all_do, always=always)
    assert set(always) <= seen.keys()
    assert all(seen[peer] == 1.0 for peer in always)


@given(capacities)
def test_the_same_draw_sees_the_same(widths: dict[PeerId, float]) -> None:
    assert glance(row(widths), "a", takes_work=all_do) == glance(
        row(widths), "a", takes_work=all_do
    )


def test_whoever_takes_no_work_is_passed_over() -> None:
    widths = dict.fromkeys((PeerId(f"{number:04}") for number in range(1000)), 1.0)
    seen = glance(row(widths), "draw", takes_work=lambda peer: int(peer) % 4 == 0)
    assert all(int(peer) % 4 == 0 for peer in seen)
    assert len(seen) >= LOOKED_AT - 16


def test_where_hardly_anybody_takes_work_the_search_ends() -> None:
    asked: list[PeerId] = []
    widths = dict.fromkeys((PeerId(f"{number:05}") for number in range(20_000)), 1.0)
    assert glance(row(widths), "draw", takes_work=lambda peer: bool(asked.append(peer))) == {}
    assert len(asked) <= LOOKED_AT * PASSED_OVER_MAX


def test_each_is_seen_as_often_as_it_says() -> None:
    widths = {PeerId(f"{number:03}"): 4.0 if number < 20 else 1.0 for number in range(400)}
    counts: Counter[PeerId] = Counter()
    chance: dict[PeerId, float] = {}
    draws = 2000
    for number in range(draws):
        seen = glance(row(widths), f"{number}", takes_work=all_do)
        counts.update(seen.keys())
        chance |= seen
    strong = sum(counts[peer] for peer in list(widths)[:20]) / 20 / draws
    weak = sum(counts[peer] for peer in list(widths)[20:]) / 380 / draws
    assert weak == pytest.approx(chance[PeerId("300")], rel=0.1)
    assert strong == pytest.approx(chance[PeerId("005")], rel=0.2)
    assert min(counts.values()) > 0
