"""Two machines and one: who led the task alone stops, the others finish, and all agree later."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.netns import missing
from tests.soak.partition import complaints_of, open_home

WHY_NOT = missing()
pytestmark = [
    pytest.mark.real,
    pytest.mark.netns,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
    pytest.mark.timeout(240),
]

LASTS_S = 10.0
"""`make kills` has thirty seconds of it."""


def test_a_leader_that_is_cut_off_is_followed_by_another_and_changes_nothing_later(
    tmp_path: Path,
) -> None:
    with open_home(tmp_path) as home:
        try:
            assert complaints_of(home, LASTS_S) == []
        finally:
            sys.stdout.write(home.cluster.logs())
