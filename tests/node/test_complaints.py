"""Complaints about what a person wrote: in words, and without what a person cannot read."""

from __future__ import annotations

import pytest

from kowalski.node import control_messages as messages
from kowalski.protocol.errors import ConfigError


@pytest.mark.parametrize(
    ("verb", "raw", "words"),
    [
        ("submit", {"prompt": "why", "task_id": "my task"}, "task_id: not a task's name"),
        ("attach", {"task": "my task"}, "task: not a task's name"),
        ("attach", {"task": "t1@"}, "'@' and the name of its submitter"),
        ("run", {"language": "py thon", "code": ""}, "language: not a language's name"),
        ("unfold", {"handle": "0a0a"}, "handle: not a handle: `fold` prints it"),
    ],
)
def test_a_name_of_the_wrong_form_is_refused_in_words_and_not_by_a_pattern(
    verb: str, raw: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        messages.parse_request(verb, raw)
    assert words in str(caught.value)
    assert "^[" not in str(caught.value)


def test_a_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        messages.parse_request("revoke", {"peer": 7, "why": "hunter2" * 100})
    assert "hunter2" not in str(caught.value)
