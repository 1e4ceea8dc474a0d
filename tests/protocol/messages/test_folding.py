"""A text to fold travels inside the message, or by hash."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from tests.protocol.examples import REF


@pytest.mark.parametrize("character", ["x", "魚"])
def test_the_longest_text_goes_there_and_back_in_one_frame(character: str) -> None:
    text = character * (TEXT_BYTES_MAX // len(character.encode()))
    asked = FoldAsked(text=text, budget_tokens=1, remaining_s=1)
    done = FoldDone(text=text, source_tokens=2, tokens=1, algorithm="density", held_s=0.1)
    assert decode(encode(asked)) == asked
    assert decode(encode(done)) == done


def test_a_hundred_megabytes_weigh_as_little_as_their_hash() -> None:
    asked = FoldAsked(content=REF, budget_tokens=1000, remaining_s=60)
    assert len(encode(asked)) < 400


def test_nothing_cannot_be_kept() -> None:
    with pytest.raises(ValidationError, match="budget_tokens"):
        FoldAsked(text="x", budget_tokens=0, remaining_s=1)
