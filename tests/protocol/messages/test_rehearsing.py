"""What is asked of who would lead a task."""

from __future__ import annotations

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.ids import TaskId
from kowalski.protocol.limits import PROMPT_BYTES_MAX
from kowalski.protocol.messages.rehearsing import RehearsalAsked, Rehearsed
from kowalski.protocol.messages.task import TaskSpec


def test_the_longest_prompt_can_be_asked_about() -> None:
    spec = TaskSpec(prompt="x" * PROMPT_BYTES_MAX, max_iterations=1, timeout_s=1.0)
    asked = RehearsalAsked(task=TaskId("t"), spec=spec)
    assert decode(encode(asked)) == asked


def test_a_way_that_only_a_newer_peer_knows_can_be_told() -> None:
    told = Rehearsed(task=TaskId("t"), mode="swarm", obstacle="no_moon")
    assert decode(encode(told)) == told
