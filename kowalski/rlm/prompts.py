"""Renders what is said to a model from the texts in `prompts/*.txt`.

The contract of those files: plain UTF-8, `string.Template` placeholders, exactly the ones listed
in `PLACEHOLDERS`. They are written for small local models: short sentences, at most one example.
Whoever edits one changes what every model of the mesh is told, and no code. `docs/prompts.md` says
it for owners.

A folder beside them, such as `prompts/qwen/`, holds texts for the models whose names contain its
own; it need not hold all. An owner's folder comes before both (`PromptBook.with_texts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import Final, Literal, NamedTuple, get_args

PromptName = Literal[
    "aggregate",
    "direct",
    "evaluate",
    "extract",
    "folded",
    "no_code_hint",
    "part",
    "parts",
    "question",
    "refine_blocks",
    "refine_turn",
    "rejected_answer",
    "rejected_turn",
    "shape",
    "system_rlm",
    "turn",
]
NAMES: Final[tuple[PromptName, ...]] = get_args(PromptName)

PLACEHOLDERS: Final[Mapping[PromptName, frozenset[str]]] = {
    "aggregate": frozenset({"question", "answers"}),
    "direct": frozenset({"question", "inputs"}),
    "evaluate": frozenset({"question", "answer"}),
    "extract": frozenset({"outputs"}),
    "folded": frozenset({"summary", "handles"}),
    "no_code_hint": frozenset({"problem", "turn", "turns", "left"}),
    "part": frozenset({"text", "part", "parts"}),
    "parts": frozenset({"notes", "turns", "left"}),
    "question": frozenset({"question", "context", "turns", "left"}),
    "refine_blocks": frozenset({"text", "turns", "left"}),
    "refine_turn": frozenset({"outputs", "turn", "turns", "left"}),
    "rejected_answer": frozenset({"problem", "turn", "turns", "left"}),
    "rejected_turn": frozenset({"outputs", "problem", "turn", "turns", "left"}),
    "shape": frozenset({"schema"}),
    "system_rlm": frozenset({"output_chars", "prompt_chars", "turns", "depth_hint"}),
    "turn": frozenset({"outputs", "turn", "turns", "left"}),
}
"""What each text may ask for, and is always given:

`question`: the user's words. `context`: names, types, sizes and beginnings of the data. `inputs`:
the data itself. `text`: the user's text with outputs in it. `outputs`: what blocks printed.
`problem`: why nothing was run, or why the answer will not do, a sentence. `summary`: of folded
turns. `handles`: how to read them. `turn`, `turns`: this one, and how many there are. `left`: what
is left of the budget, a sentence with a space before it, or nothing. `output_chars`: how much of an
output is shown. `prompt_chars`: how long the prompt of a sub-call may be. `answer`, `answers`: what
was answered, once or several times. `part`, `parts`: which part of a long text this is, and of how
many. `notes`: what was noted of each. `schema`: of the answer. `depth_hint`: a line about child
sessions, or nothing.
"""


class ForModels(NamedTuple):
    """A text for the models whose names contain `pattern`, in whatever case; empty for all."""

    pattern: str
    name: PromptName
    text: str


class PromptError(ValueError):
    """A text does not keep the contract."""


@dataclass(frozen=True, slots=True)
class PromptBook:
    """The texts, with an owner's own before ours."""

    own: tuple[ForModels, ...] = ()

    def with_texts(self, texts: Iterable[ForModels]) -> PromptBook:
        """The same with more of an owner's texts, which come first.

        Raises:
            PromptError: one asks for something that it is not given, or is no template.
        """
        added = tuple(texts)
        for one in added:
            _check(one)
        return PromptBook((*added, *self.own))

    def render(self, name: PromptName, model: str | None, **values: str | int) -> str:
        """The text `name` for `model` with its placeholders filled in.

        What is filled in is never read again.
        """
        return self._template(name, model or "").substitute(values).strip("\n")

    def _template(self, name: PromptName, model: str) -> Template:
        wanted = model.lower()
        # An owner's text for these models, then for all; then ours for these, then for all.
        for texts in (self.own, _ours()):
            for one in sorted(texts, key=lambda one: -len(one.pattern)):
                if one.name == name and one.pattern.lower() in wanted:
                    return Template(one.text)
        raise AssertionError(name)


BUILT_IN: Final = PromptBook()


def _check(one: ForModels) -> None:
    template = Template(one.text)
    where = f"{one.pattern}/{one.name}" if one.pattern else one.name
    if not template.is_valid():
        raise PromptError(f"{where}: a lone $ (write $$ for one)")
    unknown = set(template.get_identifiers()) - PLACEHOLDERS[one.name]
    if unknown:
        known = ", ".join(sorted(PLACEHOLDERS[one.name]))
        raise PromptError(f"{where}: ${min(unknown)} is not given; there are {known}")


@cache
def _ours() -> tuple[ForModels, ...]:
    folder = resources.files("kowalski.rlm").joinpath("prompts")
    found = [
        ForModels("", name, folder.joinpath(f"{name}.txt").read_text("utf-8")) for name in NAMES
    ]
    for family in folder.iterdir():
        if family.is_dir():
            found += [
                ForModels(family.name, name, text.read_text("utf-8"))
                for name in NAMES
                if (text := family.joinpath(f"{name}.txt")).is_file()
            ]
    return tuple(found)
