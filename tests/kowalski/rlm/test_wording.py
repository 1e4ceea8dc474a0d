from __future__ import annotations

import pytest

from kowalski.protocol.messages.journal import Opened
from kowalski.rlm import session, wording
from kowalski.rlm.session_state import Cell, CellResult, InputText, Running, Session, SessionLimits
from tests.kowalski.rlm.session_world import LIMITS, spec


def opened(
    prompt: str, *inputs: str, texts: tuple[InputText, ...] = (), limits: SessionLimits = LIMITS
) -> Session:
    fresh = session.new_session(spec(prompt, inputs=inputs), limits=limits, inputs=texts)
    return session.replay(fresh, [Opened(mode="rlm", model="m")])


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        ("42", "42"),
        ("<think>hm</think>42", "42"),
        ("\n <thinking>\nhm\n</thinking>\n\n42", "\n\n42"),
        ("<think>hm", ""),
        ("first <think>hm</think>", "first <think>hm</think>"),
        ("<think>a</think>b<think>c</think>", "b<think>c</think>"),
        ("", ""),
    ],
)
def test_only_the_thinking_before_a_reply_is_dropped(reply: str, rest: str) -> None:
    assert wording.spoken(reply) == rest


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (CellResult("ok", "4\n"), "4"),
        (CellResult("ok", ""), "(no output)"),
        (CellResult("error", "boom\n"), "boom\n[ended with an error]"),
        (CellResult("timeout", ""), "[stopped: it took too long]"),
        (
            CellResult("not_run", "no peer runs js", code="unsupported"),
            "[not run: no peer runs js]",
        ),
    ],
)
def test_a_cell_shows_its_output_and_a_bad_end(result: CellResult, shown: str) -> None:
    assert wording.shown(result, LIMITS) == shown


def test_a_lost_session_is_always_told() -> None:
    result = CellResult("ok", "bye", is_session_alive=False)
    assert "the session began anew" in wording.shown(result, LIMITS)


def test_output_is_cut_at_both_limits() -> None:
    limits = SessionLimits(output_chars=1000, outputs_chars=2500)
    cells = tuple(Cell(number, "python", "x\n", number) for number in range(9))
    results = tuple(CellResult("ok", "y" * 5000) for _ in cells)
    running = Running("", False, cells, results)
    assert all(len(output) <= 1000 for output in wording.outputs_by_block(running, limits).values())
    told = wording.outputs_of_turn(running, limits)
    assert len(told) <= 2500
    assert "characters left out" in told


def test_outputs_come_in_the_order_of_the_blocks() -> None:
    cells = (Cell(0, "python", "x\n", 0), Cell(1, "js", "y\n", 2))
    running = Running("", False, cells, (CellResult("ok", "X"), None), ((1, "too long"),))
    assert wording.outputs_of_turn(running, LIMITS) == (
        "Output of block 1 (python):\nX\n\nOutput of block 2:\n[not run: too long]"
    )


def test_one_input_is_described_with_its_beginning() -> None:
    texts = (InputText("a.txt", "x" * 1000, is_whole=False),)
    said = wording.question(opened("?", "a.txt", texts=texts))
    assert "`context` is a str, 10000000 bytes, from a.txt.\nIt begins:\n" + "x" * 400 in said
    assert "x" * 401 not in said


def test_without_inputs_the_prompt_is_described_as_the_data() -> None:
    said = wording.question(opened("Count the words."))
    assert "`context` is a str, 16 bytes, from prompt.\nIt begins:\nCount the words." in said


def test_several_inputs_are_a_dict() -> None:
    texts = (InputText("a", 'say "a"\n', is_whole=True),)
    said = wording.question(opened("?", "a", "b", texts=texts))
    assert "`context` is a dict from name to str, with 2 entries:" in said
    assert "- a: 10000000 bytes, begins: 'say \"a\"\\n'\n- b: 10000000 bytes\n" in said


def test_of_very_many_inputs_a_part_is_named() -> None:
    said = wording.question(opened("?", *(f"file-{number}" for number in range(100))))
    assert "with 100 entries:" in said
    assert "- file-63: " in said
    assert "file-64" not in said
    assert "- and 36 more" in said


def test_a_long_question_is_shown_by_its_ends_and_is_part_of_the_context() -> None:
    said = wording.question(opened("word " * 20_000, "a"))
    assert "characters left out" in said
    assert "- prompt: 100000 bytes" in said


def test_a_text_too_long_for_a_question_is_cut_into_parts_between_lines() -> None:
    limits = session.SessionLimits(window_tokens=2000)
    text = "".join(f"line {number}\n" for number in range(1000))
    assert wording.is_too_long(text, limits)
    parts = wording.parts(text, limits, 16)
    assert "".join(parts) == text
    assert all(len(part) <= 3000 and part.endswith("\n") for part in parts)


def test_a_text_without_lines_is_cut_all_the_same() -> None:
    limits = session.SessionLimits(window_tokens=2000)
    parts = wording.parts("x" * 10_000, limits, 8)
    assert [len(part) for part in parts] == [3000, 3000, 3000, 1000]


def test_what_no_number_of_parts_holds_loses_its_middle_and_says_so() -> None:
    limits = session.SessionLimits(window_tokens=2000)
    text = "".join(f"line {number:06d}\n" for number in range(100_000))
    parts = wording.parts(text, limits, 4)
    assert len(parts) <= 4
    assert all(len(part) <= 3000 for part in parts)
    assert parts[0].startswith("line 000000\n")
    assert parts[-1].endswith("line 099999\n")
    assert "characters left out" in "".join(parts)
