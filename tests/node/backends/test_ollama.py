"""Ollama's API: JSON lines, warm models, the context length that must be asked for."""

from __future__ import annotations

import dataclasses

import pytest
import trio
from trio.testing import MockClock

from kowalski.node.backends.answers import Answer
from kowalski.node.backends.http import open_http
from kowalski.node.backends.ollama import OllamaBackend
from kowalski.node.backends.ollama_words import ChatLinesReader
from kowalski.node.backends.seam import (
    BackendError,
    Completed,
    Delta,
    Fetched,
    ModelInfo,
    Puller,
)
from tests.faulty_network import Asked, Fault, FaultKind, Recording, giving_by, open_faulty
from tests.node.backends.asking import (
    FAILURES,
    ask,
    ask_in_vain,
    estimate,
    ollama_at,
    question,
)
from tests.scripted_model_server import Act, Script, open_scripted_server
from tests.scripted_model_server import Fault as ScriptedFault


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
async def test_every_way_to_fail_has_its_code(fault: ScriptedFault, after: int, code: str) -> None:
    script = Script(otherwise=Act("a b c d", fault, after))
    wait_s = 0.2 if code == "stalled" else 20.0
    async with open_scripted_server(script, flavour="ollama") as server, open_http() as http:
        error = await ask_in_vain(ollama_at(server.url, http), question(), idle_timeout_s=wait_s)
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


# --- what is on disk ----------------------------------------------------------------------------

LISTS = {"GET /api/tags": "ollama-tags", "GET /api/ps": "ollama-ps"}


def listing(asked: Asked) -> Recording | None:
    if asked.key == "POST /api/show":
        return Recording.read(f"ollama-show-{asked.body['model'].replace(':', '_')}")
    return giving_by(LISTS)(asked)  # type: ignore[return-value] a recording or nothing


@pytest.mark.trio
async def test_what_is_on_disk_is_listed_with_what_each_model_can() -> None:
    async with open_faulty(listing) as (network, http):
        backend = ollama_at("http://h", http)
        listed = await backend.list_models()
        assert listed == (
            ModelInfo(
                "llama3.2:3b",
                32768,
                is_warm=True,
                size_bytes=2019393189,
                capabilities=("chat", "tools"),
            ),
            ModelInfo(
                "nomic-embed-text:latest", 2048, size_bytes=274302450, capabilities=("embed",)
            ),
        )
        before = len(network.asked)
        assert await backend.list_models() == listed
        # A version of a model does not change: it is asked for once.
        assert [one.path for one in network.asked[before:]] == ["/api/tags", "/api/ps"]


@pytest.mark.trio
async def test_details_that_do_not_come_hold_nobody_up(autojump_clock: MockClock) -> None:
    async with open_faulty(giving_by(LISTS)) as (_network, http):
        assert [one.capabilities for one in await ollama_at("http://h", http).list_models()] == [
            (),
            (),
        ]

    def stalling(asked: Asked) -> Recording | bytes | None:
        return b"HTTP/1.1 200 OK\r\n" if asked.path == "/api/show" else giving_by(LISTS)(asked)

    async with open_faulty(stalling) as (network, http):
        network.fault = Fault("stall", 17)
        backend = ollama_at("http://h", http)
        with pytest.raises(BackendError, match="unreachable"):
            await backend.list_models()  # the lists themselves stall too
        assert trio.current_time() == 2


@pytest.mark.trio
async def test_the_context_grows_with_the_request_up_to_what_the_model_reads() -> None:
    answers = {**LISTS, "POST /api/chat": "ollama-chat-stream"}

    def give(asked: Asked) -> Recording | bytes | None:
        return giving_by(answers)(asked) if asked.key in answers else listing(asked)

    async with open_faulty(give) as (network, http):
        backend = OllamaBackend("http://h", http=http, estimate_tokens=len)
        await backend.list_models()
        for chars in (100, 10_000, 29_000):
            await ask(backend, question("x" * chars, model="llama3.2:3b", max_tokens=500))
        asked = [one.body["options"]["num_ctx"] for one in network.asked if "chat" in one.path]
        assert asked == [8192, 16384, 32768]
        error = await ask_in_vain(backend, question("x" * 40_000, model="llama3.2:3b"))
        assert error.code == "too_long"
        assert "llama3.2:3b reads 32768 here" in error.detail


# --- pulls --------------------------------------------------------------------------------------


async def pull(backend: Puller, *, idle_timeout_s: float = 30) -> list[Fetched]:
    async with backend.pull("nomic-embed-text", idle_timeout_s=idle_timeout_s) as steps:
        return [step async for step in steps]


@pytest.mark.trio
async def test_a_pull_tells_how_far_it_is() -> None:
    async with open_faulty(giving_by({"POST /api/pull": "ollama-pull"})) as (network, http):
        steps = await pull(ollama_at("http://h", http))
    assert [(step.stage, step.bytes_done) for step in steps] == [
        ("preparing", 0),
        ("downloading", 0),
        ("downloading", 137145328),
        ("downloading", 274290656),
        ("verifying", 0),
        ("preparing", 0),
        ("ready", 0),
    ]
    assert network.asked[0].body == {"model": "nomic-embed-text", "stream": True}


@pytest.mark.trio
@pytest.mark.parametrize(
    ("recording", "code"),
    [
        ("ollama-pull-missing", "model_missing"),
        ("ollama-pull-offline", "unreachable"),
        ("ollama-missing", "model_missing"),
    ],
)
async def test_a_pull_that_fails_says_why(recording: str, code: str) -> None:
    async with open_faulty(giving_by({"POST /api/pull": recording})) as (_network, http):
        with pytest.raises(BackendError) as caught:
            await pull(ollama_at("http://h", http))
    assert caught.value.code == code


@pytest.mark.trio
@pytest.mark.parametrize("kind", ["close", "stall"])
async def test_a_pull_that_breaks_off_at_any_byte_is_told(
    kind: FaultKind, autojump_clock: MockClock
) -> None:
    give = dataclasses.replace(Recording.read("ollama-pull"), goes_on_until_close=kind == "close")
    end = give.raw.index(b"success")
    for at in range(0, end, 5):
        async with open_faulty(lambda _: give, Fault(kind, at)) as (_network, http):
            with trio.fail_after(100), pytest.raises(BackendError) as caught:
                await pull(ollama_at("http://h", http))
        assert caught.value.code in ("stalled", "unreachable", "bad_reply")


@pytest.mark.trio
async def test_models_are_removed_and_unloaded() -> None:
    empty = Recording("HTTP/1.1 200 OK", b"")
    async with open_faulty(lambda _: empty) as (network, http):
        backend = ollama_at("http://h", http)
        await backend.remove("m")
        await backend.unload("m")
    assert [(one.key, one.body) for one in network.asked] == [
        ("DELETE /api/delete", {"model": "m"}),
        ("POST /api/generate", {"model": "m", "keep_alive": 0}),
    ]
    async with open_faulty(lambda _: None) as (_network, http):
        with pytest.raises(BackendError, match="model_missing"):
            await ollama_at("http://h", http).remove("m")


@pytest.mark.trio
async def test_what_a_model_counted_makes_room_for_its_next_prompt() -> None:
    end = (
        b'{"message":{"role":"assistant","content":"x"},"done":true,"done_reason":"stop",'
        b'"prompt_eval_count":12000,"eval_count":1}\n'
    )

    def give(asked: Asked) -> Recording | bytes | None:
        return Recording("HTTP/1.1 200 OK", end) if "chat" in asked.path else listing(asked)

    async with open_faulty(give) as (network, http):
        backend = OllamaBackend("http://h", http=http, estimate_tokens=len)
        await backend.list_models()
        for _ in range(2):
            await ask(backend, question("x" * 6000, model="llama3.2:3b", max_tokens=500))
        asked = [one.body["options"]["num_ctx"] for one in network.asked if "chat" in one.path]
        assert asked == [8192, 16384], "Ollama would have cut the second without a word"
        error = await ask_in_vain(backend, question("x" * 20_000, model="llama3.2:3b"))
        assert error.code == "too_long"
