"""Work that is sent to the wrong peer, too late, or too often, is seen."""

from __future__ import annotations

import pytest

from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Message, Refused
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked, CompletionDone
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import CellAsked
from kowalski.protocol.messages.task import Grant, Renewal, TaskSpec
from kowalski.rlm.journal import GENESIS
from simulations.checkers.placements import (
    RETRIES_PER_S,
    WINDOW_S,
    Able,
    Deadlines,
    Probes,
    RetryBudgets,
)
from simulations.places import Part
from tests.protocol.examples import EXAMPLES
from tests.simulations.looking import PEERS, broken, said, witness_of

TASK = TaskId("task")
SPEC = TaskSpec(prompt="x", max_iterations=1, timeout_s=10.0)


def cell(*, language: str = "python", remaining_s: float = 1.0) -> CellAsked:
    return CellAsked(
        task=TASK,
        term=1,
        cell=0,
        language=language,
        code="x",
        keeps_session=True,
        timeout_s=1.0,
        remaining_s=remaining_s,
        claim=Claim(submitter=PEERS[1]),
    )


def call(text: str = "x", *, model: str = "m", remaining_s: float = 1.0) -> CompletionAsked:
    asked = (ChatMessage(role="user", content=text),)
    return CompletionAsked(task=TASK, term=1, model=model, messages=asked, remaining_s=remaining_s)


def grant(remaining_s: float) -> Grant:
    return Grant(
        task=TASK,
        term=1,
        spec=SPEC,
        prefix_entries=0,
        last_digest=GENESIS,
        lease_s=3.0,
        remaining_s=remaining_s,
    )


@pytest.mark.parametrize(
    ("message", "is_able"),
    [
        (cell(), True),
        (cell(language="cobol"), False),
        (call(), True),
        (call(model="other"), False),
        (grant(5.0), False),
        (EXAMPLES["folding/fold-asked"], False),
    ],
)
def test_work_for_who_has_never_offered_it(message: Message, *, is_able: bool) -> None:
    witness = witness_of()
    part = Part(models=("m",), roles=("repl", "infer"))
    Able(witness, [part, part]).said(said(message))
    assert broken(witness) == ([] if is_able else ["placed_with_the_able"])
    assert witness.evaluated["placed_with_the_able"] == 1


def test_what_is_sent_after_the_end_of_its_time_or_with_more_than_is_left() -> None:
    witness = witness_of()
    deadlines = Deadlines(witness)
    deadlines.heard(said(grant(5.0), speaker=1, hearer=0, own_s=10.0))
    deadlines.said(said(cell(remaining_s=4.9), own_s=10.1))
    assert not broken(witness)
    deadlines.said(said(cell(remaining_s=4.5), own_s=11.0))
    assert broken(witness) == ["time_left_shrinks"]
    deadlines.said(said(cell(remaining_s=0.0), own_s=15.5))
    assert broken(witness) == ["time_left_shrinks", "nothing_is_sent_too_late"]


def test_a_strangers_task_of_the_same_name_has_a_time_of_its_own() -> None:
    witness = witness_of()
    deadlines = Deadlines(witness)
    deadlines.heard(said(grant(5.0), speaker=1, hearer=0, own_s=10.0))
    deadlines.heard(said(grant(50.0), speaker=2, hearer=0, own_s=10.0, request=2))
    deadlines.said(said(cell(remaining_s=4.5), own_s=11.0))
    assert broken(witness) == ["time_left_shrinks"]


def test_a_renewal_may_give_more_time_and_a_new_process_was_told_nothing() -> None:
    witness = witness_of()
    deadlines = Deadlines(witness)
    deadlines.heard(said(grant(5.0), speaker=1, hearer=0))
    renewal = Renewal(task=TASK, term=1, lease_s=3.0, remaining_s=9.0)
    deadlines.heard(said(renewal, speaker=1, hearer=0))
    deadlines.said(said(cell(), own_s=8.0))
    assert not broken(witness)
    deadlines.began(0)
    deadlines.said(said(cell(), own_s=80.0))
    assert not broken(witness)


def test_calls_that_are_sent_again_and_again() -> None:
    witness = witness_of()
    budgets = RetryBudgets(witness)
    free = int(RETRIES_PER_S * (WINDOW_S + 1)) + 2
    for number in range(free + 1):
        budgets.said(said(call(), request=number))
    assert not broken(witness)
    budgets.said(said(call(), request=99))
    assert broken(witness) == ["retry_budget"]


def test_who_was_full_or_has_answered_is_no_retry_and_old_ones_are_forgotten() -> None:
    witness = witness_of()
    budgets = RetryBudgets(witness)
    done = EXAMPLES["inference/completion-done"]
    assert isinstance(done, CompletionDone)
    for number, reply in enumerate([Refused(reason="busy", detail=""), done] * 20):
        budgets.said(said(call(), request=number))
        answer = said(reply, speaker=1, hearer=0, request=number, by_asker=False)
        budgets.said(answer)
    for number in range(100, 130):
        budgets.said(said(call())._replace(request=number, own_s=2.0 * number))
    assert not broken(witness)


def test_two_probes_of_one_breaker() -> None:
    witness = witness_of()
    probes = Probes(witness)
    probes.said(said(call()))
    assert not witness.evaluated
    probes.under_way = lambda _number: [(PEERS[1], "inference"), (PEERS[1], "code")]
    probes.said(said(call()))
    assert not broken(witness)
    probes.under_way = lambda _number: [(PEERS[1], "inference")] * 2
    probes.said(said(call()))
    assert broken(witness) == ["one_probe_half_open"]
