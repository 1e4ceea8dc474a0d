"""How many tokens a text is for one model, learnt from what its server counted.

The general estimate is fitted to today's large vocabularies; a model with a small one, or trained
on another language, may need several times as many. No I/O.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Self

from kowalski.node.backends.seam import Completed, CompletionEvent, CompletionRequest
from kowalski.rlm.window_size import UNLEARNT, TokenScale

if TYPE_CHECKING:
    from kowalski.node.backends.seam import EstimateTokens

MODELS_MAX: Final = 1000


class TokenScales:
    """What is known of the models of one server."""

    def __init__(self, estimate_tokens: EstimateTokens) -> None:
        self._estimate_tokens = estimate_tokens
        self._scales: dict[str, TokenScale] = {}

    def estimate(self, model: str, text: str) -> int:
        """Tokens of `text` for `model`; the general estimate until it was heard of."""
        return int(self._estimate_tokens(text) * self._scales.get(model, UNLEARNT).factor)

    def hear(self, model: str, text: str, counted: int) -> None:
        """The server of `model` counted so many tokens for `text`."""
        if model not in self._scales and len(self._scales) >= MODELS_MAX:
            return
        known = self._scales.get(model, UNLEARNT)
        self._scales[model] = known.heard(self._estimate_tokens(text), counted)


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
