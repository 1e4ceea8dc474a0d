"""Ollama's API: JSON lines, warm models, the context length that must be asked for."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.backends.answers import Answer
from kowalski.node.backends.http import open_http
from kowalski.node.backends.ollama_words import ChatLinesReader
from kowalski.node.backends.seam import BackendError, Completed, Delta
from tests.node.backends.asking import (
    FAILURES,
    ask,
    ask_in_vain,
    estimate,
    ollama_at,
    question,
)
from tests.scripted_model_server import Act, Fault, Script, open_scripted_server


@pytest.mark.trio
async def test_an_answer_comes_in_pieces_and_ends_with_the_counts() -> None:
    async with (
        open_scripted_server("one two three", flavour="ollama") as server,
        open_http() as http,
    ):
        events = await ask(ollama_at(server.url, http), question(max_tokens=2))
    assert events == [Delta("one"), Delta(" two"), Completed("length", 2, 2, False)]


@pytest.mark.trio
async def test_the_context_length_and_the_time_to_stay_go_with_every_request() -> None:
    request = question(temperature=0.5, stop=("\n",))
    async with open_scripted_server(flavour="ollama") as server, open_http() as http:
        await ask(ollama_at(server.url, http), request)
    assert server.calls[0].body == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "hello there"}],
        "stream": True,
        "keep_alive": "30m",
        "options": {"num_ctx": 8192, "temperature": 0.5, "stop": ["\n"]},
    }


@pytest.mark.trio
async def test_a_model_that_is_loaded_with_more_context_is_not_loaded_again() -> None:
    models = ("warm", "cold")
    async with open_scripted_server(flavour="ollama", models=models) as server, open_http() as http:
        backend = ollama_at(server.url, http)
        await backend.health()
        listed = await backend.list_models()
        for model in models:
            await ask(backend, question(model=model))
    assert [(one.name, one.context_tokens, one.is_warm, one.slots) for one in listed] == [
        ("warm", 32768, True, 1),
        ("cold", 32768, False, 1),
    ]
    assert [call.body["options"]["num_ctx"] for call in server.calls] == [16384, 8192]


@pytest.mark.trio
@pytest.mark.parametrize(("fault", "after", "code"), FAILURES)
async def test_every_way_to_fail_has_its_code(fault: Fault, after: int, code: str) -> None:
    script = Script(otherwise=Act("a b c d", fault, after))
    async with open_scripted_server(script, flavour="ollama") as server, open_http() as http:
        error = await ask_in_vain(ollama_at(server.url, http), question(), idle_timeout_s=0.2)
    assert error.code == code
    assert error.retry_after_s == (7 if code == "overloaded" else None)


@pytest.mark.trio
async def test_the_server_notices_within_a_second_that_nobody_listens() -> None:
    script = Script(otherwise=Act("a b c d", "stall", 1))
    async with open_scripted_server(script, flavour="ollama") as server, open_http() as http:
        async with ollama_at(server.url, http).complete(question(), idle_timeout_s=60) as stream:
            await anext(stream)
        with trio.fail_after(1):
            await server.wait_until(lambda stats: stats.clients_left == 1)


def test_a_prompt_that_was_in_the_cache_is_estimated() -> None:
    answer = Answer(question(), estimate)
    reader = ChatLinesReader(answer)
    reader.feed(b'{"message":{"content":"a"},"done":true,"eval_count":1}')
    assert reader.finish() == [Delta("a")]
    assert answer.completed() == Completed("stop", 1002, 1, True)


@pytest.mark.parametrize("line", [b'{"message":3}', b'{"message":{"content":3}}', b"[]"])
def test_lines_of_another_shape_are_a_bad_reply(line: bytes) -> None:
    with pytest.raises(BackendError) as caught:
        ChatLinesReader(Answer(question(), estimate)).feed(line + b"\n")
    assert caught.value.code == "bad_reply"
