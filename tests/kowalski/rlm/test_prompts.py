from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

import pytest

from kowalski.rlm import parsing
from kowalski.rlm.prompts import (
    BUILT_IN,
    NAMES,
    PLACEHOLDERS,
    ForModels,
    PromptError,
    PromptName,
)

FOLDER = resources.files("kowalski.rlm").joinpath("prompts")
FAMILIES = [folder for folder in FOLDER.iterdir() if folder.is_dir()]


def render(name: PromptName, model: str | None = None, **values: str | int) -> str:
    return BUILT_IN.render(name, model, **values)


def rules(model: str | None = None) -> str:
    return render(
        "system_rlm",
        model,
        output_chars=8192,
        prompt_chars=300_000,
        turns=30,
        depth_hint="- rlm_query(prompt): a session of its own\n",
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_text_asks_for_exactly_what_it_is_given(name: PromptName) -> None:
    from string import Template  # noqa: PLC0415 - only this test speaks of the file's format

    text = FOLDER.joinpath(f"{name}.txt").read_text("utf-8")
    template = Template(text)
    assert template.is_valid()
    assert frozenset(template.get_identifiers()) == PLACEHOLDERS[name]


def test_every_file_is_a_text_that_is_used() -> None:
    texts = {f"{name}.txt" for name in NAMES}
    assert {file.name for file in FOLDER.iterdir() if file.is_file()} == texts
    for family in FAMILIES:
        assert {file.name for file in family.iterdir()} <= texts


def test_what_is_filled_in_is_not_read_again() -> None:
    said = render("direct", question="what is $inputs?", inputs="$question ${")
    assert said == "what is $inputs?\n\n$question ${"


def test_a_forgotten_placeholder_is_a_bug_to_be_loud_about() -> None:
    with pytest.raises(KeyError):
        render("extract")


def test_texts_are_short_enough_for_a_small_model() -> None:
    assert len(rules()) < 2500
    assert len(rules("Qwen3:8b")) < 2700


@pytest.mark.parametrize("name", ["system_rlm", "no_code_hint"])
def test_examples_are_blocks_as_we_read_them(name: PromptName) -> None:
    blocks = parsing.parse(FOLDER.joinpath(f"{name}.txt").read_text("utf-8"))
    assert blocks.blocks
    assert not blocks.skipped
    for block in blocks.blocks:
        assert block.is_closed
        compile(block.code, name, "exec")


def test_the_model_is_told_every_name_of_the_session() -> None:
    said = rules()
    names = [
        "context",
        "llm_query(",
        "llm_query_batched(",
        "rlm_query(",
        "LLMError",
        "budget()",
        "SHOW_VARS()",
        "history",
        "unfold(",
        "answer",
    ]
    assert [name for name in names if name not in said] == []


# --- texts for some models ----------------------------------------------------------------------


def test_a_family_of_models_has_texts_of_its_own_where_it_has_any() -> None:
    assert "Call models sparingly" in rules("mlx-community/Qwen3-8B-4bit")
    assert "Call models sparingly" not in rules("llama3.2")
    said = {"question": "?", "inputs": "data"}
    assert render("direct", "qwen3:8b", **said) == render("direct", "llama3.2", **said)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_texts_of_a_family_keep_the_contract(family: Traversable) -> None:
    BUILT_IN.with_texts(
        ForModels(family.name, name, text.read_text("utf-8"))
        for name in NAMES
        if (text := family.joinpath(f"{name}.txt")).is_file()
    )


def test_an_owners_text_comes_first_and_the_closest_to_a_model_before_others() -> None:
    book = BUILT_IN.with_texts(
        [
            ForModels("", "direct", "all: $question"),
            ForModels("llama", "direct", "llama: $question"),
            ForModels("llama3", "direct", "llama3: $question"),
        ]
    )
    said = {"question": "?", "inputs": ""}
    assert book.render("direct", "Llama3.2:3b", **said) == "llama3: ?"
    assert book.render("direct", "llama-2", **said) == "llama: ?"
    assert book.render("direct", None, **said) == "all: ?"
    assert book.render("extract", None, outputs="o") == render("extract", outputs="o")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("$question $answer", r"direct: \$answer is not given; there are inputs, question"),
        ("for 5 $", r"direct: a lone \$ \(write \$\$ for one\)"),
    ],
)
def test_a_text_that_breaks_the_contract_is_refused_with_what_is_wrong(
    text: str, complaint: str
) -> None:
    with pytest.raises(PromptError, match=complaint):
        BUILT_IN.with_texts([ForModels("", "direct", text)])
