"""What the tests of the backends share: one question, asked to the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kowalski.node.backends.http import HttpClient
from kowalski.node.backends.ollama import OllamaBackend
from kowalski.node.backends.openai_http import OpenAiBackend
from kowalski.node.backends.openai_models import OpenAiServer, list_generic
from kowalski.node.backends.seam import (
    Backend,
    BackendError,
    CompletionEvent,
    CompletionRequest,
)
from kowalski.protocol.messages.inference import ChatMessage, Sampling


def estimate(text: str) -> int:
    """A thousand and the words: no server of a test counts like that."""
    return 1000 + len(text.split())


def question(
    text: str = "hello there",
    *,
    max_tokens: int | None = None,
    temperature: float | None = None,
    stop: tuple[str, ...] = (),
    model: str = "scripted",
    **more: Any,  # noqa: ANN401 fields of the request
) -> CompletionRequest:
    return CompletionRequest(
        model,
        (ChatMessage(role="user", content=text),),
        max_tokens,
        temperature,
        **{"sampling": Sampling(stop=stop), **more},
    )


def openai_at(url: str, http: HttpClient, api_key: str | None = None) -> OpenAiBackend:
    server = OpenAiServer("openai", url, f"{url}/v1", api_key)
    return OpenAiBackend(server, http=http, estimate_tokens=estimate, list_by=list_generic)


def ollama_at(url: str, http: HttpClient) -> OllamaBackend:
    return OllamaBackend(url, http=http, estimate_tokens=estimate)


async def ask(
    backend: Backend, request: CompletionRequest, *, idle_timeout_s: float = 5
) -> list[CompletionEvent]:
    async with backend.complete(request, idle_timeout_s=idle_timeout_s) as stream:
        return [event async for event in stream]


async def ask_in_vain(
    backend: Backend, request: CompletionRequest, *, idle_timeout_s: float = 5
) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await ask(backend, request, idle_timeout_s=idle_timeout_s)
    return caught.value


async def exhaust(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


# Fault, after how many tokens, and the code of the error that it must become.
FAILURES = [
    ("stall", 0, "stalled"),
    ("stall", 2, "stalled"),
    ("silent", 0, "stalled"),
    ("error", 0, "bad_reply"),
    ("error", 2, "bad_reply"),
    ("eof", 0, "bad_reply"),
    ("eof", 2, "bad_reply"),
    ("hang_up", 0, "unreachable"),
    ("hang_up", 2, "unreachable"),
    ("garbage", 1, "bad_reply"),
    ("bad_utf8", 1, "bad_reply"),
    ("empty", 0, "bad_reply"),
    ("busy", 0, "overloaded"),
    ("loading", 0, "overloaded"),
    ("broken", 0, "bad_reply"),
    ("missing", 0, "model_missing"),
    ("bad_request", 0, "rejected"),
]
