"""What to do next about one piece of work."""

from __future__ import annotations

import pytest

from kowalski.mesh.core.decisions import Decision
from kowalski.mesh.core.offers import Refusal
from kowalski.mesh.core.placement import Need, Ranking, rank
from kowalski.node.core.missed import MISSED_S
from kowalski.node.core.tries import ATTEMPTS_MAX, BUSY_WAIT_S_MAX, Tries
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from tests.mesh.core.test_placement import PYTHON, candidate

A, B = PeerId("peer-a"), PeerId("peer-b")
BROKEN = RequestFailedError("backend", "it died")


def test_the_wait_for_the_busy_grows_to_a_bound() -> None:
    tries = Tries()
    waits = []
    for _ in range(6):
        tries.add(A, "a", RequestRefusedError("busy"))
        assert tries.may_wait
        waits.append(tries.wait_s())
        assert not tries.excluded
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_the_first_to_have_room_is_waited_for_as_long_as_it_said() -> None:
    tries = Tries()
    tries.add(A, "a", RequestRefusedError("busy", "", 0.4))
    tries.add(B, "b", RequestRefusedError("busy", "", 0.3))
    assert tries.wait_s(0.0) == pytest.approx(0.3)
    tries.add(A, "a", RequestRefusedError("busy", "", 0.4))
    assert tries.wait_s(1.0) == pytest.approx(0.6), "spread"
    tries.add(A, "a", RequestRefusedError("busy", "", 60.0))
    assert tries.wait_s(0.0) == BUSY_WAIT_S_MAX, "somebody may leave early"


def test_full_is_not_broken() -> None:
    tries = Tries()
    for _ in range(10):
        tries.add(A, "a", RequestRefusedError("paused", "on battery"))
    assert tries.is_full
    assert not tries.are_too_many
    assert tries.number == 1


def test_after_three_that_failed_it_is_enough() -> None:
    tries = Tries()
    for number in range(ATTEMPTS_MAX):
        assert not tries.are_too_many
        tries.add(PeerId(f"peer{number}"), f"n{number}", BROKEN)
    assert tries.are_too_many
    outcome = tries.outcome("")
    assert isinstance(outcome, RequestFailedError)
    assert outcome.code == "peers_failed"
    assert str(outcome).count("it died") == ATTEMPTS_MAX


@pytest.mark.parametrize(
    ("are_patient", "is_missed", "waited_s", "are_worth_it"),
    [
        (True, True, 0.0, True),
        (True, True, MISSED_S, False),
        (True, False, 0.0, False),
        (False, True, 0.0, False),
    ],
)
def test_the_patient_wait_a_while_for_who_is_only_silent(
    *, are_patient: bool, is_missed: bool, waited_s: float, are_worth_it: bool
) -> None:
    assert (
        Tries(are_patient).are_worth_a_wait(waited_s, is_somebody_missed=is_missed) == are_worth_it
    )


def test_the_pause_before_another_peer_is_a_part_of_a_bound_that_doubles() -> None:
    tries = Tries()
    tries.add(A, "a", BROKEN)
    assert tries.pause_s(0.5) == pytest.approx(0.05)
    tries.add(B, "b", PeerUnreachableError("gone"))
    assert tries.pause_s(0.5) == pytest.approx(0.1)


def test_refusals_of_offers_are_those_of_full_peers() -> None:
    ranking: Ranking = rank(PYTHON, [candidate("one")])
    (choice,) = ranking.choices
    refusals = {choice.peer: Refusal("busy: full", 0.2), B: Refusal("busy: full")}
    decision = Decision(
        0.0, Need("code"), "offers", ranking, None, "", refusals=refusals, retry_after_s=0.2
    )
    tries = Tries()
    tries.add_refusals(decision)
    assert tries.busy == {choice.peer, B}
    assert tries.complaint.startswith("peer-b: busy")
    assert tries.wait_s(0.0) == pytest.approx(0.2)


def test_where_nobody_was_tried_nobody_can() -> None:
    outcome = Tries().outcome("no peer runs cobol")
    assert isinstance(outcome, RequestRefusedError)
    assert (outcome.reason, outcome.detail) == ("no_peer", "no peer runs cobol")
