"""Cells, their output and what they ask of the outside."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.limits import CODE_BYTES_MAX, OUTPUT_CHARS_SHOWN, TEXT_BYTES_MAX
from kowalski.protocol.messages.repl import (
    AnswerVariable,
    CellAsked,
    CellDone,
    CellOutput,
    SubCall,
)
from tests.protocol.examples import INPUTS, REF, TASK


def test_the_largest_cell_with_a_long_past_is_one_frame() -> None:
    asked = CellAsked(
        task=TASK,
        term=1,
        cell=10_000,
        language="python",
        code="魚" * (CODE_BYTES_MAX // 3),
        inputs=INPUTS * 256,
        after=tuple(range(10_000)),
        timeout_s=30,
        remaining_s=600,
    )
    assert decode(encode(asked)) == asked


def test_a_cell_without_a_past_keeps_its_session_unless_told_otherwise() -> None:
    asked = CellAsked(
        task=TASK, term=1, cell=0, language="bash", code="", timeout_s=1, remaining_s=1
    )
    assert asked.keeps_session
    assert asked.after == ()


def test_output_cut_to_what_is_shown_and_the_longest_answer_are_one_frame() -> None:
    shown = "🐋" * OUTPUT_CHARS_SHOWN
    done = CellDone(
        task=TASK,
        cell=1,
        status="ok",
        stdout=shown,
        stderr=shown,
        stdout_bytes=10**9,
        stderr_bytes=10**9,
        full=REF,
        value=shown,
        error=shown,
        answer=AnswerVariable(content="x" * TEXT_BYTES_MAX, is_ready=False),
        is_session_alive=True,
        duration_s=1,
        held_s=1,
    )
    assert decode(encode(done)) == done


def test_output_may_be_any_bytes() -> None:
    output = CellOutput(stream="stdout", data=bytes(range(256)) * 256)
    assert decode(encode(output)) == output
    with pytest.raises(ValidationError, match="data"):
        CellOutput(stream="stdout", data=output.data + b"!")


def test_a_sub_call_of_an_unknown_kind_is_read_so_that_it_can_be_answered() -> None:
    assert SubCall(kind="telepathy", prompt="?").kind == "telepathy"
    assert SubCall(prompt="?").kind == "llm"
