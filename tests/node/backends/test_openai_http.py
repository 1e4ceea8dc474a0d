"""The OpenAI dialect against every way in which a server can fail."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.backends.http import open_http
from kowalski.node.backends.openai_http import OpenAiBackend
from kowalski.node.backends.openai_models import OpenAiServer, list_generic
from kowalski.node.backends.seam import (
    BackendError,
    ChatMessage,
    Completed,
    CompletionRequest,
    Delta,
)
from tests.scripted_model_server import Act, Script, open_scripted_server

pytestmark = pytest.mark.trio


def count_words(text: str) -> int:
    return 1000 + len(text.split())


def request(text: str = "hello there", **more) -> CompletionRequest:
    return CompletionRequest("scripted", (ChatMessage("user", text),), **more)


def backend_at(url: str, http, *, api_key: str | None = None) -> OpenAiBackend:
    server = OpenAiServer("openai", url, f"{url}/v1", api_key)
    return OpenAiBackend(server, http=http, estimate_tokens=count_words, list_by=list_generic)


async def ask(url: str, asked: CompletionRequest, *, idle_timeout_s: float = 5, api_key=None):
    events = []
    async with open_http() as http:
        backend = backend_at(url, http, api_key=api_key)
        async with backend.complete(asked, idle_timeout_s=idle_timeout_s) as stream:
            async for event in stream:
                events.append(event)
    return events


async def test_an_answer_comes_in_pieces_and_ends_with_the_usage_of_the_server() -> None:
    async with open_scripted_server("one two three") as server:
        events = await ask(server.url, request())
    assert events == [Delta("one"), Delta(" two"), Delta(" three"), Completed("stop", 2, 3, False)]


async def test_the_limit_of_tokens_reaches_the_server() -> None:
    async with open_scripted_server("one two three") as server:
        events = await ask(server.url, request(max_tokens=2))
    assert events[-1] == Completed("length", 2, 2, False)


FAILURES = [
    ("stall", 2, "stalled"),
    ("stall", 0, "stalled"),
    ("silent", 0, "stalled"),
    ("keepalive", 0, "stalled"),
    ("keepalive", 2, "stalled"),
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


@pytest.mark.parametrize(("fault", "after", "code"), FAILURES)
async def test_every_way_to_fail_has_its_code(fault, after, code) -> None:
    async with open_scripted_server(Script(otherwise=Act("a b c d", fault, after))) as server:
        with pytest.raises(BackendError) as caught:
            await ask(server.url, request(), idle_timeout_s=0.3)
    assert caught.value.code == code
    if code == "overloaded":
        assert caught.value.retry_after_s == 7
