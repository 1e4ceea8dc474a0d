"""Servers that end, stall, garble, delay and lie at every byte: an answer is whole or a failure."""

from __future__ import annotations

import json
from typing import get_args

import pytest
import trio
from trio.testing import MockClock

from kowalski.node.backends.seam import BackendError, Delta
from kowalski.protocol.messages.inference import Tool
from tests.faulty_network import FaultKind, Recording, open_faulty
from tests.node.backends.asking import ask, ask_in_vain, question
from tests.node.backends.striking import strike_all
from tests.node.backends.test_recordings import ANSWERS, backend_of

# All bytes of all recordings: `python -m tests.node.backends.striking`.
STRIDE = 41


@pytest.mark.parametrize("kind", get_args(FaultKind))
@pytest.mark.parametrize("recording", ANSWERS)
def test_a_fault_anywhere_is_survived_or_told(recording: str, kind: FaultKind) -> None:
    assert strike_all(recording, kind, STRIDE, start=hash_of(recording, kind)) == []


def hash_of(recording: str, kind: str) -> int:
    """Where to start, so that together the tests strike all over the place."""
    return sum(map(ord, recording + kind)) % STRIDE


@pytest.mark.parametrize("kind", ["close", "stall"])
def test_an_answer_of_ollama_that_breaks_off_at_any_byte_is_told(kind: FaultKind) -> None:
    assert strike_all("ollama-generate-stream", kind) == []


# --- lies ---------------------------------------------------------------------------------------


def sse(*payloads: object, ends: bool = True) -> Recording:
    texts = [text if isinstance(text, str) else json.dumps(text) for text in payloads]
    body = "".join(f"data: {text}\n\n" for text in [*texts, *(["[DONE]"] if ends else [])])
    return Recording("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", body.encode())


def lines(*payloads: object) -> Recording:
    body = "".join(json.dumps(payload) + "\n" for payload in payloads)
    return Recording("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", body.encode())


def piece(content: object, reason: object = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": reason}]}


RAW = Recording.read("openai-stream").raw

LIES: dict[str, tuple[str, Recording | bytes]] = {
    "done before a word": ("openai", sse()),
    "done, though no reason and no word": ("openai", sse(piece(""))),
    "a reason that is a failure": ("openai", sse(piece("x"), piece("", "error"))),
    "an answer that was given up": ("vllm", sse(piece("x", "abort"))),
    "a model that was taken away": (
        "ollama",
        lines({"message": {"content": "x"}, "done": True, "done_reason": "unload"}),
    ),
    "a reason that is a number": ("openai", sse(piece("", 3))),
    "a shorter body than it says": ("openai", RAW.replace(b"64\r\n", b"6f\r\n", 1)),
    "a chunk of a negative size": ("openai", RAW.replace(b"64\r\n", b"-1\r\n", 1)),
    "a chunk of a googol": ("openai", RAW.replace(b"64\r\n", b"f" * 30 + b"\r\n", 1)),
    "another protocol": ("openai", b"SSH-2.0-OpenSSH_9.6\r\n"),
    "two lengths": (
        "ollama",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    ),
    "a redirect": ("openai", b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
    "an informational answer only": ("openai", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "an error and then the rest": ("openai", sse({"error": "no"}, piece("x", "stop"))),
    "HTML": ("openai", Recording("HTTP/1.1 200 OK\nContent-Type: text/html", b"<html></html>")),
    "a message that is a list": ("ollama", lines({"message": ["x"]})),
    "done as a word": ("ollama", lines({"message": {"content": ""}, "done": "true"})),
    "an error that is an object": ("ollama", lines({"error": {"message": "no"}})),
    "a name for a call that is none": (
        "ollama",
        lines({"message": {"content": "", "tool_calls": [{"function": {"name": 3}}]}}),
    ),
    "a line without an end": ("openai", sse("x" * (4 * 1024 * 1024 + 1), ends=False)),
}


@pytest.mark.trio
@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_a_failure_and_no_answer(lie: str, autojump_clock: MockClock) -> None:
    kind, given = LIES[lie]
    async with open_faulty(lambda _: given) as (_network, http):
        error = await ask_in_vain(backend_of(kind, http), question(), idle_timeout_s=10)
    assert error.code in ("bad_reply", "unreachable")
    assert error.detail


HARMLESS: dict[str, Recording] = {
    "counts that are none": sse(
        piece("x", "stop"), {"usage": {"prompt_tokens": -5, "completion_tokens": 1e99}}
    ),
    "an answer in the name of another model": sse({"model": "evil", **piece("x", "stop")}),
    "choices behind the end": sse(piece("x", "stop"), "[DONE]", piece("y")),
    "a second choice": sse({"choices": [piece("x", "stop")["choices"][0], {"delta": {}}]}),  # type: ignore[index] a list
}


@pytest.mark.trio
@pytest.mark.parametrize("lie", HARMLESS)
async def test_a_lie_that_does_not_matter_does_no_harm(lie: str) -> None:
    async with open_faulty(lambda _: HARMLESS[lie]) as (_network, http):
        events = await ask(backend_of("openai", http), question())
    assert [getattr(event, "text", "end") for event in events] == ["x", "end"]


@pytest.mark.trio
async def test_comments_for_ever_are_no_answer(autojump_clock: MockClock) -> None:
    """As exo sends them when the master was lost: the stream never ends."""
    body = b": keep-alive\n\n" * 1000
    endless = Recording("HTTP/1.1 200 OK\nContent-Type: text/event-stream\nchunked: no", body)
    async with open_faulty(lambda _: endless, piece_bytes=14) as (network, http):
        backend = backend_of("exo", http)
        network.second_per_piece = True
        with trio.fail_after(80):
            error = await ask_in_vain(backend, question(), idle_timeout_s=60)
        assert error.code == "stalled"
        assert network.left == 1


@pytest.mark.trio
async def test_what_came_before_a_fault_was_delivered(autojump_clock: MockClock) -> None:
    give = Recording.read("exo-worker-died")
    async with (
        open_faulty(lambda _: give) as (_network, http),
        backend_of("exo", http).complete(question(), idle_timeout_s=9) as stream,
    ):
        assert await anext(stream) == Delta("tok0 ")
        with pytest.raises(BackendError, match="ends in the middle"):
            await anext(stream)


# --- silence ------------------------------------------------------------------------------------


def slowly(*parts: bytes) -> Recording:
    """One part a second; all are as long as the longest."""
    size = max(map(len, parts))
    body = b"".join(part.ljust(size, b"\n") for part in parts)
    return Recording("HTTP/1.1 200 OK\nContent-Type: text/event-stream", body)


SAID = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
KEPT = b": keep-alive\n\n"
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.trio
@pytest.mark.parametrize(("tools", "least_s"), [((), 20), ((Tool(name="look"),), 60)])
async def test_an_answer_that_has_begun_is_not_waited_for_as_long_as_one_that_has_not(
    tools: tuple[Tool, ...], least_s: float, autojump_clock: MockClock
) -> None:
    """Unless it may become a call of a tool, which servers hold back until it is whole."""
    give = slowly(SAID, *[KEPT] * 100)
    async with open_faulty(lambda _: give, piece_bytes=len(SAID)) as (network, http):
        network.second_per_piece = True
        began = trio.current_time()
        error = await ask_in_vain(backend_of("exo", http), question(tools=tools), idle_timeout_s=60)
    assert error.code == "stalled"
    assert least_s <= trio.current_time() - began <= least_s + 5


@pytest.mark.trio
async def test_a_prompt_that_is_being_read_is_no_silence(autojump_clock: MockClock) -> None:
    """exo tells how far it is in comments; a comment that says the same again is none."""
    reading = [b': prefill_progress {"processed":%d,"total":90}\n\n' % n for n in range(90)]
    give = slowly(*reading, SAID, END)
    size = max(map(len, (*reading, SAID, END)))
    async with open_faulty(lambda _: give, piece_bytes=size) as (network, http):
        network.second_per_piece = True
        events = await ask(backend_of("exo", http), question(), idle_timeout_s=10)
        assert events[0] == Delta("x")
        assert trio.current_time() > 80
        stuck = slowly(*reading[:1], *reading[1:2] * 90)
        network.give = lambda _: stuck
        error = await ask_in_vain(backend_of("exo", http), question(), idle_timeout_s=10)
    assert error.code == "stalled"
