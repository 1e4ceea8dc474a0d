"""Folding with a model: asks it of every part at once, and makes one fold of what came back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from kowalski.mesh.core.blame import Weather
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.services.placed_work import Completion
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.inference import ChatMessage, Usage
from kowalski.rlm import model_folding
from kowalski.rlm.model_folding import NOTHING, Founded, ModelFolded, Part

AT_A_TIME = 8

TOO_LONG = "too_long"
SPLITS_MAX = 3
"""A part that is too long for a model is asked in halves, down to an eighth."""

AskModel = Callable[[tuple[ChatMessage, ...], int], Awaitable[Completion]]
"""A model call: messages, and how many tokens its answer may have. Raises `Weather`."""


@dataclass(frozen=True, slots=True)
class Summarised:
    """`peers` answered, each named once, the first first; `failure` is why a part was not."""

    folded: ModelFolded
    usage: Usage
    calls: int
    peers: tuple[PeerId, ...]
    failure: str = ""


async def fold_with_model(
    text: str, *, budget_tokens: int, ask: AskModel, question: str | None = None
) -> Summarised:
    """At most `budget_tokens` of `text`. A part whose model call fails is folded without one."""
    parts = await trio.to_thread.run_sync(
        lambda: model_folding.plan(text, budget_tokens=budget_tokens)
    )
    told: list[Founded] = [NOTHING] * len(parts)
    calls = 0
    replies: list[Completion] = []
    failures: list[str] = []
    at_a_time = trio.CapacityLimiter(AT_A_TIME)

    async def summary(part: Part, splits: int = SPLITS_MAX) -> Founded:
        nonlocal calls
        try:
            calls += 1
            reply = await ask(model_folding.prompt(part, question=question), part.reply_tokens)
        except Weather as error:
            if splits > 0 and TOO_LONG in str(error):
                # The model's vocabulary is coarser than the estimate knows.
                halves = [await summary(half, splits - 1) for half in part.halves()]
                return model_folding.together(halves)
            failures.append(line(str(error)))
            return NOTHING
        replies.append(reply)
        return await trio.to_thread.run_sync(model_folding.founded, part, reply.text)

    async def summarise(number: int, part: Part) -> None:
        async with at_a_time:
            told[number] = await summary(part)

    async with open_plain_nursery() as nursery:
        for number, part in enumerate(parts):
            nursery.start_soon(summarise, number, part)
    folded = await trio.to_thread.run_sync(
        lambda: model_folding.joined(text, told, budget_tokens=budget_tokens, question=question)
    )
    return Summarised(
        folded,
        _all_usage(replies),
        calls,
        tuple(dict.fromkeys(reply.placed.peer for reply in replies)),
        failures[0] if failures else "",
    )


def _all_usage(replies: list[Completion]) -> Usage:
    usages = [reply.done.usage for reply in replies]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        is_estimate=any(usage.is_estimate for usage in usages),
    )
