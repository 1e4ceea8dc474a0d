"""What each server sends, as its reference has it, becomes the same few events."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kowalski.node.backends.http import HttpClient
from kowalski.node.backends.ollama import OllamaBackend
from kowalski.node.backends.openai_http import OpenAiBackend
from kowalski.node.backends.openai_models import OpenAiServer, list_generic
from kowalski.node.backends.seam import (
    Backend,
    BackendError,
    CallPiece,
    Completed,
    CompletionEvent,
    CompletionRequest,
    Counter,
    Delta,
)
from kowalski.protocol.messages.inference import Logprob, TokenLogprob, Tool
from tests.faulty_network import Recording, open_faulty
from tests.node.backends.asking import ask, ask_in_vain, estimate, question

pytestmark = pytest.mark.trio

TOOLS = (Tool(name="look"), Tool(name="go"))


def backend_of(recording: str, http: HttpClient) -> Backend:
    """What reads a recording of this name."""
    kind = recording.split("-", maxsplit=1)[0]
    kind = {"llama": "llama-server", "lm": "lm-studio"}.get(kind, kind)
    if kind == "ollama":
        return OllamaBackend("http://h", http=http, estimate_tokens=estimate)
    server = OpenAiServer(kind, "http://h", "http://h/v1")
    return OpenAiBackend(server, http=http, estimate_tokens=estimate, list_by=list_generic)


# What Ollama's recordings end with.
OLLAMA_END = Completed(
    "stop",
    26,
    3,
    usage_is_estimate=False,
    load_s=0.001334875,
    prompt_s=0.342546,
    generation_s=0.2,
)
LOGPROB = Logprob(token="The", logprob=-0.25, alternatives=(TokenLogprob(token="A", logprob=-1.5),))
CALLS = (CallPiece(0, "call_x", "look", '{"at": 1}'), CallPiece(1, "call_1", "go", "{}"))
COUNTED = Completed("length", 5, 3, usage_is_estimate=False)

ANSWERS: dict[str, tuple[dict[str, Any], list[CompletionEvent]]] = {
    "exo-chat-stream": ({}, [*(Delta(f"tok{n} ") for n in range(3)), COUNTED]),
    "exo-chat-whole": ({}, [Delta("tok0 tok1 tok2 "), COUNTED]),
    "exo-chat-thinking": (
        {},
        [Delta(thinking="hm "), Delta("tok0 "), dataclasses.replace(COUNTED, finish_reason="stop")],
    ),
    "ollama-chat-stream": ({}, [*map(Delta, ("The", " sky", " is")), OLLAMA_END]),
    "ollama-chat-thinking": (
        {"thinking": "on"},
        [
            Delta(thinking="hm"),
            Delta("Blue"),
            dataclasses.replace(OLLAMA_END, thinking_tokens=3),
        ],
    ),
    "ollama-chat-tools": (
        {"tools": TOOLS},
        [Delta(calls=CALLS), dataclasses.replace(OLLAMA_END, finish_reason="tool_calls")],
    ),
    "ollama-chat-logprobs": (
        {"logprobs": 1},
        [Delta("The", logprobs=(LOGPROB,)), OLLAMA_END],
    ),
    "ollama-chat-whole": ({}, [Delta("tok0 tok1 tok2 "), COUNTED]),
    "ollama-generate-stream": (
        {"prompt": "Once"},
        [Delta("tok0 "), Delta("tok1 "), dataclasses.replace(COUNTED, completion_tokens=2)],
    ),
    "llama-server-stream": (
        {},
        [
            *map(Delta, ("the", " node", " 魚")),
            Completed(
                "stop",
                59,
                3,
                usage_is_estimate=False,
                cached_tokens=48,
                prompt_s=1.207 / 1000,
                generation_s=0.646 / 1000,
            ),
        ],
    ),
    "vllm-stream": (
        {},
        [
            Delta(thinking="hm"),
            Delta("Blue"),
            Delta("."),
            Completed("stop", 11, 4, usage_is_estimate=False, thinking_tokens=4),
        ],
    ),
    "vllm-tools": (
        {"tools": TOOLS},
        [
            Delta(calls=(CallPiece(0, "chatcmpl-tool-1", "look"),)),
            Delta(calls=(CallPiece(0, arguments='{"at": 1'),)),
            Delta(calls=(CallPiece(0, arguments="}"),)),
            Completed("tool_calls", 1002, 1000, usage_is_estimate=True),
        ],
    ),
    "sglang-stream": ({}, [Delta("Blue."), Completed("stop", 11, 3, usage_is_estimate=False)]),
    "lm-studio-stream": ({}, [Delta("Blue"), Completed("stop", 11, 2, usage_is_estimate=False)]),
    "openai-stream": ({}, [Delta("Blue."), Completed("stop", 9, 2, usage_is_estimate=False)]),
}


def request_for(recording: str) -> CompletionRequest:
    return question(**ANSWERS[recording][0])


@pytest.mark.parametrize("recording", ANSWERS)
@pytest.mark.parametrize("piece_bytes", [1, 7, 4096])
async def test_every_server_is_understood_however_its_bytes_come(
    recording: str, piece_bytes: int
) -> None:
    give = Recording.read(recording)
    async with open_faulty(lambda _: give, piece_bytes=piece_bytes) as (_network, http):
        assert (
            await ask(backend_of(recording, http), request_for(recording)) == ANSWERS[recording][1]
        )


@pytest.mark.parametrize(
    ("recording", "code", "words"),
    [
        ("exo-runner-died", "bad_reply", "Runner shutdown before completing command"),
        ("exo-worker-died", "bad_reply", "ends in the middle"),
        ("exo-empty", "bad_reply", "empty answer"),
        ("exo-no-instance", "model_missing", "No instance found for model mlx-community/Llama"),
        ("exo-unprocessable", "rejected", "Field required"),
        ("ollama-runner-died", "bad_reply", "unexpected EOF"),
        ("ollama-missing", "model_missing", "model 'llama3.2:3b' not found"),
        ("llama-server-loading", "overloaded", "Loading model"),
        ("llama-server-too-long", "too_long", "exceeds the available context size"),
        ("vllm-too-long", "too_long", "maximum context length is 40960"),
    ],
)
async def test_every_failure_has_its_code_and_the_servers_words(
    recording: str, code: str, words: str
) -> None:
    give = Recording.read(recording)
    async with open_faulty(lambda _: give) as (_network, http):
        error = await ask_in_vain(backend_of(recording, http), question())
    assert error.code == code
    assert words in error.detail


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with open_faulty(lambda _: None) as (network, http):
        network.refuses = True
        with pytest.raises(BackendError) as caught:
            await backend_of("exo", http).health()
    assert caught.value.code == "unreachable"


# --- counts of tokens ---------------------------------------------------------------------------
# Written by hand from the sources of vLLM and SGLang: see `token_counting`.


@pytest.mark.parametrize(
    ("recording", "counts"),
    [
        ("llama-server-tokenize", (4, 0)),
        ("vllm-tokenize", (4, 0)),
        ("sglang-tokenize", (4, 0)),
        ("vllm-tokenize-other-model", None),
        ("vllm-tokenize-other-model-older", None),
        ("vllm-tokenize-no-tokenizer", None),
        ("sglang-tokenize-too-old", None),
    ],
)
async def test_a_server_counts_each_text_that_is_one_or_says_that_it_does_not(
    recording: str, counts: tuple[int, ...] | None
) -> None:
    give = Recording.read(recording)
    async with open_faulty(lambda _: give) as (network, http):
        backend = backend_of(recording, http)
        assert isinstance(backend, Counter)
        assert await backend.count_tokens("m", ["the valve is shut", ""]) == counts
    (asked,) = network.asked
    assert asked.key == "POST /tokenize"
    assert asked.headers["content-type"] == "application/json"  # else vLLM and SGLang refuse it
    text = asked.body.get("content", asked.body.get("prompt"))
    assert text == "the valve is shut"


async def test_a_server_that_fails_to_count_says_so() -> None:
    give = Recording.read("sglang-tokenize-failed")
    async with open_faulty(lambda _: give) as (_network, http):
        backend = backend_of("sglang-tokenize-failed", http)
        assert isinstance(backend, Counter)
        with pytest.raises(BackendError, match="during tokenization") as caught:
            await backend.count_tokens("m", ["the valve is shut"])
    assert caught.value.code == "bad_reply"
