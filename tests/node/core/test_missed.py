"""When nobody can for a moment, and when nobody can."""

from __future__ import annotations

from math import inf

import pytest

from kowalski.mesh.core.placement import Candidate, Need
from kowalski.node.core.missed import (
    LOSSES_MAX,
    LOST_S,
    MISSED_S,
    NEW_S,
    is_worth_a_wait,
    may_come_back,
)
from tests.mesh.core.test_placement import PYTHON, candidate

SILENT = candidate("silent", is_routable=False)
BASH_ONLY = candidate("other", languages=frozenset({"bash"}))


@pytest.mark.parametrize(
    ("need", "candidates", "waited_s", "is_worth"),
    [
        (PYTHON, [SILENT, BASH_ONLY], 0.0, True),
        (PYTHON, [SILENT, BASH_ONLY], MISSED_S, False),
        (PYTHON, [BASH_ONLY], 0.0, False),
        (PYTHON, [], 0.0, False),
        (Need("code", language="cobol"), [SILENT], 0.0, False),
        (Need("inference", model="small"), [SILENT], 4.0, True),
        (Need("inference", model="large"), [SILENT], 0.0, False),
        (Need("inference", model="small", devices="local"), [SILENT], 0.0, False),
    ],
)
def test_who_could_and_is_silent_is_waited_for_and_not_for_long(
    need: Need, candidates: list[Candidate], waited_s: float, *, is_worth: bool
) -> None:
    assert is_worth_a_wait(need, candidates, waited_s, 60.0) == is_worth


@pytest.mark.parametrize(
    ("need", "waited_s", "up_s", "is_worth"),
    [
        (PYTHON, 0.0, 0.0, True),
        (PYTHON, 4.0, 4.0, True),
        (PYTHON, 0.0, NEW_S, False),
        (PYTHON, MISSED_S, 1.0, False),
        (Need("inference", model="small", devices="local"), 0.0, 0.0, False),
    ],
)
def test_who_has_just_begun_waits_for_those_of_whom_it_has_not_heard(
    need: Need, waited_s: float, up_s: float, *, is_worth: bool
) -> None:
    assert is_worth_a_wait(need, [], waited_s, up_s) == is_worth


@pytest.mark.parametrize(
    ("losses", "gone_s", "may"),
    [
        (1, 0.0, True),
        (0, LOST_S / 2, True),  # another question's loss
        (0, inf, False),  # nobody was ever there
        (1, LOST_S, False),
        (LOSSES_MAX, 0.0, False),  # it may be what they die of
    ],
)
def test_who_was_lost_is_waited_for_a_while_but_not_for_a_question_that_loses_all(
    losses: int, gone_s: float, may: bool
) -> None:
    assert may_come_back(losses, gone_s) == may
