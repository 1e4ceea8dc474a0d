"""Model calls, with and without a task behind them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
    EmbeddingsAsked,
    EmbeddingsPiece,
    Sampling,
    Usage,
)

QUESTION = (ChatMessage(role="user", content="?"),)


def test_a_single_question_belongs_to_no_task() -> None:
    asked = CompletionAsked(model="qwen3:8b", messages=QUESTION, remaining_s=60)
    assert asked.task is None
    assert asked.term is None
    assert decode(encode(asked)) == asked


def test_a_window_of_a_hundred_thousand_tokens_is_one_frame() -> None:
    long = tuple(ChatMessage(role="user", content="word " * 10_000) for _ in range(10))
    assert decode(encode(CompletionAsked(model="m", messages=long, remaining_s=60)))


@pytest.mark.parametrize("temperature", [-0.1, 2.1, float("nan")])
def test_a_temperature_out_of_range_is_not_sent(temperature: float) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        CompletionAsked(model="m", messages=QUESTION, temperature=temperature, remaining_s=1)


def test_a_delta_is_small_so_that_others_on_the_stream_need_not_wait() -> None:
    assert len(encode(CompletionDelta(text="魚" * 5461))) < 17 * 1024
    with pytest.raises(ValidationError, match="text"):
        CompletionDelta(text="魚" * 5462)


def test_an_unknown_finish_reason_is_still_a_reply() -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    done = CompletionDone(model="m", finish_reason="moon_phase", usage=usage, held_s=1)
    assert decode(encode(done)) == done


def test_what_is_not_asked_for_weighs_nothing() -> None:
    """A prompt and a model are what nearly every call is."""
    asked = CompletionAsked(model="m", messages=QUESTION, remaining_s=60)
    assert len(encode(asked)) < 120


@pytest.mark.parametrize(
    "sampling",
    [{"stop": ("",)}, {"stop": ("a",) * 17}, {"seed": -1}, {"top_p": 1.01}, {"min_p": -0.1}],
)
def test_sampling_out_of_range_is_not_sent(sampling: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(sampling)


def test_a_thousand_short_texts_are_embedded_by_one_request() -> None:
    asked = EmbeddingsAsked(model="m", texts=("a short text",) * 1000, remaining_s=1)
    assert decode(encode(asked)) == asked


def test_eighty_vectors_of_a_large_model_fit_into_one_frame() -> None:
    piece = EmbeddingsPiece(vectors=bytes(80 * 1536 * 4))
    assert decode(encode(piece)) == piece
