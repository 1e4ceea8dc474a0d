"""Any server with OpenAI's chat completions: llama-server, vLLM, LM Studio, exo, the cloud's.

What its words mean is told by `openai_words`, what each kind of server can run by `openai_models`,
what each honours by `features`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.backends import embeddings, features, token_counting
from kowalski.node.backends.answers import Answer, AnswerStream, failure, status_error
from kowalski.node.backends.lines import parse_json, parse_json_object
from kowalski.node.backends.openai_words import ChunkReader, WholeReader, chat_body, prompt_body
from kowalski.node.backends.seam import (
    BackendError,
    CompletionEvent,
    Embedded,
    EmbeddingRequest,
    ModelInfo,
)

if TYPE_CHECKING:
    from kowalski.node.backends.http import HttpClient, Reply, StreamedReply
    from kowalski.node.backends.openai_models import ListModels, OpenAiServer
    from kowalski.node.backends.seam import CompletionRequest, EstimateTokens

EMBEDDING_TRIAL_S = 0.3


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
        self._has_embeddings: bool | None = None

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def url(self) -> str:
        return self._server.url

    def left_out(self, request: CompletionRequest, model: ModelInfo) -> tuple[str, ...]:
        return features.left_out(self.name, request, model)

    async def list_models(self) -> tuple[ModelInfo, ...]:
        models = await self._list_by(self._get_json, self._server)
        if self.name != "llama-server" or not models or not models[0].capabilities:
            return models
        if self._has_embeddings is None:
            self._has_embeddings = await self._try_embedding(models[0].name)
        if not self._has_embeddings:
            return models
        return tuple(
            dataclasses.replace(one, capabilities=(*one.capabilities, "embed")) for one in models
        )

    async def _try_embedding(self, model: str) -> bool | None:
        """Whether it was started with `--embeddings`, which it tells nowhere; None: unknown."""
        try:
            request = EmbeddingRequest(model, ("a",))
            await self.embed(request, idle_timeout_s=EMBEDDING_TRIAL_S)
        except BackendError as error:
            return None if error.code in ("unreachable", "stalled", "overloaded") else False
        return True

    async def health(self) -> None:
        await self._get_json(f"{self._server.api_url}/models")

    def complete(
        self, request: CompletionRequest, *, idle_timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[CompletionEvent]]:
        """See `Backend.complete`."""
        is_prompt = request.prompt is not None
        path = "completions" if is_prompt else "chat/completions"
        body = (prompt_body if is_prompt else chat_body)(request, self.name)

        async def read(reply: StreamedReply) -> AsyncIterator[CompletionEvent]:
            if reply.status != 200:
                error = await failure(reply, has_key=self._server.api_key is not None)
                if is_prompt and reply.status == 404 and self.name == "openai":
                    # It may as well lack the path as the model.
                    raise BackendError("unsupported", f"raw prompts: {error.detail}")
                raise error
            answer = Answer(request, self._estimate_tokens)
            kind = reply.headers.get("content-type", "")
            reader = WholeReader(answer) if "application/json" in kind else ChunkReader(answer)
            return AnswerStream(reply, reader, idle_timeout_s=idle_timeout_s)

        return self._http.begin(
            "POST",
            f"{self._server.api_url}/{path}",
            read,
            headers=self._headers,
            body=json.dumps(body, ensure_ascii=False).encode(),
            head_timeout_s=idle_timeout_s,
        )

    async def embed(self, request: EmbeddingRequest, *, idle_timeout_s: float) -> Embedded:
        if self.name == "exo":
            raise BackendError("unsupported", "exo has no embeddings")
        found: list[Embedded] = []
        for texts in embeddings.batches(request.texts):
            body = embeddings.openai_body(request, texts, self.name)
            reply = await self._http.fetch(
                f"{self._server.api_url}/embeddings",
                method="POST",
                headers=self._headers,
                body=json.dumps(body, ensure_ascii=False).encode(),
                timeout_s=idle_timeout_s,
                bytes_max=embeddings.BODY_BYTES_MAX,
            )
            if reply.status != 200:
                raise self._status_error(reply)
            value = parse_json_object(reply.body)
            found.append(embeddings.openai_embedded(value, texts, self._estimate_tokens))
        return embeddings.joined(found)

    async def count_tokens(self, model: str, texts: Sequence[str]) -> tuple[int, ...] | None:
        """See `seam.Counter`; llama-server, vLLM and SGLang tell, each text in a request."""
        if self.name not in token_counting.KINDS:
            return None
        counts = [0] * len(texts)
        limit = trio.CapacityLimiter(token_counting.AT_A_TIME)

        async def count(number: int, text: str) -> None:
            async with limit:
                body = token_counting.body(self.name, model, text)
                reply = await self._http.fetch(
                    f"{self._server.url}/tokenize",
                    method="POST",
                    headers=self._headers,
                    body=json.dumps(body, ensure_ascii=False).encode(),
                    timeout_s=token_counting.TIMEOUT_S,
                    bytes_max=token_counting.BODY_BYTES_MAX,
                )
            if reply.status != 200:
                raise self._status_error(reply)
            counts[number] = token_counting.counted(parse_json_object(reply.body))

        try:
            async with open_plain_nursery() as nursery:
                for number, text in enumerate(texts):
                    if text:
                        nursery.start_soon(count, number, text)
        except BackendError as error:
            if error.code in token_counting.NOT_THERE:
                return None
            raise
        return tuple(counts)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", **self._server.headers()}

    async def _get_json(self, url: str) -> object:
        reply = await self._http.fetch(
            url, headers=self._server.headers(), timeout_s=self._timeout_s
        )
        if reply.status != 200:
            raise self._status_error(reply)
        return parse_json(reply.body)

    def _status_error(self, reply: Reply) -> BackendError:
        has_key = self._server.api_key is not None
        return status_error(reply.status, reply.headers, reply.body, has_key=has_key)
