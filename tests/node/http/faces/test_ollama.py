"""Ollama's own interface."""

import base64
import json
import struct

import pytest

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.ollama import (
    LineStream,
    chat_answer,
    chat_asked,
    embed_answer,
    embed_asked,
    generate_answer,
    generate_asked,
    is_unloading,
    loaded_answer,
)
from kowalski.protocol.messages.inference import CompletionDelta, EmbeddingsDone
from tests.node.http.faces.replies import CALL, CALL_PIECES, USAGE, WHERE, answered

Body = dict[str, object]
NOW = 1_800_000_000.0
USER = {"role": "user", "content": "hello"}


def lines(data: bytes) -> list[Body]:
    return [json.loads(line) for line in data.splitlines()]


def test_a_chat_streams_unless_it_says_otherwise() -> None:
    asked = chat_asked({"model": "m", "messages": [USER]}, remaining_s=60)
    assert asked is not None
    assert asked.wants_stream
    asked = chat_asked({"model": "m", "messages": [USER], "stream": False}, remaining_s=60)
    assert asked is not None
    assert not asked.wants_stream


def test_options_tools_and_pictures_are_passed_on() -> None:
    function = {"name": "look", "description": "d", "parameters": {"type": "object"}}
    asked = chat_asked(
        {
            "model": "m",
            "messages": [
                {**USER, "images": [base64.b64encode(b"p").decode()]},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "look", "arguments": {"x": 1}}}],
                },
                {"role": "tool", "tool_name": "look", "content": "seen"},
            ],
            "tools": [{"type": "function", "function": function}],
            "format": {"type": "object"},
            "think": False,
            "keep_alive": "5m",
            "options": {
                "temperature": 0,
                "num_predict": 9,
                "num_ctx": 8192,
                "stop": ["END"],
                "seed": 3,
                "repeat_penalty": 1.1,
            },
        },
        remaining_s=60,
    )
    assert asked is not None
    told = asked.completion
    assert told.messages[0].images == (0,)
    assert told.messages[1].tool_calls[0].arguments == '{"x":1}'
    assert told.messages[2].tool_call == "look"
    assert told.tools[0].name == "look"
    assert (told.json_schema, told.thinking) == ('{"type":"object"}', "off")
    assert (told.temperature, told.max_tokens) == (0, 9)
    assert (told.sampling.stop, told.sampling.seed) == (("END",), 3)
    assert asked.pictures[0].data == b"p"


def test_any_number_of_tokens_is_no_number() -> None:
    body: Body = {"model": "m", "prompt": "x", "options": {"num_predict": -1}}
    asked = generate_asked(body, remaining_s=60)
    assert asked is not None
    assert asked.completion.max_tokens is None


def test_a_text_to_go_on_with_raw_or_as_a_question() -> None:
    raw = generate_asked({"model": "m", "prompt": "once", "raw": True}, remaining_s=60)
    assert raw is not None
    assert (raw.completion.prompt, raw.completion.messages) == ("once", ())
    body: Body = {"model": "m", "prompt": "hello", "system": "be brief", "format": "json"}
    asked = generate_asked(body, remaining_s=60)
    assert asked is not None
    assert [one.role for one in asked.completion.messages] == ["system", "user"]
    assert asked.completion.json_schema == "{}"


def test_without_a_prompt_the_model_shall_only_be_loaded() -> None:
    assert chat_asked({"model": "m"}, remaining_s=60) is None
    assert generate_asked({"model": "m"}, remaining_s=60) is None
    told = loaded_answer("m", NOW, is_chat=True)
    assert (told["done"], told["done_reason"]) == (True, "load")


@pytest.mark.parametrize(
    "body", [{"suffix": "x"}, {"template": "x"}, {"context": [1]}, {"images": ["!"]}]
)
def test_what_cannot_be_honoured_is_refused(body: Body) -> None:
    with pytest.raises(HttpError) as no:
        generate_asked({"model": "m", "prompt": "x", **body}, remaining_s=60)
    assert no.value.status == 400


def test_texts_to_embed_in_both_ways() -> None:
    assert embed_asked({"model": "e", "input": ["a", "b"]}, remaining_s=60).texts == ("a", "b")
    assert embed_asked({"model": "e", "prompt": "a"}, remaining_s=60).texts == ("a",)
    with pytest.raises(HttpError):
        embed_asked({"model": "e"}, remaining_s=60)
    done = EmbeddingsDone(model="e", dimensions=1, usage=USAGE, held_s=0.5)
    told = embed_answer((struct.pack("<f", 0.5),), done)
    assert (told["embeddings"], told["total_duration"]) == ([[0.5]], 500_000_000)


def test_a_whole_answer_has_its_durations_in_nanoseconds() -> None:
    told = chat_answer(NOW, answered(thinking="hm", tool_calls=(CALL,)))
    assert told["created_at"] == "2027-01-15T08:00:00.000+00:00"
    message = {
        "role": "assistant",
        "content": "hello",
        "thinking": "hm",
        "tool_calls": [{"function": {"name": "look", "arguments": {"x": 1}}}],
    }
    assert told["message"] == message
    assert (told["done"], told["done_reason"]) == (True, "stop")
    assert (told["prompt_eval_count"], told["eval_count"]) == (7, 5)
    assert (told["load_duration"], told["eval_duration"]) == (250_000_000, 1_500_000_000)
    assert generate_answer(NOW, answered())["response"] == "hello"


@pytest.mark.parametrize("is_chat", [True, False])
def test_a_stream_is_lines_that_are_all_json(is_chat: bool) -> None:
    stream = LineStream("*", NOW, is_chat=is_chat)
    said = stream.begin() + stream.keep_alive()
    for delta in (CompletionDelta(text="hel"), CompletionDelta(text="lo"), *CALL_PIECES):
        said += stream.piece(delta)
    said += stream.end(answered(tool_calls=(CALL,)), WHERE)
    told = lines(said)
    texts = [one["message"]["content"] if is_chat else one["response"] for one in told]
    assert "".join(texts) == "hello"
    assert [one["done"] for one in told] == [False] * (len(told) - 1) + [True]
    assert (told[-1]["model"], told[-1]["kowalski"]) == ("m", WHERE)
    if is_chat:
        calls = told[-2]["message"]["tool_calls"]
        assert calls == [{"function": {"name": "look", "arguments": {"x": 1}}}]


def test_a_stream_that_fails_says_so() -> None:
    said = LineStream("m", NOW, is_chat=True).fail(HttpError(502, "cut_short", "it was lost"))
    assert lines(said) == [{"error": "it was lost"}]


@pytest.mark.parametrize("keep_alive", [0, 0.0, "0", "0s", "-0m", "00h"])
def test_no_time_to_be_kept_alive_is_to_be_unloaded(keep_alive: object) -> None:
    assert is_unloading({"model": "m", "keep_alive": keep_alive})


@pytest.mark.parametrize("keep_alive", [None, -1, 5, "5m", "10s", "0x", "", False])
def test_any_time_and_nothing_said_is_not(keep_alive: object) -> None:
    assert not is_unloading({"model": "m", "keep_alive": keep_alive})


def test_an_unloaded_model_is_told_in_its_own_word() -> None:
    told = loaded_answer("m", NOW, is_chat=True, is_unloaded=True)
    assert (told["done"], told["done_reason"]) == (True, "unload")
    assert told["message"] == {"role": "assistant", "content": ""}
