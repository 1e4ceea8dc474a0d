"""Ollama's own API: what is on disk, what is warm, chat as JSON lines, pulls with progress.

Not its OpenAI imitation, which cannot set the context length: Ollama's default cuts long prompts
without a word, so `num_ctx` goes with every request, long enough for it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from kowalski.node.backends import embeddings, features
from kowalski.node.backends import ollama_words as words
from kowalski.node.backends.answers import Answer, AnswerStream, failure, status_error
from kowalski.node.backends.lines import JsonLinesReader, JsonObject, parse_json_object
from kowalski.node.backends.seam import (
    BackendError,
    CompletionEvent,
    Embedded,
    Fetched,
    ModelInfo,
)
from kowalski.node.backends.token_scales import Counted, TokenScales

if TYPE_CHECKING:
    from kowalski.node.backends.http import HttpClient, StreamedReply
    from kowalski.node.backends.seam import CompletionRequest, EmbeddingRequest, EstimateTokens

# What an answer may take where the request does not say.
ANSWER_TOKENS = 1024
# An estimate of tokens may be a tenth short.
ESTIMATE_MARGIN = 1.1
SHOWN_MAX = 1000
SHOWS_AT_A_TIME = 8
# A node does not wait longer than this for the details of many new models: the next look goes on.
SHOW_TIMEOUT_S = 0.25


@dataclass(frozen=True, slots=True)
class _Shown:
    """What `/api/show` told of one version of a model."""

    capabilities: tuple[str, ...]
    context_tokens: int | None


class OllamaBackend:
    """A `Backend` for one Ollama.

    A model is loaded with `context_tokens`, or as many as are loaded already, because another value
    makes Ollama load it again; with more, up to `context_tokens_max`, where a request is longer.
    `keep_alive` is how long the model stays loaded, in Ollama's words.
    """

    name = "ollama"

    def __init__(
        self,
        url: str,
        *,
        http: HttpClient,
        estimate_tokens: EstimateTokens,
        context_tokens: int = 8192,
        context_tokens_max: int = 32_768,
        keep_alive: str = "30m",
        slots: int = 1,
        timeout_s: float = 2.0,
    ) -> None:
        self.url = url
        self._http = http
        self._estimate_tokens = estimate_tokens
        self._scales = TokenScales(estimate_tokens)
        self._context_tokens = context_tokens
        self._context_tokens_max = context_tokens_max
        self._keep_alive = keep_alive
        self._slots = slots
        self._timeout_s = timeout_s
        self._warm_context: dict[str, int] = {}
        self._shown: dict[str, _Shown] = {}
        self._of_name: dict[str, _Shown] = {}

    def left_out(self, request: CompletionRequest, model: ModelInfo) -> tuple[str, ...]:
        return features.left_out(self.name, request, model)

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """All that is on disk, the embedding models among them."""
        on_disk = words.named(await self._get("/api/tags"))
        warm = words.named(await self._get("/api/ps"))
        self._warm_context = {
            name: context
            for name, entry in warm.items()
            if isinstance(context := entry.get("context_length"), int) and context > 0
        }
        await self._show_all(on_disk)
        return tuple(
            ModelInfo(
                name,
                self._context_max(name),
                is_warm=name in warm,
                slots=self._slots,
                size_bytes=size if isinstance(size := entry.get("size"), int) and size > 0 else 0,
                capabilities=shown.capabilities if (shown := self._of_name.get(name)) else (),
            )
            for name, entry in on_disk.items()
        )

    async def health(self) -> None:
        await self._get("/api/version")

    def complete(
        self, request: CompletionRequest, *, idle_timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[CompletionEvent]]:
        """See `Backend.complete`."""
        is_prompt = request.prompt is not None
        body = (words.prompt_body if is_prompt else words.chat_body)(
            request, context_tokens=self._context_for(request), keep_alive=self._keep_alive
        )

        async def read(reply: StreamedReply) -> AsyncIterator[CompletionEvent]:
            if reply.status != 200:
                raise await failure(reply, has_key=False)
            reader = words.ChatLinesReader(Answer(request, self._estimate_tokens))
            answer = AnswerStream(reply, reader, idle_timeout_s=idle_timeout_s)
            return Counted(answer, request, self._scales)

        return self._http.begin(
            "POST",
            f"{self.url}/api/{'generate' if is_prompt else 'chat'}",
            read,
            headers={"Content-Type": "application/json"},
            body=json.dumps(body, ensure_ascii=False).encode(),
            head_timeout_s=idle_timeout_s,
        )

    async def embed(self, request: EmbeddingRequest, *, idle_timeout_s: float) -> Embedded:
        found: list[Embedded] = []
        for texts in embeddings.batches(request.texts):
            body: JsonObject = {
                "model": request.model,
                "input": list(texts),
                "truncate": False,
                "keep_alive": self._keep_alive,
            }
            if request.dimensions is not None:
                body["dimensions"] = request.dimensions
            value = await self._post("/api/embed", body, timeout_s=idle_timeout_s)
            vectors = value.get("embeddings")
            found.append(
                embeddings.embedded(
                    list(map(embeddings.packed, vectors)) if isinstance(vectors, list) else [],
                    value.get("prompt_eval_count"),
                    texts,
                    self._estimate_tokens,
                )
            )
        return embeddings.joined(found)

    @contextlib.asynccontextmanager
    async def pull(
        self, model: str, *, idle_timeout_s: float
    ) -> AsyncIterator[AsyncIterator[Fetched]]:
        """Fetch a model to disk; see `seam.Puller`. What was fetched of one stays for next time."""
        async with self._http.stream(
            "POST",
            f"{self.url}/api/pull",
            headers={"Content-Type": "application/json"},
            body=json.dumps({"model": model, "stream": True}).encode(),
            head_timeout_s=idle_timeout_s,
        ) as reply:
            if reply.status != 200:
                raise await failure(reply, has_key=False)
            steps = self._steps(reply.receive, idle_timeout_s)
            async with contextlib.aclosing(steps):
                yield steps

    async def remove(self, model: str) -> None:
        """Delete a model from disk."""
        await self._post("/api/delete", {"model": model}, method="DELETE", timeout_s=30.0)

    async def unload(self, model: str) -> None:
        """Take a model out of memory."""
        await self._post("/api/generate", {"model": model, "keep_alive": 0}, timeout_s=30.0)

    async def _show_all(self, on_disk: dict[str, JsonObject]) -> None:
        """Ask for what is new; a version of a model never changes what it is."""
        self._of_name = {}
        limit = trio.CapacityLimiter(SHOWS_AT_A_TIME)

        async def show(name: str, version: str) -> None:
            async with limit:
                with contextlib.suppress(BackendError):
                    told = await self._post("/api/show", {"model": name}, timeout_s=self._timeout_s)
                    self._shown[version] = _Shown(
                        words.capabilities(told), words.trained_context(told)
                    )

        versions = {name: f"{name} {entry.get('digest')}" for name, entry in on_disk.items()}
        with trio.move_on_after(SHOW_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for name, version in versions.items():
                    if version not in self._shown and len(self._shown) < SHOWN_MAX:
                        nursery.start_soon(show, name, version)
        known = set(versions.values())
        self._shown = {version: shown for version, shown in self._shown.items() if version in known}
        self._of_name = {
            name: self._shown[version]
            for name, version in versions.items()
            if version in self._shown
        }

    def _context_max(self, model: str) -> int:
        """How long a request may be: what is loaded, or could be."""
        shown = self._of_name.get(model)
        trained = (shown.context_tokens if shown else None) or self._context_tokens
        could_be = min(trained, max(self._context_tokens, self._context_tokens_max))
        return max(could_be, self._warm_context.get(model, 0))

    def _context_for(self, request: CompletionRequest) -> int:
        most = self._context_max(request.model)
        prompt = int(self._scales.estimate(request.model, request.said) * ESTIMATE_MARGIN)
        if prompt > most:
            detail = f"about {prompt} tokens; {request.model} reads {most} here"
            raise BackendError("too_long", detail)
        needed = prompt + (request.max_tokens or ANSWER_TOKENS)
        tokens = max(min(self._context_tokens, most), self._warm_context.get(request.model, 0))
        while tokens < min(needed, most):
            tokens *= 2
        return min(tokens, most)

    async def _steps(
        self, receive: Callable[[], Awaitable[bytes]], idle_timeout_s: float
    ) -> AsyncGenerator[Fetched, None]:
        lines = JsonLinesReader()
        is_over = False
        while not is_over:
            data = b""
            with trio.move_on_after(idle_timeout_s) as waiting:
                data = await receive()
            if waiting.cancelled_caught:
                raise BackendError("stalled", f"no progress for {idle_timeout_s:g} s")
            is_over = not data
            for value in lines.feed(data) if data else lines.finish():
                if value.get("error"):
                    raise words.pull_error(value)
                yield words.fetched(value)
                if value.get("status") == "success":
                    return
        raise BackendError("bad_reply", "the pull ends in the middle")

    async def _get(self, path: str) -> JsonObject:
        reply = await self._http.fetch(f"{self.url}{path}", timeout_s=self._timeout_s)
        if reply.status != 200:
            raise status_error(reply.status, reply.headers, reply.body, has_key=False)
        return parse_json_object(reply.body)

    async def _post(
        self, path: str, body: JsonObject, *, method: str = "POST", timeout_s: float
    ) -> JsonObject:
        reply = await self._http.fetch(
            f"{self.url}{path}",
            method=method,
            headers={"Content-Type": "application/json"},
            body=json.dumps(body, ensure_ascii=False).encode(),
            timeout_s=timeout_s,
            bytes_max=embeddings.BODY_BYTES_MAX,
        )
        if reply.status != 200:
            raise status_error(reply.status, reply.headers, reply.body, has_key=False)
        return parse_json_object(reply.body) if reply.body.strip() else {}
