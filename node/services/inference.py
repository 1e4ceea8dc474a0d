"""The room that answers other peers' model calls with what this device runs."""

from __future__ import annotations

from collections.abc import Callable

import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.backends.catalogue import Catalogue
from kowalski.node.backends.seam import (
    BackendError,
    ChatMessage,
    Completed,
    CompletionRequest,
    ModelInfo,
)
from kowalski.protocol.errors import (
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.messages import inference as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.telemetry import Hot, Model, Occupancy

PROTOCOL = "/kowalski/inference/1"
DELTA_CHARS_MAX = 4096
IDLE_TIMEOUT_S = 60.0
PASSED_ON = frozenset(
    {"task", "term", "model", "messages", "max_tokens", "temperature", "remaining_s"}
)
MODELS_MAX = 128
RATES_MAX = 64

NAMES_BYTES_MAX = 8 * 1024
"""Of all models together. A profile is gossiped in 32 KiB, and may name each of them twice."""


class InferenceRoom:
    """Serves `/kowalski/inference/1`."""

    def __init__(self, catalogue: Catalogue, *, hot: Callable[[], Hot]) -> None:
        self._catalogue = catalogue
        self._hot = hot

    @property
    def occupancy(self) -> Occupancy:
        listings = self._catalogue.listings()
        return Occupancy(
            running=sum(one.in_flight for one in listings),
            slots=sum(one.model.slots for one in listings),
        )

    @property
    def models(self) -> tuple[Model, ...]:
        """What can be run now, the preferred first, each name once; as many as a profile holds."""
        infos: dict[str, ModelInfo] = {}
        names_bytes = 0
        for one in self._catalogue.listings():
            if one.model.name not in infos:
                names_bytes += len(one.model.name.encode())
                if names_bytes > NAMES_BYTES_MAX or len(infos) >= MODELS_MAX:
                    break
                infos[one.model.name] = one.model
        return tuple(
            Model(name=info.name, context_tokens=info.context_tokens, is_warm=info.is_warm)
            for info in infos.values()
        )

    @property
    def tokens_per_s(self) -> dict[str, float]:
        """Of those that `models` tells; where two servers run one, the preferred server's."""
        told = {model.name for model in self.models}
        rates = {
            one.model.name: one.tokens_per_s
            for one in reversed(self._catalogue.listings())
            if one.tokens_per_s is not None and one.model.name in told
        }
        return dict(list(rates.items())[-RATES_MAX:])

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        if isinstance(request, wire.EmbeddingsAsked | wire.PullAsked):
            raise RequestRefusedError("unsupported", f"{request.KIND} is not answered here")
        if not isinstance(request, wire.CompletionAsked):
            raise RemoteProtocolError(f"{request.KIND} in an inference conversation")
        self._check(request)
        started = trio.current_time()
        with trio.move_on_after(request.remaining_s):
            try:
                completed = await self._complete(conversation, request)
            except BackendError as error:
                raise _answer_to(error) from error
            return wire.CompletionDone(
                model=request.model,
                finish_reason=_word(completed.finish_reason),
                usage=wire.Usage(
                    prompt_tokens=completed.prompt_tokens,
                    completion_tokens=completed.completion_tokens,
                    is_estimate=completed.usage_is_estimate,
                ),
                held_s=trio.current_time() - started,
                hot=self._hot(),
            )
        raise RequestFailedError("timeout", f"no end within {request.remaining_s:.1f} s")

    def _check(self, request: wire.CompletionAsked) -> None:
        """Refuse what would be left out."""
        asked = request.model_dump(exclude_defaults=True)
        left_out = [name for name in asked if name not in PASSED_ON]
        if any(one.role == "tool" or one.tool_calls or one.images for one in request.messages):
            left_out.append("messages with tools or images")
        if left_out:
            raise RequestRefusedError("unsupported", f"not passed on here: {', '.join(left_out)}")

    async def _complete(
        self, conversation: Conversation, request: wire.CompletionAsked
    ) -> Completed:
        asked = CompletionRequest(
            model=request.model,
            messages=tuple(ChatMessage(m.role, m.content) for m in request.messages),
            max_tokens=request.max_tokens,
            temperature=request.temperature,
        )
        async with self._catalogue.complete(asked, idle_timeout_s=IDLE_TIMEOUT_S) as events:
            async for event in events:
                if isinstance(event, Completed):
                    return event
                for start in range(0, len(event.text), DELTA_CHARS_MAX):
                    piece = event.text[start : start + DELTA_CHARS_MAX]
                    await conversation.send(wire.CompletionDelta(text=piece))
        raise RequestFailedError("backend", "the answer did not end")


def _answer_to(error: BackendError) -> RequestRefusedError | RequestFailedError:
    """What a backend's failure is to the asker: go elsewhere now, or something went wrong."""
    if error.code == "overloaded":
        return RequestRefusedError("busy", error.detail, error.retry_after_s)
    if error.code == "model_missing":
        return RequestRefusedError("unsupported", error.detail)
    return RequestFailedError("backend", f"{error.code}: {error.detail}")


def _word(reason: str) -> str:
    """A finish reason as a code; servers write what they like."""
    word = "".join(c if c.isascii() and c.isalnum() else "_" for c in reason.lower())
    return word.strip("_0123456789")[:40] or "stop"
