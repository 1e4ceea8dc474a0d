from __future__ import annotations

import pytest

from kowalski.protocol.messages.journal import Opened
from kowalski.protocol.messages.task import Shape, TaskSpec
from kowalski.rlm.opening import NAME_TOKENS, CannotOpen, open_session, to_count
from kowalski.rlm.session_state import MESSAGE_TOKENS, InputText, SessionLimits
from kowalski.rlm.window_size import UNLEARNT, TokenScale
from tests.kowalski.rlm.session_world import spec

BLOCKS = "Run this:\n\n```python\nprint(1)\n```\n"
LIMITS = SessionLimits(window_tokens=1000)


def opened(
    task: TaskSpec,
    *,
    languages: tuple[str, ...] = ("python",),
    models: tuple[str, ...] = ("m", "other"),
    inputs: tuple[InputText, ...] = (),
    limits: SessionLimits = LIMITS,
    counted_tokens: int | None = None,
) -> Opened | CannotOpen:
    return open_session(
        task,
        languages=languages,
        models=models,
        limits=limits,
        inputs=inputs,
        counted_tokens=counted_tokens,
    )


def mode_of(opening: Opened | CannotOpen) -> str:
    return opening.mode if isinstance(opening, Opened) else opening.code


def test_a_short_question_goes_straight_to_the_preferred_model() -> None:
    opening = opened(spec("2 + 2?"))
    assert isinstance(opening, Opened)
    assert (opening.mode, opening.model) == ("direct", "m")
    assert opening.why.startswith("short: about ")


def test_short_inputs_go_along_with_a_short_question() -> None:
    task = spec("what is in it?", inputs=["a"])
    assert mode_of(opened(task, inputs=(InputText("a", "text", is_whole=True),))) == "direct"


@pytest.mark.parametrize("text", [InputText("a", "text", is_whole=False), None])
def test_an_input_that_is_not_there_whole_becomes_a_session(text: InputText | None) -> None:
    task = spec("what is in it?", inputs=["a"])
    assert mode_of(opened(task, inputs=(text,) if text else ())) == "rlm"


def test_a_long_question_becomes_a_session() -> None:
    assert mode_of(opened(spec("word " * 2000))) == "rlm"


@pytest.mark.parametrize(
    ("scale", "words", "mode"),
    [
        (UNLEARNT, 800, "direct"),
        (UNLEARNT, 880, "rlm"),  # fits by the estimate, but not surely
        (TokenScale(0.9, is_learnt=True), 880, "direct"),
        (TokenScale(2.0, is_learnt=True), 500, "rlm"),
    ],
)
def test_what_is_not_counted_must_fit_with_a_margin(
    scale: TokenScale, words: int, mode: str
) -> None:
    limits = SessionLimits(window_tokens=1000, scale=scale)
    assert mode_of(opened(spec("word " * words), limits=limits)) == mode


def test_what_is_counted_must_fit_as_it_is_with_what_stands_around_it() -> None:
    task, text = spec("word " * 880, inputs=["a"]), (InputText("a", "text", is_whole=True),)
    room = LIMITS.window_tokens - MESSAGE_TOKENS - NAME_TOKENS
    assert mode_of(opened(task, inputs=text, counted_tokens=room)) == "direct"
    assert mode_of(opened(task, inputs=text, counted_tokens=room + 1)) == "rlm"
    direct = task.model_copy(update={"mode": "direct"})
    assert mode_of(opened(direct, inputs=text, counted_tokens=room + 1)) == "too_long"


def test_only_what_could_go_either_way_is_worth_a_count() -> None:
    shape = Shape(json_schema='{"type": "object"}')
    text = InputText("a", "text", is_whole=True)
    task = spec("word " * 500, inputs=["a"], shape=shape)
    assert to_count(task, (text,), LIMITS) == (task.prompt, "text", shape.json_schema)
    assert to_count(spec("word"), (), LIMITS) is None
    assert to_count(spec("word " * 5000), (), LIMITS) is None
    assert to_count(task, (InputText("a", "te", is_whole=False),), LIMITS) is None
    assert to_count(task.model_copy(update={"mode": "rlm"}), (text,), LIMITS) is None


def test_blocks_run_where_no_model_is() -> None:
    opening = opened(spec(BLOCKS), models=())
    assert isinstance(opening, Opened)
    assert (opening.mode, opening.model) == ("blocks", None)
    assert "no model" in opening.why


def test_blocks_run_where_the_wanted_model_is_not() -> None:
    opening = opened(spec(BLOCKS, model="absent"))
    assert isinstance(opening, Opened)
    assert (opening.mode, opening.model) == ("blocks", None)
    assert "absent" in opening.why


def test_a_short_prompt_with_blocks_is_a_question_where_a_model_is() -> None:
    assert mode_of(opened(spec(BLOCKS))) == "direct"


@pytest.mark.parametrize("mode", ["blocks", "direct", "rlm"])
def test_a_mode_that_was_asked_for_is_taken(mode: str) -> None:
    task = spec(BLOCKS).model_copy(update={"mode": mode, "seed": 7})
    opening = opened(task)
    assert isinstance(opening, Opened)
    assert (opening.mode, opening.model, opening.seed) == (mode, "m", 7)


def test_the_wanted_model_is_taken() -> None:
    opening = opened(spec("hello", model="other"))
    assert isinstance(opening, Opened)
    assert opening.model == "other"


@pytest.mark.parametrize(
    ("task", "models", "languages", "code", "words"),
    [
        (spec("hello"), (), ("python",), "no_model", "no model is usable"),
        (spec("hello", model="x"), ("m",), ("python",), "no_model", "usable: m"),
        (spec("hello", "rlm"), (), ("python",), "no_model", "no model is usable"),
        (spec("hello", "rlm"), ("m",), ("js",), "no_language", "python"),
        (spec("word " * 2000, "direct"), ("m",), (), "too_long", "about "),
        (spec("no code", "blocks"), ("m",), ("python",), "no_blocks", "no code block"),
        (spec(BLOCKS, "blocks"), ("m",), ("js",), "no_language", "python"),
        (spec(BLOCKS), (), (), "no_language", "python"),
        (spec("```cobol\nx\n```", "blocks"), ("m",), ("python",), "no_language", "cobol"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    task: TaskSpec, models: tuple[str, ...], languages: tuple[str, ...], code: str, words: str
) -> None:
    opening = opened(task, models=models, languages=languages)
    assert isinstance(opening, CannotOpen)
    assert opening.code == code
    assert words in opening.detail
