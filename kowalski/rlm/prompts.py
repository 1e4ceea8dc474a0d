"""Renders what is said to a model from the texts in `prompts/*.txt`.

The contract of those files: plain UTF-8, `string.Template` placeholders, exactly the ones listed
in `PLACEHOLDERS`. They are written for small local models: short sentences, one example. Whoever
edits one changes what every model of the mesh is told, and no code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Final, Literal

PromptName = Literal[
    "direct",
    "extract",
    "folded",
    "no_code_hint",
    "question",
    "refine_blocks",
    "refine_turn",
    "system_rlm",
    "turn",
]

PLACEHOLDERS: Final[Mapping[PromptName, frozenset[str]]] = {
    "direct": frozenset({"question", "inputs"}),
    "extract": frozenset({"outputs"}),
    "folded": frozenset({"summary", "handles"}),
    "no_code_hint": frozenset({"problem", "turn", "turns"}),
    "question": frozenset({"question", "context", "turns"}),
    "refine_blocks": frozenset({"text", "turns"}),
    "refine_turn": frozenset({"outputs", "turn", "turns"}),
    "system_rlm": frozenset({"output_chars", "turns"}),
    "turn": frozenset({"outputs", "turn", "turns"}),
}
"""What each text may ask for, and is always given:

`question`: the user's words. `context`: names, types, sizes and beginnings of the data. `inputs`:
the data itself. `text`: the user's text with outputs in it. `outputs`: what blocks printed.
`problem`: why nothing was run, a sentence. `summary`: of folded turns. `handles`: how to read
them. `turn`, `turns`: this one, and how many there are. `output_chars`: how much of an output is
shown.
"""


def render(name: PromptName, **values: str | int) -> str:
    """The text `name` with its placeholders filled in; what is filled in is never read again."""
    return _template(name).substitute(values).strip("\n")


@functools.cache
def _template(name: PromptName) -> Template:
    folder = resources.files("kowalski.rlm").joinpath("prompts")
    return Template(folder.joinpath(f"{name}.txt").read_text("utf-8"))
