"""Copies of journals: what an offer and its answer may hold."""

from __future__ import annotations

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.limits import INPUTS_MAX
from kowalski.protocol.messages.copies import CopyFound, CopyHeld, CopyOffered
from tests.protocol.examples import ENTRY, EXAMPLES, INPUTS, PARENT, SUBMITTER, TASK


def test_the_inputs_of_the_largest_task_travel_in_one_offer() -> None:
    offered = CopyOffered(
        task=TASK,
        term=1,
        submitter=SUBMITTER,
        start=0,
        parent=PARENT,
        inputs=INPUTS * INPUTS_MAX,
    )
    assert decode(encode(offered)) == offered


def test_an_offer_without_entries_is_a_question_and_an_answer_without_any_says_no_more() -> None:
    asked = CopyOffered(task=TASK, term=1, submitter=SUBMITTER, start=7, parent=PARENT)
    assert decode(encode(asked)) == asked
    assert asked.entries == ()
    assert CopyFound(task=TASK).entries == ()
    assert not CopyHeld(task=TASK, entries=0, digest=PARENT).has_contents


def test_every_message_about_a_copy_says_whose_task_it_is() -> None:
    for kind in ("copies/offered", "copies/asked", "copies/dropped"):
        assert {"task", "term", "submitter"} <= type(EXAMPLES[kind]).model_fields.keys()
    assert decode(encode(CopyFound(task=TASK, entries=(ENTRY,) * 256)))
