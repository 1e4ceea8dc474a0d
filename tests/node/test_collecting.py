"""What is spared the search for garbage, and what is not."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from kowalski.node.collecting import YOUNG_MAX, keep_for_good


class Knot:
    """Refers to itself, so that only a search can free it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_was_there_is_not_searched_any_more() -> None:
    there = len(gc.get_objects())
    keep_for_good()
    assert len(gc.get_objects()) < there / 10
    assert gc.get_freeze_count() > there / 2


def test_garbage_that_is_made_later_is_found_without_being_asked_for() -> None:
    keep_for_good()
    first = weakref.ref(Knot())
    for _ in range(2 * YOUNG_MAX):
        Knot()
    assert first() is None
