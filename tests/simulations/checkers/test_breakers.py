"""A peer that keeps failing, and is asked all the same, is seen; who finds out how it is may."""

from __future__ import annotations

from itertools import count

import pytest

from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Failed, Message, Refused
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked, CompletionDone
from simulations.checkers.breakers import OPEN_S_MIN, Breakers, breakers
from simulations.menu import Fault
from simulations.places import Part
from simulations.witness import Witness
from tests.protocol.examples import EXAMPLES
from tests.simulations.looking import broken, said, witness_of

BACKEND = Failed(code="backend", detail="status 500")
DONE = EXAMPLES["inference/completion-done"]
assert isinstance(DONE, CompletionDone)


class Asking:
    """Node 0 asks; nodes 1 to 4 have models."""

    def __init__(self) -> None:
        self.witness: Witness = witness_of()
        self.checker = Breakers(self.witness, [1, 2, 3, 4])
        self.numbers = count()

    def ask(self, peer: int, at_s: float, text: str | None = None) -> int:
        number = next(self.numbers)
        asked = (ChatMessage(role="user", content=text or f"question {number}"),)
        call = CompletionAsked(
            task=TaskId("task"), term=1, model="m", messages=asked, remaining_s=9.0
        )
        self.checker.said(said(call, hearer=peer, request=number, own_s=at_s))
        return number

    def hear(self, number: int, peer: int, reply: Message, at_s: float) -> None:
        self.checker.heard(
            said(reply, speaker=peer, hearer=0, request=number, own_s=at_s, by_asker=False)
        )

    def fail(self, peer: int, times: int, at_s: float = 1.0) -> None:
        for _ in range(times):
            self.hear(self.ask(peer, at_s), peer, BACKEND, at_s)


@pytest.fixture
def asking() -> Asking:
    return Asking()


def test_who_failed_three_times_is_asked_again_and_again(asking: Asking) -> None:
    asking.fail(1, 3)
    for _ in range(2):
        asking.ask(1, 1.1)
    assert not broken(asking.witness)
    asking.ask(1, 1.2)
    assert broken(asking.witness) == ["breaker_opens"]


def test_once_in_a_while_is_to_find_out(asking: Asking) -> None:
    asking.fail(1, 3)
    for number in range(1, 9):
        asking.ask(1, 1.0 + number * OPEN_S_MIN)
    assert asking.witness.evaluated["breaker_opens"] == 8
    assert not broken(asking.witness)


@pytest.mark.parametrize("reply", [DONE, Refused(reason="busy", detail="")])
def test_who_answers_between_is_asked_as_before(asking: Asking, reply: Message) -> None:
    asking.fail(1, 2)
    asking.hear(asking.ask(1, 1.0), 1, reply, 1.0)
    asking.fail(1, 2, at_s=1.1)
    for _ in range(9):
        asking.ask(1, 1.2)
    assert not asking.witness.evaluated


def test_a_failure_of_a_call_that_was_sent_before_a_success_is_none_in_a_row(
    asking: Asking,
) -> None:
    early = [asking.ask(1, 1.0) for _ in range(9)]
    asking.hear(asking.ask(1, 1.1), 1, DONE, 1.2)
    for number in early:
        asking.hear(number, 1, BACKEND, 1.3)
    asking.ask(1, 1.4)
    assert not asking.witness.evaluated


def test_where_half_of_all_fail_they_are_asked(asking: Asking) -> None:
    asking.fail(1, 3)
    asking.fail(2, 1)
    for _ in range(9):
        asking.ask(1, 1.1)
    assert not asking.witness.evaluated
    for _ in range(5):
        asking.hear(asking.ask(2, 1.2), 2, DONE, 1.2)
    asking.ask(1, 1.2)
    assert asking.witness.evaluated["breaker_opens"] == 1


def test_what_failed_elsewhere_goes_where_it_can(asking: Asking) -> None:
    asking.fail(1, 3)
    asking.ask(2, 1.0, "a question")
    for _ in range(9):
        asking.ask(1, 1.1, "a question")
    assert not asking.witness.evaluated


def test_who_says_that_the_question_was_bad_is_well(asking: Asking) -> None:
    bad = Failed(code="bad_request", detail="too long")
    for _ in range(3):
        asking.hear(asking.ask(1, 1.0), 1, bad, 1.0)
    asking.ask(1, 1.1)
    assert not asking.witness.evaluated


def test_only_where_nobody_is_lost_and_found_again() -> None:
    witness, parts = witness_of(), [Part(), Part(models=("m",))]
    errs = Fault("model-errs", 1.0, 1.0, (1,), 0.5)
    assert breakers(witness, [errs], parts)
    assert not breakers(witness, [errs, Fault("crash", 1.0, 1.0, (1,), 0.5)], parts)
