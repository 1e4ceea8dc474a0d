"""What a submitter asks for, and the terms in which it is done."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.limits import INPUTS_MAX, PROMPT_BYTES_MAX
from kowalski.protocol.messages.task import Announced, Grant, Settle, TaskHeadline, TaskSpec
from tests.protocol.examples import BOOT, EXAMPLES, INPUTS, PARENT, TASK

HEADLINE = TaskHeadline(
    task=TASK,
    term=1,
    state="running",
    mode="rlm",
    entries=9,
    head="x" * 80,
    submitter_name="n",
    age_s=1.0,
)


def test_the_largest_task_is_one_grant() -> None:
    spec = TaskSpec(
        prompt="🐋" * (PROMPT_BYTES_MAX // 4),
        inputs=INPUTS * INPUTS_MAX,
        max_iterations=1000,
        timeout_s=10**7,
    )
    grant = Grant(
        task=TASK,
        term=1,
        spec=spec,
        prefix_entries=0,
        last_digest=PARENT,
        lease_s=3,
        remaining_s=10**7,
    )
    assert decode(encode(grant)) == grant


@pytest.mark.parametrize("prompt", ["", "x" * (PROMPT_BYTES_MAX + 1), "魚" * 87_382])
def test_a_task_asks_something_and_not_a_book(prompt: str) -> None:
    with pytest.raises(ValidationError, match="prompt"):
        TaskSpec(prompt=prompt, max_iterations=1, timeout_s=1)


@pytest.mark.parametrize("term", [0, -1, 2**53 + 1])
def test_terms_begin_with_one(term: int) -> None:
    with pytest.raises(ValidationError, match="term"):
        Settle(task=TASK, term=term)


def test_every_message_to_or_from_a_coordinator_names_its_task() -> None:
    for kind, example in EXAMPLES.items():
        if kind.startswith("task/") and kind != "task/announced":
            assert "task" in type(example).model_fields, kind


def test_a_hundred_headlines_fit_what_gossip_carries() -> None:
    assert decode(encode(Announced(boot=BOOT, sequence=1, tasks=(HEADLINE,) * 100)))
