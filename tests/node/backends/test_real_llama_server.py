"""Real llama.cpp: the protocol, never the prose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from kowalski.node.backends.http import HttpClient, open_http
from kowalski.node.backends.probing import candidate, probe
from kowalski.node.backends.seam import Backend, Completed, CompletionRequest, Delta
from kowalski.protocol.messages.inference import ChatMessage
from kowalski.rlm.tokens import estimate_tokens
from tests.tiny_gguf import CONTEXT_TOKENS
from tests.tiny_llama_server import MODEL, open_tiny_llama_server

pytest.importorskip("xllamacpp", reason="the extra [llama] is not installed")
pytestmark = [pytest.mark.trio, pytest.mark.real]

QUESTION = (ChatMessage(role="user", content="the node and the mesh"),)

# Greedy, because then the tiny model never says that it is done: more than ten seconds of work.
ENDLESS = CompletionRequest(MODEL, QUESTION, max_tokens=CONTEXT_TOKENS - 100, temperature=0.0)


async def find(url: str, http: HttpClient) -> Backend:
    (finding,) = await probe([candidate(url)], http=http, estimate_tokens=estimate_tokens)
    assert finding.kind == "llama-server"
    assert finding.backend is not None
    return finding.backend


async def is_busy(url: str, http: HttpClient) -> bool:
    reply = await http.fetch(f"{url}/slots", timeout_s=2)
    return b'"is_processing":true' in reply.body.replace(b" ", b"")


async def test_a_real_llama_server_is_found_listed_and_answers_within_the_limit(
    tmp_path: Path,
) -> None:
    async with open_tiny_llama_server(tmp_path) as url, open_http() as http:
        backend = await find(url, http)
        (model,) = await backend.list_models()
        assert (model.name, model.slots, model.is_warm) == (MODEL, 2, True)
        assert model.context_tokens == CONTEXT_TOKENS
        await backend.health()
        request = CompletionRequest(MODEL, QUESTION, max_tokens=5)
        async with backend.complete(request, idle_timeout_s=10) as stream:
            events = [event async for event in stream]
        *deltas, end = events
        assert deltas
        assert all(isinstance(delta, Delta) for delta in deltas)
        assert isinstance(end, Completed)
        assert end.finish_reason == "length"
        assert end.completion_tokens == 5
        assert end.prompt_tokens > 5
        assert not end.usage_is_estimate


async def test_leaving_early_frees_the_slot_of_a_real_llama_server(tmp_path: Path) -> None:
    async with open_tiny_llama_server(tmp_path, slots=1) as url, open_http() as http:
        backend = await find(url, http)
        async with backend.complete(ENDLESS, idle_timeout_s=10) as stream:
            first = await anext(stream)
            was_busy = await is_busy(url, http)
        assert isinstance(first, Delta)
        assert was_busy
        with trio.fail_after(1):
            while await is_busy(url, http):
                pass  # Every look is a request: this waits.


async def test_a_cancelled_task_frees_the_slot_too(tmp_path: Path) -> None:
    async with open_tiny_llama_server(tmp_path, slots=1) as url, open_http() as http:
        backend = await find(url, http)

        async def read(*, task_status: trio.TaskStatus[None]) -> None:
            async with backend.complete(ENDLESS, idle_timeout_s=10) as stream:
                await anext(stream)
                task_status.started()
                await _exhaust(stream)

        async with trio.open_nursery() as nursery:
            await nursery.start(read)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            while await is_busy(url, http):
                pass  # Every look is a request: this waits.


async def _exhaust(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass
