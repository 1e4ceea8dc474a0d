"""What a piece of work is expected to take."""

from __future__ import annotations

import pytest

from kowalski.node.core.job import (
    COMPLETION_TOKENS,
    COST_S,
    WORKS_MAX,
    Job,
    Speeds,
    Usual,
    is_done,
    job_of,
    request_of,
)
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Cancel
from kowalski.protocol.messages.folding import FoldAsked
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionAsked,
    CompletionDone,
    TokensAsked,
    TokensCounted,
    Usage,
)
from kowalski.protocol.messages.placement import Claim, OfferAsked
from kowalski.protocol.messages.repl import CellAsked, SessionClosed

PYTHON = Job("code", language="python")
CHAT = Job("inference", model="m", prompt_tokens=1000)
CLAIM = Claim(priority="batch")


def done(tokens: int) -> CompletionDone:
    usage = Usage(prompt_tokens=1, completion_tokens=tokens)
    return CompletionDone(model="m", finish_reason="stop", usage=usage, held_s=0.0)


def test_all_languages_share_a_lane_and_every_model_has_its_own() -> None:
    assert PYTHON.lane == Job("code", language="bash").lane == "code"
    assert CHAT.lane == "inference m"
    assert Job("folding").lane == "folding"


def test_counting_tokens_has_a_lane_of_its_own_and_learns_nothing_about_the_model() -> None:
    request = request_of(TokensAsked(model="m", texts=("a text",), remaining_s=3.0))
    assert request is not None
    job = request.job
    assert (job.lane, job.need, request.remaining_s) == ("counting", CHAT.need, 3.0)
    told = TokensCounted(model="m", counts=(2,), held_s=0.1)
    assert is_done(told)
    usual = Usual().learn(job, 9.0, told)
    assert usual.cost(Job("counting", model="other"), Speeds()).seconds == 9.0
    assert usual.cost(CHAT, Speeds()) == Usual().cost(CHAT, Speeds())


def test_work_never_done_here_takes_the_usual_time_of_its_kind() -> None:
    assert Usual().cost(PYTHON, Speeds()).seconds == COST_S["code"]
    assert Usual().cost(Job("inference", model="m"), Speeds()).seconds == COST_S["inference"]


def test_work_takes_what_it_took_lately_each_language_for_itself() -> None:
    usual = Usual().learn(PYTHON, 4.0, Cancel())
    assert usual.cost(PYTHON, Speeds()).seconds == 4.0
    assert usual.learn(PYTHON, 9.0, Cancel()).cost(PYTHON, Speeds()).seconds == 6.5
    assert usual.cost(Job("code", language="bash"), Speeds()).seconds == COST_S["code"]


def test_one_long_job_among_many_does_not_make_its_worker_look_slow() -> None:
    usual = Usual()
    for _ in range(30):
        usual = usual.learn(PYTHON, 1.0)
    assert usual.learn(PYTHON, 11.0).cost(PYTHON, Speeds()).seconds == pytest.approx(1.5)


def test_a_worker_that_has_become_slow_says_so_after_some_jobs() -> None:
    usual = Usual()
    for took_s in (1.0,) * 30 + (10.0,) * 30:
        usual = usual.learn(PYTHON, took_s)
    assert usual.cost(PYTHON, Speeds()).seconds > 7.5


def test_a_model_call_takes_what_its_tokens_take() -> None:
    cost = Usual().cost(CHAT, Speeds(generation=64.0, prompt=500.0))
    assert cost.seconds == pytest.approx(2.0 + COMPLETION_TOKENS / 64.0)
    assert cost.saved_s == 0.0
    few = Job("inference", model="m", prompt_tokens=1000, max_tokens=32)
    assert Usual().cost(few, Speeds(64.0, 500.0)).seconds == pytest.approx(2.5)


def test_a_cached_beginning_need_not_be_read_again() -> None:
    cost = Usual().cost(CHAT, Speeds(64.0, 500.0), cached_tokens=750)
    assert cost.saved_s == pytest.approx(1.5)
    assert cost.seconds == pytest.approx(0.5 + COMPLETION_TOKENS / 64.0)
    more_than_all = Usual().cost(CHAT, Speeds(64.0, 500.0), cached_tokens=5000)
    assert more_than_all.saved_s == pytest.approx(2.0)


def test_replies_are_expected_to_be_as_long_as_they_were() -> None:
    usual = Usual().learn(CHAT, 1.0, done(640))
    assert usual.cost(CHAT, Speeds(64.0, 500.0)).seconds == pytest.approx(12.0)


def test_no_more_kinds_of_work_are_remembered_than_fit() -> None:
    usual = Usual()
    for number in range(WORKS_MAX + 5):
        usual = usual.learn(Job("code", language=f"l{number}"), 1.0, Cancel())
    assert len(usual.seconds) == WORKS_MAX


def test_a_request_tells_its_job() -> None:
    cell = CellAsked(
        task=TaskId("t"),
        term=1,
        cell=0,
        language="python",
        code="1",
        timeout_s=5.0,
        remaining_s=9.0,
        claim=CLAIM,
    )
    asked = request_of(cell)
    assert asked is not None
    assert (asked.job, asked.claim, asked.remaining_s) == (PYTHON, CLAIM, 9.0)
    messages = (ChatMessage(role="system", content="x" * 400), ChatMessage(role="user", content=""))
    call = CompletionAsked(model="m", messages=messages, max_tokens=7, remaining_s=9.0)
    asked = request_of(call)
    assert asked is not None
    assert asked.job.lane == "inference m"
    assert asked.job.max_tokens == 7
    assert asked.job.prompt_tokens == 108
    assert len(asked.job.prefixes) == len(asked.prefixes) == 2
    fold = request_of(FoldAsked(text="x", budget_tokens=1, remaining_s=1.0))
    assert fold is not None
    assert fold.job == Job("folding")


def test_what_takes_no_slot_is_no_job() -> None:
    assert request_of(SessionClosed(task=TaskId("t"), term=1)) is None


def test_an_offer_is_asked_for_the_same_job() -> None:
    asked = OfferAsked(kind="inference", model="m", prompt_tokens=1000, remaining_s=1.0)
    assert job_of(asked) == CHAT
    assert job_of(OfferAsked(kind="dancing", remaining_s=1.0)) is None


def test_only_what_went_well_tells_how_long_such_work_takes() -> None:
    assert is_done(done(1))
    assert not is_done(Cancel())
