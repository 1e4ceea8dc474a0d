"""Prompts with blocks, and the parts of which the worlds of these tests are made."""

from __future__ import annotations

from typing import TypeVar

from kowalski.mesh.conversation import Conversation
from kowalski.protocol.messages.base import Message
from simulations.world import Part

M = TypeVar("M", bound=Message)

ASKER = Part(languages={}, roles=("submit",))
LEADER = Part(languages={}, roles=("coordinate",))
WORKER = Part(roles=("repl",))
THINKER = Part(languages={}, roles=("infer",), models=("m",))


def blocks(*cells: str, language: str = "python") -> str:
    return "\n".join(block(cell, language) for cell in cells)


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```\n"


async def heard(conversation: Conversation, kind: type[M]) -> M:
    """The next message of this kind; what comes before it is not looked at."""
    while True:
        message = await conversation.receive()
        if isinstance(message, kind):
            return message
