"""A backend without a server: answers come from a function. For simulations and tests of rooms."""

from __future__ import annotations

import contextlib
import re
import string
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import trio

from kowalski.node.backends import features
from kowalski.node.backends.seam import (
    BackendError,
    Completed,
    CompletionEvent,
    Delta,
    Embedded,
    ModelInfo,
)

if TYPE_CHECKING:
    from kowalski.node.backends.seam import CompletionRequest, EmbeddingRequest

# The text of the answer; or it raises a `BackendError`.
AnswerBy: TypeAlias = "Callable[[CompletionRequest], str]"


class InMemoryBackend:
    """Streams what `answer_by` says, a word at a time; a word is a token.

    `failure` is what every call meets while it is set; that, `models`, `answer_by` and
    `delay_per_token_s` may be replaced at any time. It honours what a server of `kind` does:
    `answer_by` sees the request. An answer that is gone on with (`so_far`) is the same answer
    without its beginning.
    """

    def __init__(
        self,
        answer_by: AnswerBy,
        *,
        models: tuple[ModelInfo, ...] = (ModelInfo("in-memory", is_warm=True),),
        name: str = "in-memory",
        url: str = "memory://",
        delay_per_token_s: float = 0.0,
        kind: str = "llama-server",
    ) -> None:
        self.name = name
        self.kind = kind
        self.url = url
        self.models = models
        self.failure: BackendError | None = None
        self.in_flight = 0
        self.answer_by = answer_by
        self.delay_per_token_s = delay_per_token_s

    def left_out(self, request: CompletionRequest, model: ModelInfo) -> tuple[str, ...]:
        return features.left_out(self.kind, request, model)

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
        text = self.answer_by(request).removeprefix(request.so_far)
        tokens = re.findall(r"\s*\S+|\s+$", text)
        self.in_flight += 1
        events = self._events(request, tokens, idle_timeout_s)
        try:
            async with contextlib.aclosing(events):
                yield events
        finally:
            self.in_flight -= 1

    async def embed(self, request: EmbeddingRequest, *, idle_timeout_s: float) -> Embedded:
        """Of each text how often each letter comes: texts of the same words are near each other."""
        del idle_timeout_s
        await self.health()
        if request.model not in {model.name for model in self.models}:
            raise BackendError("model_missing", request.model)
        letters = string.ascii_lowercase[: request.dimensions]
        vectors = [[float(text.lower().count(one)) for one in letters] for text in request.texts]
        packed = [struct.pack(f"<{len(letters)}f", *vector) for vector in vectors]
        words = sum(len(text.split()) for text in request.texts)
        return Embedded(tuple(packed), len(letters), words, usage_is_estimate=False)

    async def count_tokens(self, model: str, texts: Sequence[str]) -> tuple[int, ...] | None:
        await self.health()
        if model not in {one.name for one in self.models}:
            raise BackendError("model_missing", model)
        return tuple(len(text.split()) for text in texts)

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
        prompt_tokens = len(request.said.split())
        reason = "stop" if len(tokens) <= limit else "length"
        yield Completed(reason, prompt_tokens, min(len(tokens), limit), usage_is_estimate=False)
