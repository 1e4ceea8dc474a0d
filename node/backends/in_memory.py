"""A backend without a server: answers come from a function. For simulations and tests of rooms."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

from kowalski.node.backends.seam import BackendError, Completed, CompletionEvent, Delta, ModelInfo

if TYPE_CHECKING:
    from kowalski.node.backends.seam import CompletionRequest

# The text of the answer; or it raises a `BackendError`.
AnswerBy: TypeAlias = "Callable[[CompletionRequest], str]"


class InMemoryBackend:
    """Streams what `answer_by` says, a word at a time; a word is a token.

    `failure` is what every call meets while it is set; that, `models` and `delay_per_token_s` may
    be replaced at any time.
    """

    def __init__(
        self,
        answer_by: AnswerBy,
        *,
        models: tuple[ModelInfo, ...] = (ModelInfo("in-memory", is_warm=True),),
        name: str = "in-memory",
        url: str = "memory://",
        delay_per_token_s: float = 0.0,
    ) -> None:
        self.name = name
        self.url = url
        self.models = models
        self.failure: BackendError | None = None
        self.in_flight = 0
        self._answer_by = answer_by
        self.delay_per_token_s = delay_per_token_s

    async def list_models(self) -> tuple[ModelInfo, ...]:
        await self.health()
        return self.models

    async def health(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure

    @contextlib.asynccontextmanager
    async def complete(
        self, request: CompletionRequest, *, idle_timeout_s: float
    ) -> AsyncIterator[AsyncIterator[CompletionEvent]]:
        await self.health()
        if request.model not in {model.name for model in self.models}:
            raise BackendError("model_missing", request.model)
        tokens = re.findall(r"\s*\S+|\s+$", self._answer_by(request))
        self.in_flight += 1
        events = self._events(request, tokens, idle_timeout_s)
        try:
            async with contextlib.aclosing(events):
                yield events
        finally:
            self.in_flight -= 1

    async def _events(
        self, request: CompletionRequest, tokens: list[str], idle_timeout_s: float
    ) -> AsyncGenerator[CompletionEvent, None]:
        limit = len(tokens) if request.max_tokens is None else request.max_tokens
        for token in tokens[:limit]:
            # Not under a timeout: a yield inside a cancel scope would break it.
            await trio.sleep(min(self.delay_per_token_s, idle_timeout_s))
            if self.delay_per_token_s > idle_timeout_s:
                raise BackendError("stalled", f"no progress for {idle_timeout_s:g} s")
            await self.health()
            yield Delta(token)
        prompt_tokens = sum(len(message.content.split()) for message in request.messages)
        reason = "stop" if len(tokens) <= limit else "length"
        yield Completed(reason, prompt_tokens, min(len(tokens), limit), usage_is_estimate=False)
