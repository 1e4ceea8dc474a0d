"""Any server with OpenAI's chat completions: llama-server, vLLM, LM Studio, exo, the cloud's.

Reads streams by what servers send, not by what the reference says: `object` is ignored, usage may
ride on any chunk or be missing, an `error` may arrive under HTTP 200. What each kind of server can
run is told by `openai_models`.
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
    JsonObject,
    SseReader,
    excerpt,
    parse_json,
    parse_json_object,
)
from kowalski.node.backends.seam import BackendError, CompletionEvent

if TYPE_CHECKING:
    from kowalski.node.backends.http import HttpClient
    from kowalski.node.backends.openai_models import ListModels, OpenAiServer
    from kowalski.node.backends.seam import CompletionRequest, EstimateTokens, ModelInfo


class OpenAiBackend:
    """A `Backend` for one such server; `list_by` knows what this kind can run."""

    def __init__(
        self,
        server: OpenAiServer,
        *,
        http: HttpClient,
        estimate_tokens: EstimateTokens,
        list_by: ListModels,
        timeout_s: float = 2.0,
    ) -> None:
        self._server = server
        self._http = http
        self._estimate_tokens = estimate_tokens
        self._list_by = list_by
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def url(self) -> str:
        return self._server.url

    async def list_models(self) -> tuple[ModelInfo, ...]:
        return await self._list_by(self._get_json, self._server)

    async def health(self) -> None:
        await self._get_json(f"{self._server.api_url}/models")

    @contextlib.asynccontextmanager
    async def complete(
        self, request: CompletionRequest, *, idle_timeout_s: float
    ) -> AsyncIterator[AsyncIterator[CompletionEvent]]:
        async with self._http.stream(
            "POST",
            f"{self._server.api_url}/chat/completions",
            headers={"Content-Type": "application/json", **self._server.headers()},
            body=json.dumps(chat_body(request), ensure_ascii=False).encode(),
            head_timeout_s=idle_timeout_s,
        ) as reply:
            if reply.status != 200:
                raise await failure(reply, has_key=self._server.api_key is not None)
            answer = Answer(request, self._estimate_tokens)
            kind = reply.headers.get("content-type", "")
            reader = WholeReader(answer) if "application/json" in kind else ChunkReader(answer)
            yield AnswerStream(reply, reader, idle_timeout_s=idle_timeout_s)

    async def _get_json(self, url: str) -> object:
        reply = await self._http.fetch(
            url, headers=self._server.headers(), timeout_s=self._timeout_s
        )
        if reply.status != 200:
            has_key = self._server.api_key is not None
            raise status_error(reply.status, reply.headers, reply.body, has_key=has_key)
        return parse_json(reply.body)


def chat_body(request: CompletionRequest) -> JsonObject:
    """The request as the server wants it; what is not set is left to the server."""
    body: JsonObject = {
        "model": request.model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.stop:
        body["stop"] = list(request.stop)
    return body


class ChunkReader:
    """Server-sent `chat.completion.chunk` objects, up to `[DONE]` or the end of the body."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.is_done = False
        self._sse = SseReader()

    def feed(self, data: bytes) -> tuple[list[CompletionEvent], bool]:
        payloads = self._sse.feed(data)
        return self._take(payloads), bool(payloads)

    def finish(self) -> list[CompletionEvent]:
        return self._take(self._sse.finish())

    def _take(self, payloads: list[str]) -> list[CompletionEvent]:
        events: list[CompletionEvent] = []
        for payload in payloads:
            if self.is_done:
                break
            if payload.strip() == "[DONE]":
                self.is_done = True
                break
            events += take_completion(parse_json_object(payload), self.answer, part="delta")
        return events


class WholeReader:
    """A server that does not stream: one `chat.completion` object is the body."""

    def __init__(self, answer: Answer, *, bytes_max: int = 16 * 1024 * 1024) -> None:
        self.answer = answer
        self.is_done = False
        self._body = bytearray()
        self._bytes_max = bytes_max

    def feed(self, data: bytes) -> tuple[list[CompletionEvent], bool]:
        self._body += data
        if len(self._body) > self._bytes_max:
            raise BackendError("bad_reply", f"body of more than {self._bytes_max} bytes")
        return [], True

    def finish(self) -> list[CompletionEvent]:
        if not self._body.strip():
            return []
        return take_completion(parse_json_object(bytes(self._body)), self.answer, part="message")


def take_completion(value: JsonObject, answer: Answer, *, part: str) -> list[CompletionEvent]:
    """Move what one completion object says into `answer`; gives the deltas.

    Raises:
        BackendError: it carries an `error`, or is none.
    """
    if value.get("error"):
        raise _stream_error(value["error"])
    usage = value.get("usage")
    if isinstance(usage, dict):
        answer.count(usage.get("prompt_tokens"), usage.get("completion_tokens"))
    choices = value.get("choices")
    # The chunk that carries the usage has no choices.
    if choices is None or choices == []:
        return []
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise BackendError("bad_reply", f"choices are no list of objects: {excerpt(choices)}")
    choice = cast("JsonObject", choices[0])
    piece = choice.get(part) or {}
    if not isinstance(piece, dict):
        raise BackendError("bad_reply", f"{part} is no object: {excerpt(piece)}")
    events = answer.add(piece.get("content"))
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason:
        answer.finish_reason = reason
    return events


def _stream_error(error: object) -> BackendError:
    code = error.get("code") if isinstance(error, dict) else None
    words = error_words(error)
    if code in (429, 503):
        return BackendError("overloaded", words)
    if code == 404:
        return BackendError("model_missing", words)
    return BackendError("bad_reply", f"error in the stream: {words}")
