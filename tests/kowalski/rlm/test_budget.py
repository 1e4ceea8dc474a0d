from __future__ import annotations

import pytest

from kowalski.protocol.codec import encode
from kowalski.protocol.ids import content_hash
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.journal import (
    ChildHappened,
    ModelFailed,
    ModelReplied,
    Opened,
    SessionEvent,
    SubCallAnswered,
)
from kowalski.protocol.messages.task import Budget, TaskSpec
from kowalski.rlm import budget
from kowalski.rlm.budget import NOTHING, Over, Spent
from tests.kowalski.rlm.session_world import PEER, finished, folded

USAGE = Usage(prompt_tokens=10, completion_tokens=2)


def spec(timeout_s: float = 60.0, **limits: int) -> TaskSpec:
    return TaskSpec(prompt="?", max_iterations=5, timeout_s=timeout_s, budget=Budget(**limits))


def replied(attempts: int = 1, duration_s: float = 0.5) -> ModelReplied:
    return ModelReplied(
        call=0, text="", model="m", peer=PEER, usage=USAGE, attempts=attempts, duration_s=duration_s
    )


def sub_call(**more: object) -> SubCallAnswered:
    given = {"cell": 0, "ordinal": 0, "prompt": content_hash(b"?"), "text": "", **more}
    return SubCallAnswered.model_validate(given)


def child(*events: SessionEvent) -> list[SessionEvent]:
    return [ChildHappened(cell=0, ordinal=0, event=encode(event)) for event in events]


def after(*events: SessionEvent) -> Spent:
    spent = NOTHING
    for event in events:
        spent = budget.added(spent, event)
    return spent


def test_a_call_counts_once_and_its_attempts_as_often_as_models_were_asked() -> None:
    spent = after(replied(attempts=3), ModelFailed(call=1, code="x", detail="", attempts=2))
    assert (spent.calls, spent.attempts) == (2, 5)
    assert (spent.prompt_tokens, spent.completion_tokens, spent.tokens) == (10, 2, 12)
    assert spent.seconds == 0.5


def test_a_sub_call_of_a_model_counts_and_one_that_is_repeated_does_not() -> None:
    spent = after(
        sub_call(attempts=1, usage=USAGE),
        sub_call(is_repeated=True),
        sub_call(kind="unfold"),
        sub_call(attempts=3, text=None, error="gone", code="peers_failed"),
    )
    assert (spent.sub_calls, spent.calls, spent.attempts, spent.repeated) == (4, 2, 4, 1)
    assert spent.tokens == 12


def test_what_a_child_uses_is_counted_once_as_it_happens_and_not_again_at_its_end() -> None:
    grandchild = child(Opened(mode="rlm", model="m"), replied())
    spent = after(
        *child(Opened(mode="rlm", model="m"), replied(attempts=2), *grandchild, finished(0)),
        sub_call(kind="rlm", usage=Usage(prompt_tokens=20, completion_tokens=4)),
    )
    assert (spent.children, spent.calls, spent.attempts, spent.tokens) == (2, 2, 3, 24)
    assert spent.cells == 1
    assert spent.seconds == 0, "the cell that waits for the child has its time"


def test_what_a_newer_peer_says_of_a_child_is_passed_over() -> None:
    assert after(ChildHappened(cell=0, ordinal=0, event=b"\x00")) == NOTHING


def test_folds_are_counted_with_what_they_saved() -> None:
    spent = after(folded("x" * 400, 100))
    assert (spent.folds, spent.source_tokens, spent.folded_tokens) == (1, 100, 5)


def test_without_limits_nothing_is_ever_over() -> None:
    spent = Spent(calls=10**6, prompt_tokens=10**9)
    assert budget.over(spec(), spent, in_flight=1000) is None
    assert budget.in_words(spec(), spent) == ""


@pytest.mark.parametrize(
    ("calls", "in_flight", "kept", "is_over"),
    [(9, 0, 0, False), (10, 0, 0, True), (8, 1, 0, False), (8, 2, 0, True), (8, 0, 1, False),
     (9, 0, 1, True), (8, 1, 1, True)],
)  # fmt: skip
def test_calls_that_were_begun_or_are_kept_are_nobody_elses(
    calls: int, in_flight: int, kept: int, *, is_over: bool
) -> None:
    over = budget.over(spec(calls=10), Spent(calls=calls), in_flight=in_flight, kept=kept)
    assert over == (Over("calls", "10 model calls are used up") if is_over else None)


def test_tokens_are_over_once_they_are_used() -> None:
    limit = spec(tokens=100)
    assert budget.over(limit, Spent(prompt_tokens=90, completion_tokens=9)) is None
    over = budget.over(limit, Spent(prompt_tokens=90, completion_tokens=40))
    assert over == Over("tokens", "100 tokens are used up")


def test_the_model_is_told_what_is_scarce() -> None:
    spent = Spent(calls=4, prompt_tokens=300, seconds=20)
    assert budget.in_words(spec(calls=10, tokens=1000), spent) == (
        " Left: 6 of 10 model calls, 700 of 1000 tokens."
    )
    assert budget.in_words(spec(calls=2), spent) == " Left: 0 of 2 model calls."
    late = Spent(seconds=45)
    assert budget.in_words(spec(timeout_s=60.0), late) == " Left: about 15 of 60 seconds."
