"""How many tokens a text is for one model, learnt from what its server counted.

The general estimate is fitted to today's large vocabularies; a model with a small one, or trained
on another language, may need several times as many. No I/O.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Self

from kowalski.node.backends.seam import Completed, CompletionEvent, CompletionRequest

if TYPE_CHECKING:
    from kowalski.node.backends.seam import EstimateTokens

LEARNT_TOKENS_MIN: Final = 100
"""Shorter prompts say more about the chat template than about the vocabulary."""

SCALE_MIN: Final = 0.5
"""Less is a server that did not count what it held already."""
SCALE_MAX: Final = 8.0

WEIGHT: Final = 0.3
"""Of the newest count, where it is lower; a higher one counts at once, since too few is worse."""

MODELS_MAX: Final = 1000


class TokenScales:
    """What is known of the models of one server."""

    def __init__(self, estimate_tokens: EstimateTokens) -> None:
        self._estimate_tokens = estimate_tokens
        self._scales: dict[str, float] = {}

    def estimate(self, model: str, text: str) -> int:
        """Tokens of `text` for `model`; the general estimate until it was heard of."""
        return int(self._estimate_tokens(text) * self._scales.get(model, 1.0))

    def hear(self, model: str, text: str, counted: int) -> None:
        """The server of `model` counted so many tokens for `text`."""
        estimated = self._estimate_tokens(text)
        if estimated < LEARNT_TOKENS_MIN or not SCALE_MIN <= counted / estimated <= SCALE_MAX:
            return
        measured = counted / estimated
        known = self._scales.get(model)
        if known is None and len(self._scales) >= MODELS_MAX:
            return
        if known is not None and measured < known:
            measured = WEIGHT * measured + (1 - WEIGHT) * known
        self._scales[model] = measured


class Counted:
    """The events of an answer on their way, of which the last tells the count of the prompt."""

    def __init__(
        self,
        events: AsyncIterator[CompletionEvent],
        request: CompletionRequest,
        scales: TokenScales,
    ) -> None:
        self._events = events
        self._request = request
        self._scales = scales

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CompletionEvent:
        event = await anext(self._events)
        # A picture's tokens are not of the text.
        if isinstance(event, Completed) and not (event.usage_is_estimate or self._request.images):
            self._scales.hear(self._request.model, self._request.said, event.prompt_tokens)
        return event
