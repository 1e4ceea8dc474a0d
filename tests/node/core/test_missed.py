"""When nobody can for a moment, and when nobody can."""

from __future__ import annotations

from math import inf

import pytest

from kowalski.mesh.core.placement import Candidate, Need
from kowalski.node.core.missed import (
    COMING_S,
    LOOK_AGAIN_S,
    LOOK_S,
    LOSSES_MAX,
    LOST_S,
    MISSED_S,
    NEW_S,
    No,
    Patience,
    Presence,
    Wait,
    is_somebody_missed,
    is_worth_a_wait,
    may_come_back,
    wait_to_open,
)
from kowalski.protocol.messages.task import Failover
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


def test_who_has_failed_already_is_not_missed() -> None:
    assert is_somebody_missed(PYTHON, [SILENT, BASH_ONLY])
    assert not is_somebody_missed(PYTHON, [SILENT, BASH_ONLY], failed={SILENT.peer})


@pytest.mark.parametrize(
    ("need", "waited_s", "here_s", "is_worth"),
    [
        (PYTHON, 0.0, 0.0, True),
        (PYTHON, 4.0, 4.0, True),
        (PYTHON, 0.0, NEW_S, False),
        (PYTHON, MISSED_S, 1.0, False),
        (Need("inference", model="small", devices="local"), 0.0, 0.0, False),
    ],
)
def test_who_has_just_begun_waits_for_those_of_whom_it_has_not_heard(
    need: Need, waited_s: float, here_s: float, *, is_worth: bool
) -> None:
    assert is_worth_a_wait(need, [], waited_s, here_s) == is_worth


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


NOBODY = No("no_peer", are_lost=False)
LOST = No("peers_failed", are_lost=True)
FAILED = No("peers_failed", are_lost=False)
REFUSED = No("too_long", are_lost=False)

A_MOMENT = Wait(LOOK_S, is_told=False)
A_WHILE = Wait(LOOK_AGAIN_S, is_told=True)


@pytest.mark.parametrize(
    ("no", "failover", "is_missed", "gone_s", "wait"),
    [
        (NOBODY, "redistribute", True, inf, A_MOMENT),
        (NOBODY, "fail", True, inf, A_MOMENT),
        (NOBODY, "redistribute", False, inf, None),
        (NOBODY, "redistribute", False, 1.0, A_WHILE),
        (NOBODY, "fail", False, 1.0, None),
        (NOBODY, "queue", False, inf, A_WHILE),
        (LOST, "redistribute", False, 0.0, A_WHILE),
        (LOST, "redistribute", False, LOST_S, None),
        (LOST, "fail", False, 0.0, None),
        (FAILED, "redistribute", True, 0.0, None),
        (FAILED, "queue", False, inf, A_WHILE),
        (REFUSED, "queue", True, 0.0, None),
    ],
)
def test_a_question_waits_for_who_may_be_back_and_as_its_task_wishes(
    no: No, failover: Failover, gone_s: float, wait: Wait | None, *, is_missed: bool
) -> None:
    patience = Patience(began=0.0)
    assert patience.after(no, failover=failover, is_missed=is_missed, gone_s=gone_s) == wait


def test_a_question_of_which_all_were_lost_so_often_waits_no_more() -> None:
    patience = Patience(began=0.0)
    waits = [
        patience.after(LOST, failover="redistribute", is_missed=False, gone_s=0.0)
        for _ in range(LOSSES_MAX)
    ]
    assert waits == [*[A_WHILE] * (LOSSES_MAX - 1), None]


@pytest.mark.parametrize(
    ("no", "now", "here_since", "wait"),
    [
        (NOBODY, 101.0, 0.0, A_MOMENT),  # who could is silent
        (NOBODY, 110.0, 0.0, None),  # for too long, and nobody was ever there
        (NOBODY, 101.0, 100.5, A_MOMENT),
        (LOST, 110.0, 0.0, A_WHILE),
        (FAILED, 101.0, 0.0, None),
    ],
)
def test_work_waits_for_who_is_silent_and_for_who_was_lost(
    no: No, now: float, here_since: float, wait: Wait | None
) -> None:
    told = Presence().wait_after(
        no,
        "python",
        Patience(began=100.0),
        need=PYTHON,
        candidates=[SILENT],
        failover="redistribute",
        now=now,
        here_since=here_since,
    )
    assert told == wait


def test_who_was_lost_is_waited_for_until_it_is_gone_for_too_long() -> None:
    presence, patience = Presence(), Patience(began=0.0)

    def waits(no: No, now: float) -> Wait | None:
        return presence.wait_after(
            no,
            "python",
            patience,
            need=PYTHON,
            candidates=[],
            failover="redistribute",
            now=now,
            here_since=-inf,
        )

    assert waits(LOST, 100.0) == waits(NOBODY, 100.0 + LOST_S / 2) == A_WHILE
    assert waits(NOBODY, 100.0 + LOST_S) is None


def test_who_has_one_model_says_nothing_of_another() -> None:
    presence = Presence()
    presence.saw("small", 5.0)
    assert presence.gone_s("small", 7.0) == 2.0
    assert presence.gone_s("large", 7.0) == inf


def test_who_is_only_heard_of_is_waited_for_no_longer_than_who_was_lost() -> None:
    presence, patience = Presence(), Patience(began=0.0)

    def wait_at(now: float) -> Wait | None:
        return presence.wait_after(
            NOBODY,
            "python",
            patience,
            need=PYTHON,
            candidates=[],
            failover="redistribute",
            now=now,
            here_since=-inf,
            gone_s=1.0,
        )

    assert wait_at(LOST_S - 1.0) == A_WHILE
    assert wait_at(LOST_S) is None


@pytest.mark.parametrize(
    ("code", "failover", "waited_s", "is_missed", "wait"),
    [
        ("no_language", "fail", 0.0, False, A_MOMENT),  # somebody may only just come
        ("no_model", "queue", COMING_S - 0.1, True, A_MOMENT),
        ("no_language", "redistribute", COMING_S, True, A_WHILE),
        ("no_model", "redistribute", LOST_S - 0.1, True, A_WHILE),
        ("no_language", "redistribute", COMING_S, False, None),
        ("no_language", "redistribute", LOST_S, True, None),  # it is heard of, and never comes
        ("no_language", "fail", COMING_S, True, None),
        ("no_language", "queue", COMING_S, True, None),
        ("too_long", "redistribute", 0.0, True, None),  # nobody who comes could change it
    ],
)
def test_a_session_that_cannot_open_waits_for_who_comes_and_for_who_was_here(
    code: str, failover: Failover, waited_s: float, *, is_missed: bool, wait: Wait | None
) -> None:
    assert wait_to_open(code, failover, waited_s, is_missed=is_missed) == wait
