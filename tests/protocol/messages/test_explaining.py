"""Reasons as they travel: what may be left out, and what fits a frame."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.explaining import (
    CANDIDATES_MAX,
    CandidateTold,
    DecisionTold,
    ExplainAsked,
    Explained,
)
from tests.protocol.examples import TASK

LONG = "\U0001f9d0" * 1024  # four bytes a character


def test_a_question_need_not_know_whose_task_it_is() -> None:
    assert ExplainAsked(task=TASK).submitter is None
    assert decode(encode(Explained(task=TASK))) == Explained(task=TASK)


def test_as_many_candidates_as_may_be_told_fit_a_frame_with_all_their_words() -> None:
    candidates = [
        CandidateTold(peer=PeerId("1" * 64), name=LONG[:128], why=LONG, refused=LONG, score=1.0)
        for _ in range(CANDIDATES_MAX)
    ]
    told = DecisionTold(age_s=0, kind="code", way="offers", why=LONG, candidates=tuple(candidates))
    assert len(encode(told)) < FRAME_BYTES_MAX
    with pytest.raises(ValidationError):
        told.model_validate({**told.model_dump(), "candidates": [*candidates, candidates[0]]})


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 1e12])
def test_a_score_that_is_no_number_is_no_score(score: float) -> None:
    with pytest.raises(ValidationError):
        CandidateTold(peer=PeerId("1" * 8), why="", score=score)
