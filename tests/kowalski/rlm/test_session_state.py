from __future__ import annotations

from dataclasses import replace

import pytest

from kowalski.protocol.messages.journal import Opened
from kowalski.rlm import session
from kowalski.rlm.session_state import (
    PROMPT_SHOWN_CHARS_MIN,
    Asking,
    Session,
    SessionLimits,
    check,
    limits_for,
)
from tests.kowalski.rlm.session_world import LIMITS, World, spec


def opened(prompt: str = "?", *inputs: str, mode: str = "rlm") -> Session:
    fresh = session.new_session(spec(prompt, inputs=inputs), limits=LIMITS)
    return session.replay(fresh, [Opened.model_validate({"mode": mode, "model": "m"})])


def test_a_large_window_has_the_usual_limits() -> None:
    assert limits_for(100_000) == SessionLimits()


@pytest.mark.parametrize("window_tokens", [2048, 4096, 8192, 32_768])
def test_in_a_small_window_a_turn_that_prints_too_much_still_fits(window_tokens: int) -> None:
    limits = limits_for(window_tokens)
    reply = f"{'word ' * 40_000}\n" + "```python\nx\n```\n" * 9
    world = World((reply,))
    world.go(spec("how " * 40_000, "rlm", turns=6), limits=limits)
    tokens = [sum(len(message.content) // 4 for message in asked.messages) for asked in world.asked]
    # The rules and a hint weigh about 700 tokens whatever the window.
    assert max(tokens) <= window_tokens + 700


def test_the_prompt_is_the_context_where_there_is_no_other() -> None:
    assert opened().prompt_input == "prompt"


def test_a_short_prompt_is_no_input_beside_others() -> None:
    assert opened("?", "data").prompt_input is None


def test_a_long_prompt_is_one_more_input_under_a_name_of_its_own() -> None:
    prompt = "x" * (PROMPT_SHOWN_CHARS_MIN + 1)
    assert opened(prompt, "data").prompt_input == "prompt"
    assert opened(prompt, "prompt", "prompt-2").prompt_input == "prompt-3"


def test_the_context_is_the_same_under_any_limits() -> None:
    for chars in (PROMPT_SHOWN_CHARS_MIN, PROMPT_SHOWN_CHARS_MIN + 1):
        task = spec("x" * chars, inputs=["data"])
        names = set()
        for window_tokens in (1024, 8192, 1_000_000):
            fresh = session.new_session(task, limits=limits_for(window_tokens))
            state = session.replay(fresh, [Opened(mode="rlm", model="m")])
            names.add(state.prompt_input)
            is_whole = task.prompt in state.messages[1].content
            assert is_whole or state.prompt_input is not None
        assert len(names) == 1


def test_only_a_session_with_code_at_its_heart_makes_the_prompt_an_input() -> None:
    assert opened("```python\nx\n```", mode="blocks").prompt_input is None
    assert opened(mode="direct").prompt_input is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"turns": 6},
        {"calls": 7},
        {"tokens": 1},
        {"ran": ((0, "python"),)},
        {"messages": ()},
        {"preamble": 9},
        {"model": None},
        {"mode": None, "stage": session.new_session(spec("?"), limits=LIMITS).stage, "history": ()},
    ],
)
def test_check_finds_what_cannot_be(wrong: dict[str, object]) -> None:
    state = opened()
    check(state)
    assert isinstance(state.stage, Asking)
    with pytest.raises(AssertionError):
        check(replace(state, **wrong))  # type: ignore[arg-type]
