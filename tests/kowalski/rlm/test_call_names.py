"""Names of model calls, as peers compare them."""

from __future__ import annotations

from kowalski.protocol.messages.calls import CallsHeld
from kowalski.protocol.messages.repl import SubCall
from kowalski.rlm import call_names
from kowalski.rlm.sub_calls import SubCallBook, question_of


def names(*prompts: str, book: SubCallBook | None = None) -> list[str]:
    run = (book or SubCallBook()).run_of(3)
    return [run.name(question_of(SubCall(prompt=prompt))) for prompt in prompts]


def test_each_place_of_a_task_has_a_name_of_its_own_that_fits_the_wire() -> None:
    question = question_of(SubCall(prompt="why?"))
    found = [
        call_names.FOLD,
        call_names.of_turn(0),
        call_names.of_turn(10**9),
        call_names.of_sub_call(10**9, question, 10**9),
        call_names.of_sub_call(0, question, 0),
        call_names.of_sub_call(0, question_of(SubCall(prompt="why not?")), 0),
    ]
    assert len(set(found)) == len(found)
    CallsHeld(calls=tuple(found))


def test_a_cell_that_asks_in_another_order_when_it_runs_again_asks_by_the_same_names() -> None:
    first = names("a", "b", "a")
    assert len(set(first)) == 3, "a question that is asked twice has two names"
    assert sorted(names("b", "a", "a")) == sorted(first)
