"""What `make kills` complains of."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from tests.soak.kills import Followed, Kind, complaints_of, draw_kills, roles_of

WANTED = Followed(answer="all of it", state="answered", asked=Counter(map(str, range(50))))
LIKE_IT = replace(WANTED, killed_at=1.0, shown=Counter(range(20)))
EXECUTOR = Kind("executor", 3, ("hand",))
COORDINATOR = Kind("coordinator", 3, ("leader",))
IN_BATCH = replace(COORDINATOR, in_batch=True)
ALL = Kind("all", 3, ("all",))
TWICE = {**WANTED.asked, "7": 2}


def test_what_is_as_undisturbed_is_fine() -> None:
    assert complaints_of(EXECUTOR, LIKE_IT, WANTED) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"killed_at": None}, "nobody was killed"),
        ({"answer": "half of it"}, "half of it"),
        ({"state": "failed"}, "failed"),
        ({"asked": Counter(TWICE)}, "1 prompts were asked again"),
        ({"asked": Counter(map(str, range(49)))}, "49 prompts were asked, not 50"),
        ({"shown": Counter({4: 2})}, r"shown twice: \[4\]"),
    ],
)
def test_what_is_not_is_told(changes: dict[str, object], words: str) -> None:
    (complaint,) = complaints_of(EXECUTOR, replace(LIKE_IT, **changes), WANTED)  # type: ignore[arg-type]
    assert re.search(words, complaint)


def test_only_where_the_model_is_killed_itself_may_it_be_asked_what_it_was_at_again() -> None:
    twice = replace(LIKE_IT, asked=Counter(TWICE))
    for kind in (EXECUTOR, COORDINATOR, IN_BATCH):
        assert complaints_of(kind, twice, WANTED) != []
    assert complaints_of(ALL, twice, WANTED) == []
    assert complaints_of(ALL, replace(twice, asked=Counter({**TWICE, "8": 2})), WANTED) != []


def test_a_seed_draws_the_same_kills_of_every_kind() -> None:
    assert draw_kills(30, 7) == draw_kills(30, 7) != draw_kills(30, 8)
    assert len({kind.name for kind in draw_kills(30, 7)}) == 7
    assert sum(role == "submit,coordinate" for role in roles_of(8).values()) == 3
