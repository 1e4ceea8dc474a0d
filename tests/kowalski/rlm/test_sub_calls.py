"""What a journal knows of sub-calls: whoever runs a cell again finds every answer in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.protocol import codec
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.journal import (
    CellFinished,
    ChildHappened,
    Opened,
    SubCallAnswered,
)
from kowalski.protocol.messages.repl import SubCall, SubCallResult
from kowalski.rlm.sub_calls import Place, SubCallBook, question_of

PEER = PeerId("12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")


def asked(prompt: str, kind: str = "llm", model: str | None = None) -> SubCall:
    return SubCall(kind=kind, prompt=prompt, model=model)


def answered(
    place: Place, call: SubCall, text: str | None = "so", **more: object
) -> SubCallAnswered:
    return SubCallAnswered.model_validate(
        {
            "cell": place.cell,
            "ordinal": place.ordinal,
            "prompt": question_of(call),
            "kind": call.kind,
            "text": text,
            **more,
        }
    )


def begun(place: Place, call: SubCall) -> ChildHappened:
    event = codec.encode(Opened(mode="rlm", model="m"))
    return ChildHappened(
        cell=place.cell, ordinal=place.ordinal, question=question_of(call), event=event
    )


@given(
    prompts=st.lists(st.sampled_from("abc"), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_in_whatever_order_a_cell_asks_again_each_question_gets_its_own_answers(
    prompts: list[str], order: object
) -> None:
    book = SubCallBook()
    run = book.run_of(1)
    calls = [asked(prompt) for prompt in prompts]
    texts: dict[str, list[str]] = {}
    for at, call in enumerate(calls):
        place = run.place(question_of(call))
        assert place == Place(1, at)
        texts.setdefault(call.prompt, []).append(f"{call.prompt}{at}")
        book.hear(answered(place, call, f"{call.prompt}{at}"))
    order.shuffle(calls)  # type: ignore[attr-defined]
    again = book.run_of(1)
    for call in calls:
        assert again.replayed(question_of(call)) == SubCallResult(text=texts[call.prompt].pop(0))
    assert again.replayed(question_of(asked("a"))) is None
    assert again.place(question_of(asked("a"))) == Place(1, len(calls))


def test_a_cell_is_not_answered_from_another_cells_run() -> None:
    book = SubCallBook()
    book.hear(answered(Place(0, 0), asked("q")))
    assert book.run_of(1).replayed(question_of(asked("q"))) is None


def test_what_was_asked_before_in_the_task_is_known_and_what_failed_is_not() -> None:
    book = SubCallBook()
    assert book.repeated(question_of(asked("q"))) is None
    book.hear(answered(Place(0, 0), asked("q"), None, error="nobody", code="no_peer"))
    assert book.repeated(question_of(asked("q"))) is None
    book.hear(answered(Place(0, 1), asked("q"), "yes"))
    assert book.repeated(question_of(asked("q"))) == SubCallResult(text="yes")
    assert book.repeated(question_of(asked("q", "rlm"))) is None
    assert book.repeated(question_of(asked("q", model="other"))) is None


def test_a_repeated_answer_stands_where_it_was_first_given() -> None:
    book = SubCallBook()
    book.hear(answered(Place(0, 0), asked("q"), "yes"))
    book.hear(answered(Place(3, 0), asked("q"), None, is_repeated=True))
    assert book.run_of(3).replayed(question_of(asked("q"))) == SubCallResult(text="yes")


def test_a_journal_that_lost_the_first_answer_is_an_error_and_no_empty_text() -> None:
    book = SubCallBook()
    book.hear(answered(Place(3, 0), asked("q"), None, is_repeated=True))
    result = book.run_of(3).replayed(question_of(asked("q")))
    assert result is not None
    assert (result.text, result.code) == (None, "lost")


def test_a_child_that_was_begun_goes_on_in_its_place() -> None:
    book, child = SubCallBook(), asked("deep", "rlm")
    book.hear(answered(Place(2, 0), asked("q")))
    book.hear(begun(Place(2, 1), child))
    run = book.run_of(2)
    assert run.replayed(question_of(child)) is None
    assert run.place(question_of(asked("new"))) == Place(2, 2)
    place = run.place(question_of(child))
    assert place == Place(2, 1)
    assert book.child(place) == (Opened(mode="rlm", model="m"),)
    assert run.place(question_of(child)) == Place(2, 3), "asked once more, it is another child"
    book.hear(answered(place, child))
    assert book.child(place) == ()


def test_children_of_a_cell_that_ended_are_given_up() -> None:
    book, child = SubCallBook(), asked("deep", "rlm")
    book.hear(begun(Place(2, 0), child))
    book.hear(begun(Place(3, 0), child))
    book.hear(CellFinished(cell=2, peer=PEER, status="timeout", output=""))
    assert book.child(Place(2, 0)) == ()
    assert book.child(Place(3, 0)) != ()
