from __future__ import annotations

from importlib import resources
from typing import get_args

import pytest

from kowalski.rlm import parsing
from kowalski.rlm.prompts import PLACEHOLDERS, PromptName, render

FOLDER = resources.files("kowalski.rlm").joinpath("prompts")
NAMES: tuple[PromptName, ...] = get_args(PromptName)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_asks_for_exactly_what_it_is_given(name: PromptName) -> None:
    from string import Template  # noqa: PLC0415 - only this test speaks of the file's format

    text = FOLDER.joinpath(f"{name}.txt").read_text("utf-8")
    template = Template(text)
    assert template.is_valid()
    assert frozenset(template.get_identifiers()) == PLACEHOLDERS[name]


def test_every_file_is_a_text_that_is_used() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.txt" for name in NAMES}


def test_what_is_filled_in_is_not_read_again() -> None:
    said = render("direct", question="what is $inputs?", inputs="$question ${")
    assert said == "what is $inputs?\n\n$question ${"


def test_a_forgotten_placeholder_is_a_bug_to_be_loud_about() -> None:
    with pytest.raises(KeyError):
        render("extract")


def test_texts_are_short_enough_for_a_small_model() -> None:
    said = render("system_rlm", output_chars=8192, turns=30)
    assert len(said) < 2000


@pytest.mark.parametrize("name", ["system_rlm", "no_code_hint"])
def test_examples_are_blocks_as_we_read_them(name: PromptName) -> None:
    blocks = parsing.parse(FOLDER.joinpath(f"{name}.txt").read_text("utf-8"))
    assert blocks.blocks
    assert not blocks.skipped
    for block in blocks.blocks:
        assert block.is_closed
        compile(block.code, name, "exec")


def test_the_model_is_told_every_name_of_the_session() -> None:
    said = render("system_rlm", output_chars=8192, turns=30)
    names = [
        "context",
        "llm_query(",
        "llm_query_batched(",
        "SHOW_VARS()",
        "history",
        "unfold(",
        "answer",
    ]
    assert [name for name in names if name not in said] == []
