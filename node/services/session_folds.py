"""Folds of a session's window by a model, out of the budget of its task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from kowalski.node.services.model_folding import fold_with_model
from kowalski.node.services.placed_work import Attempts, Completion
from kowalski.node.services.purse import BudgetSpentError, Purse
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import ChatMessage
from kowalski.rlm import session as machine

Ask = Callable[[tuple[ChatMessage, ...], int, Attempts], Awaitable[Completion]]
"""A model call: messages, tokens of the answer, and where its attempts are counted."""


async def fold_window(
    effect: machine.Fold,
    original: ContentRef,
    *,
    ask: Ask,
    purse: Purse,
    question: str,
    here: PeerId,
) -> journal.Folded:
    """`here` folds what no model does: parts for which there is no call left, or no peer."""
    attempts = Attempts()
    calls = 0
    with ExitStack() as held:

        async def ask_within_budget(
            messages: tuple[ChatMessage, ...], reply_tokens: int
        ) -> Completion:
            nonlocal calls
            try:
                held.enter_context(purse.call())
            except BudgetSpentError as spent:
                raise RequestRefusedError("no_capacity", str(spent)) from spent
            calls += 1
            return await ask(messages, reply_tokens, attempts)

        done = await fold_with_model(
            effect.text,
            budget_tokens=effect.budget_tokens,
            ask=ask_within_budget,
            question=question,
        )
    return journal.Folded(
        text=done.folded.text,
        original=original,
        source_tokens=done.folded.source_tokens,
        tokens=done.folded.tokens,
        peer=done.peers[0] if done.peers else here,
        calls=calls,
        attempts=attempts.sent,
        usage=done.usage,
    )
