"""Ollama's own API: what is on disk, what is warm, chat as JSON lines.

Not its OpenAI imitation, which cannot set the context length: Ollama's default cuts long prompts
without a word, so `num_ctx` goes with every request.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

from kowalski.node.backends.answers import (
    Answer,
    AnswerStream,
    error_words,
    failure,
    status_error,
)
from kowalski.node.backends.lines import (
    JsonLinesReader,
    JsonObject,
    excerpt,
    parse_json_object,
)
from kowalski.node.backends.seam import BackendError, CompletionEvent, ModelInfo

if TYPE_CHECKING:
    from kowalski.node.backends.http import HttpClient
    from kowalski.node.backends.seam import CompletionRequest, EstimateTokens

MODELS_MAX = 1000
# As on the wire.
NAME_CHARS_MAX = 256


class OllamaBackend:
    """A `Backend` for one Ollama.

    `context_tokens` is asked for unless the model is loaded with more, because another value
    makes Ollama load it again. `keep_alive` is how long the model stays loaded, in Ollama's words.
    """

    name = "ollama"

    def __init__(
        self,
        url: str,
        *,
        http: HttpClient,
        estimate_tokens: EstimateTokens,
        context_tokens: int = 8192,
        keep_alive: str = "30m",
        slots: int = 1,
        timeout_s: float = 2.0,
    ) -> None:
        self.url = url
        self._http = http
        self._estimate_tokens = estimate_tokens
        self._context_tokens = context_tokens
        self._keep_alive = keep_alive
        self._slots = slots
        self._timeout_s = timeout_s
        self._warm_context: dict[str, int] = {}

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """All that is on disk; embedding models cannot be told apart here and are listed too."""
        on_disk = _names(await self._get("/api/tags"))
        warm = _names(await self._get("/api/ps"))
        self._warm_context = {
            name: context
            for name, entry in warm.items()
            if isinstance(context := entry.get("context_length"), int) and context > 0
        }
        return tuple(
            ModelInfo(name, self._context_for(name), is_warm=name in warm, slots=self._slots)
            for name in on_disk
        )

    async def health(self) -> None:
        await self._get("/api/version")

    @contextlib.asynccontextmanager
    async def complete(
        self, request: CompletionRequest, *, idle_timeout_s: float
    ) -> AsyncIterator[AsyncIterator[CompletionEvent]]:
        async with self._http.stream(
            "POST",
            f"{self.url}/api/chat",
            headers={"Content-Type": "application/json"},
            body=json.dumps(self._chat_body(request), ensure_ascii=False).encode(),
            head_timeout_s=idle_timeout_s,
        ) as reply:
            if reply.status != 200:
                raise await failure(reply, has_key=False)
            reader = ChatLinesReader(Answer(request, self._estimate_tokens))
            yield AnswerStream(reply, reader, idle_timeout_s=idle_timeout_s)

    def _chat_body(self, request: CompletionRequest) -> JsonObject:
        options: JsonObject = {"num_ctx": self._context_for(request.model)}
        if request.max_tokens is not None:
            options["num_predict"] = request.max_tokens
        if request.temperature is not None:
            options["temperature"] = request.temperature
        if request.stop:
            options["stop"] = list(request.stop)
        return {
            "model": request.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "stream": True,
            "keep_alive": self._keep_alive,
            "options": options,
        }

    def _context_for(self, model: str) -> int:
        return max(self._context_tokens, self._warm_context.get(model, 0))

    async def _get(self, path: str) -> JsonObject:
        reply = await self._http.fetch(f"{self.url}{path}", timeout_s=self._timeout_s)
        if reply.status != 200:
            raise status_error(reply.status, reply.headers, reply.body, has_key=False)
        return parse_json_object(reply.body)


class ChatLinesReader:
    """JSON lines of `/api/chat`; the last one says `"done": true` and carries the counts."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.is_done = False
        self._lines = JsonLinesReader()

    def feed(self, data: bytes) -> tuple[list[CompletionEvent], bool]:
        values = self._lines.feed(data)
        return self._take(values), bool(values)

    def finish(self) -> list[CompletionEvent]:
        return self._take(self._lines.finish())

    def _take(self, values: list[JsonObject]) -> list[CompletionEvent]:
        events: list[CompletionEvent] = []
        for value in values:
            if self.is_done:
                break
            if value.get("error"):
                raise BackendError("bad_reply", f"error in the stream: {_error(value)}")
            message = value.get("message") or {}
            if not isinstance(message, dict):
                raise BackendError("bad_reply", f"message is no object: {excerpt(message)}")
            events += self.answer.add(message.get("content"))
            if value.get("done") is True:
                reason = value.get("done_reason")
                self.answer.finish_reason = reason if isinstance(reason, str) else "stop"
                # A prompt that was in the cache is not counted again: then it is estimated.
                self.answer.count(value.get("prompt_eval_count"), value.get("eval_count"))
                self.is_done = True
        return events


def _error(value: JsonObject) -> str:
    return error_words(value["error"])


def _names(payload: JsonObject) -> dict[str, JsonObject]:
    models = payload.get("models")
    if models is None:
        return {}
    if not isinstance(models, list):
        raise BackendError("bad_reply", f"no list of models: {excerpt(models)}")
    named: dict[str, JsonObject] = {}
    for entry in models[:MODELS_MAX]:
        name = (entry.get("model") or entry.get("name")) if isinstance(entry, dict) else None
        if isinstance(name, str) and 0 < len(name) <= NAME_CHARS_MAX:
            named[name] = cast("JsonObject", entry)
    return named
