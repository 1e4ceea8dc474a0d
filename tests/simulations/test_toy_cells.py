"""Each word of the language of scripted cells."""

from __future__ import annotations

import pytest

from kowalski.node.repl.scripted_sessions import ScriptedState
from kowalski.node.repl.seam import Answer, CellOutcome, SubCall, SubCallResult
from simulations.toy_cells import toy_script


def outcome(code: str, *before: str, replies: tuple[SubCallResult, ...] = ()) -> CellOutcome:
    cell = toy_script(code, ScriptedState("python", {}, 0, before))
    assert cell.outcome_of is not None
    return cell.outcome_of(replies)


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("say hi there", b"hi there\n"),
        ("keep x 41\nshow x", b"x is 41\n"),
        ("flood 20", b"0123456789abcde\n0123\n"),
        ("", b""),
    ],
)
def test_what_is_printed(code: str, stdout: bytes) -> None:
    assert outcome(code).stdout == stdout
    assert outcome(code).status == "ok"


def test_variables_of_earlier_cells_are_there_even_of_those_that_failed_later() -> None:
    assert outcome("show x", "keep x 1", "keep x 2\nfail\nkeep x 3").stdout == b"x is 2\n"


def test_a_cell_ends_at_its_first_error() -> None:
    failed = outcome("say one\nfail ValueError: no\nsay two")
    assert (failed.status, failed.error, failed.stdout, failed.exit_code) == (
        "error",
        "ValueError: no",
        b"one\n",
        1,
    )
    assert outcome("show y").error == "NameError: y"
    assert outcome("dance").error == "SyntaxError: dance"


def test_a_cell_that_dies_takes_its_session_along() -> None:
    died = outcome("say last\ndie\nsay never")
    assert (died.status, died.session_alive, died.stdout) == ("died", False, b"last\n")


def test_sub_calls_go_out_in_one_batch_and_their_answers_are_printed() -> None:
    cell = toy_script("ask one\nask-many 2 part\nask-big 1 5", ScriptedState("python", {}, 0, ()))
    assert cell.sub_calls == (
        SubCall("one"),
        SubCall("part 0"),
        SubCall("part 1"),
        SubCall("0 xxx"),
    )
    replies = (
        SubCallResult(text="a"),
        SubCallResult(text="b"),
        SubCallResult(error="c"),
    )
    code = "ask one\nask-many 2 part\nanswer said $reply"
    done = outcome(code, replies=replies)
    assert done.stdout == b"a\nb\n[c]\n"
    assert done.answer == Answer("said b | [c]", ready=True)


def test_answers_are_ready_and_drafts_are_not() -> None:
    assert outcome("answer 42").answer == Answer("42", ready=True)
    assert outcome("draft 42").answer == Answer("42", ready=False)
    assert outcome("answer-big 3 x").answer == Answer("xxx", ready=True)
    assert outcome("say 42").answer is None


def test_waits_add_up() -> None:
    cell = toy_script("wait 2\nsay x\nwait 0.5", ScriptedState("python", {}, 0, ()))
    assert cell.duration_s == 2.5
