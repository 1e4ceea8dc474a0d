"""Anthropic's messages."""

import base64

import pytest

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.anthropic import (
    MessageStream,
    counted_text,
    error_answer,
    messages_answer,
    messages_asked,
)
from kowalski.protocol.messages.inference import CompletionDelta
from tests.node.http.faces.replies import CALL, CALL_PIECES, WHERE, answered, events

Body = dict[str, object]
PLAIN: Body = {
    "model": "m",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}


def test_a_conversation_with_tools_and_a_picture() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"p").decode()}
    call = {"type": "tool_use", "id": "c1", "name": "look", "input": {"x": 1}}
    result = {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": [{"type": "text", "text": "seen"}],
    }
    asked = messages_asked(
        {
            **PLAIN,
            "system": [{"type": "text", "text": "be brief"}],
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": source}]},
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, call],
                },
                {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
            ],
            "tools": [{"name": "look", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "stop_sequences": ["END"],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "top_k": 5,
            "stream": True,
        },
        remaining_s=60,
    )
    told = asked.completion
    roles = [(one.role, one.content) for one in told.messages]
    assert roles == [
        ("system", "be brief"),
        ("user", ""),
        ("assistant", ""),
        ("tool", "seen"),
        ("user", "and?"),
    ]
    assert told.messages[1].images == (0,)
    assert told.messages[2].tool_calls[0].arguments == '{"x":1}'
    assert told.messages[3].tool_call == "c1"
    assert (told.tool_choice, told.calls_in_parallel, told.thinking) == ("required", False, "on")
    assert (told.sampling.stop, told.sampling.top_k) == (("END",), 5)
    assert asked.wants_stream
    assert asked.pictures[0].data == b"p"


def test_one_tool_may_be_demanded() -> None:
    tools = [{"name": "look", "input_schema": {}}]
    choice = {"type": "tool", "name": "look"}
    asked = messages_asked({**PLAIN, "tools": tools, "tool_choice": choice}, remaining_s=60)
    assert (asked.completion.tool_named, asked.completion.tool_choice) == ("look", None)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "document"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(body: Body, word: str) -> None:
    with pytest.raises(HttpError, match=word) as no:
        messages_asked({**PLAIN, **body}, remaining_s=60)
    assert no.value.status == 400


def test_a_whole_message() -> None:
    told = messages_answer("x", answered("hello", thinking="hm", tool_calls=(CALL,)))
    assert [block["type"] for block in told["content"]] == ["thinking", "text", "tool_use"]
    assert told["content"][2] == {
        "type": "tool_use",
        "id": "c1",
        "name": "look",
        "input": {"x": 1},
    }
    assert (told["id"], told["stop_reason"]) == ("msg_x", "tool_use")
    assert told["usage"] == {
        "input_tokens": 5,
        "cache_read_input_tokens": 2,
        "output_tokens": 5,
    }
    assert messages_answer("x", answered(finish_reason="length"))["stop_reason"] == "max_tokens"
    assert messages_answer("x", answered(""))["content"] == [{"type": "text", "text": ""}]


def test_blocks_follow_one_another_in_a_stream() -> None:
    stream = MessageStream("x", "m")
    said = stream.begin()
    deltas = (
        CompletionDelta(thinking="hm"),
        CompletionDelta(text="hel"),
        CompletionDelta(text="lo"),
        *CALL_PIECES,
    )
    for delta in deltas:
        said += stream.piece(delta)
    said += stream.end(answered("hello", tool_calls=(CALL,)), WHERE)
    told = events(said)
    assert [one["type"] for one in told] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [one["index"] for one in told if one["type"] == "content_block_start"] == [0, 1, 2]
    pieces = [one["delta"].get("partial_json", "") for one in told if "delta" in one]
    assert "".join(pieces) == '{"x":1}'
    assert told[-2]["delta"]["stop_reason"] == "tool_use"
    assert told[-2]["usage"]["output_tokens"] == 5


def test_an_empty_answer_is_an_empty_block() -> None:
    stream = MessageStream("x", "m")
    told = events(stream.begin() + stream.end(answered(""), WHERE))
    assert [one["type"] for one in told][1:3] == ["content_block_start", "content_block_stop"]


def test_a_stream_that_fails_says_so() -> None:
    stream = MessageStream("x", "m")
    assert b"event: error" in stream.fail(HttpError(503, "busy", "full"))
    assert b"event: ping" in stream.keep_alive()
    told = error_answer(HttpError(503, "busy", "full"))
    assert told == {"type": "error", "error": {"type": "overloaded_error", "message": "full"}}


def test_all_the_text_of_a_request_is_counted() -> None:
    tools = [{"name": "look", "description": "around", "input_schema": {"a": 1}}]
    text = counted_text({"messages": PLAIN["messages"], "system": "be brief", "tools": tools})
    assert text == 'be brief\nhello\nlook around {"a":1}'
