"""Prompts with blocks, and the parts of which the worlds of these tests are made."""

from __future__ import annotations

from simulations.world import Part

ASKER = Part(languages={}, roles=("submit",))
LEADER = Part(languages={}, roles=("coordinate",))
WORKER = Part(roles=("repl",))
THINKER = Part(languages={}, roles=("infer",), models=("m",))


def blocks(*cells: str, language: str = "python") -> str:
    return "\n".join(block(cell, language) for cell in cells)


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```\n"
