"""Tables that go back, incarnations that nobody said, and verdicts for nothing are seen."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kowalski.mesh.core.failure_detector_events import MemberChanged
from kowalski.mesh.core.failure_detector_state import FailureDetector, new
from kowalski.mesh.core.membership import State
from simulations.checkers.members import Members
from simulations.witness import Witness
from tests.simulations.looking import PEERS, broken, witness_of


@dataclass
class Driver:
    state: FailureDetector
    machine: str = "kowalski.mesh.core.failure_detector"
    recorder: tuple[object, ...] = ()


@pytest.fixture
def witness() -> Witness:
    return witness_of()


def hear(members: Members, state: State, incarnation: int, *, observer: int = 0) -> None:
    """One node comes to think this of the second one."""
    driver = Driver(new(PEERS[observer], 1))
    change = MemberChanged(PEERS[1], None, state, incarnation)
    members.stepped(observer, driver, None, (change,))


def exist(members: Members, number: int, incarnation: int) -> None:
    members.stepped(number, Driver(new(PEERS[number], incarnation)), None, ())


def test_a_table_that_only_goes_up_is_fine(witness: Witness) -> None:
    members = Members(witness)
    exist(members, 1, 2)
    for state, incarnation in (("alive", 1), ("suspect", 1), ("alive", 2), ("failed", 2)):
        hear(members, state, incarnation)  # type: ignore[arg-type]
    hear(members, "alive", 1, observer=2)
    assert not broken(witness)
    assert witness.evaluated["membership_monotone"] == 5


@pytest.mark.parametrize(("state", "incarnation"), [("alive", 1), ("suspect", 1), ("failed", 0)])
def test_who_was_given_up_is_not_raised_by_old_news(
    witness: Witness, state: State, incarnation: int
) -> None:
    members = Members(witness)
    hear(members, "failed", 1)
    hear(members, state, incarnation)
    assert broken(witness) == ["membership_monotone"]


def test_a_new_process_believes_what_it_hears(witness: Witness) -> None:
    members = Members(witness)
    hear(members, "failed", 1)
    members.began(0)
    hear(members, "alive", 1)
    assert not broken(witness)


def test_an_incarnation_that_nobody_took_is_seen(witness: Witness) -> None:
    members = Members(witness)
    exist(members, 1, 3)
    hear(members, "alive", 4)
    assert broken(witness) == ["incarnation_is_its_own"]


def test_who_starts_again_is_met_before_it_has_said_anything(witness: Witness) -> None:
    members = Members(witness)
    exist(members, 1, 3)
    members.began(1)
    hear(members, "alive", 4)
    assert not broken(witness)


@pytest.mark.parametrize("is_quiet", [True, False])
def test_a_verdict_needs_a_fault(witness: Witness, *, is_quiet: bool) -> None:
    members = Members(witness)
    hear(members, "failed", 1)
    members.check_all(is_quiet=is_quiet)
    assert bool(broken(witness)) == is_quiet
