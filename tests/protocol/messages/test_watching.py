"""Looking at tasks from afar: what the messages leave open, and what they must carry."""

from __future__ import annotations

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.messages.watching import WatchAsked, WatchOpened, WatchSeen
from tests.protocol.examples import EXAMPLES, SPEC, SUBMITTER, TASK


def test_a_question_need_not_know_whose_task_it_is() -> None:
    asked = WatchAsked(task=TASK)
    assert (asked.submitter, asked.start, asked.is_following) == (None, 0, True)
    assert decode(encode(asked)) == asked


def test_a_task_that_nobody_has_led_yet_can_be_shown() -> None:
    seen = WatchSeen(task=TASK, state="waiting", term=0, why="no peer offers to coordinate")
    assert decode(encode(seen)) == seen


def test_what_a_task_is_travels_whole() -> None:
    opened = WatchOpened(
        task=TASK, submitter=SUBMITTER, submitter_name="laptop", spec=SPEC, age_s=0.0
    )
    assert decode(encode(opened)) == opened


def test_every_message_names_its_task() -> None:
    for kind, example in EXAMPLES.items():
        if kind.startswith("watching/"):
            assert "task" in type(example).model_fields, kind
