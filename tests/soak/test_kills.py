"""What `make kills` complains of."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from tests.soak.kills import BATCH, Followed, Kind, complaints_of, draw_kills, roles_of

WANTED = Followed(answer="all of it", state="answered", answered=50)
LIKE_IT = replace(WANTED, killed_at=1.0, shown=Counter(range(20)))
EXECUTOR = Kind("executor", 3, ("hand",))
COORDINATOR = Kind("coordinator", 3, ("leader",))
IN_BATCH = replace(COORDINATOR, in_batch=True)


def test_what_is_as_undisturbed_is_fine() -> None:
    assert complaints_of(EXECUTOR, LIKE_IT, WANTED) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"killed_at": None}, "nobody was killed"),
        ({"answer": "half of it"}, "half of it"),
        ({"state": "failed"}, "failed"),
        ({"answered": 51}, "1 calls were answered again"),
        ({"answered": 49}, "-1 calls"),
        ({"shown": Counter({4: 2})}, r"shown twice: \[4\]"),
    ],
)
def test_what_is_not_is_told(changes: dict[str, object], words: str) -> None:
    (complaint,) = complaints_of(EXECUTOR, replace(LIKE_IT, **changes), WANTED)  # type: ignore[arg-type]
    assert re.search(words, complaint)


def test_only_a_lost_coordinator_may_lose_what_was_under_way() -> None:
    for kind, most in ((EXECUTOR, 0), (COORDINATOR, 1), (IN_BATCH, BATCH)):
        assert complaints_of(kind, replace(LIKE_IT, answered=50 + most), WANTED) == []
        assert complaints_of(kind, replace(LIKE_IT, answered=51 + most), WANTED) != []


def test_a_seed_draws_the_same_kills_of_every_kind() -> None:
    assert draw_kills(30, 7) == draw_kills(30, 7) != draw_kills(30, 8)
    assert len({kind.name for kind in draw_kills(30, 7)}) == 7
    assert sum(role == "submit,coordinate" for role in roles_of(8).values()) == 3
