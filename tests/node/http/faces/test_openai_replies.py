"""What OpenAI's clients are answered."""

import base64
import struct

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.openai_replies import (
    ChatStream,
    PlainStream,
    chat_answer,
    embeddings_answer,
    error_answer,
    plain_answer,
)
from kowalski.protocol.messages.inference import CompletionDelta
from tests.node.http.faces.replies import (
    CALL,
    CALL_PIECES,
    LOGPROB,
    USAGE,
    WHERE,
    answered,
    events,
)


def test_a_whole_chat() -> None:
    told = chat_answer("x", 5, answered(thinking="hm", logprobs=(LOGPROB,)))
    assert (told["id"], told["object"], told["created"]) == ("chatcmpl-x", "chat.completion", 5)
    (choice,) = told["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "hello",
        "reasoning_content": "hm",
    }
    assert choice["finish_reason"] == "stop"
    (token,) = choice["logprobs"]["content"]
    assert (token["token"], token["bytes"]) == ("é", [0xC3, 0xA9])
    assert token["top_logprobs"] == [{"token": "e", "logprob": -1.5, "bytes": [0xC3]}]
    assert told["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


def test_calls_of_tools_end_an_answer_as_such() -> None:
    (choice,) = chat_answer("x", 5, answered("", tool_calls=(CALL,)))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call == {
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"x":1}'},
    }
    cut = answered("", tool_calls=(CALL,), finish_reason="length")
    assert chat_answer("x", 5, cut)["choices"][0]["finish_reason"] == "length"


def test_a_word_that_clients_do_not_know_is_a_stop() -> None:
    told = chat_answer("x", 5, answered(finish_reason="eos"))
    assert told["choices"][0]["finish_reason"] == "stop"


def test_a_chat_in_chunks() -> None:
    stream = ChatStream("x", 5, "*", wants_usage=True)
    said = stream.begin()
    for delta in (CompletionDelta(thinking="hm"), CompletionDelta(text="hel")):
        said += stream.piece(delta)
    said += stream.piece(CompletionDelta(text="lo", logprobs=(LOGPROB,)))
    said += stream.end(answered(), WHERE)
    assert said.endswith(b"data: [DONE]\n\n")
    chunks = events(said)
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-x"}
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "hel"},
        {"content": "lo"},
        {},
    ]
    assert chunks[3]["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.5
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["kowalski"] == WHERE
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 12)
    assert chunks[-1]["model"] == "m"


def test_a_call_in_chunks_has_its_name_once() -> None:
    stream = ChatStream("x", 5, "m", wants_usage=False)
    said = b"".join(stream.piece(delta) for delta in CALL_PIECES)
    said += stream.end(answered("", tool_calls=(CALL,)), WHERE)
    calls = [
        call
        for chunk in events(said)
        for call in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    first = {"name": "look", "arguments": '{"x"'}
    assert calls[0] == {"index": 0, "id": "c1", "type": "function", "function": first}
    assert calls[1] == {"index": 0, "function": {"arguments": ":1}"}}
    assert events(said)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_stream_that_fails_says_so_and_does_not_say_that_it_is_done() -> None:
    for stream in (
        ChatStream("x", 5, "m", wants_usage=True),
        PlainStream("x", 5, "m", wants_usage=True),
    ):
        said = stream.fail(HttpError(502, "cut_short", "it was lost"))
        assert events(said)[0]["error"]["code"] == "cut_short"
        assert b"[DONE]" not in said
        assert stream.keep_alive().startswith(b":")


def test_a_plain_completion_whole_and_in_chunks() -> None:
    told = plain_answer("x", 5, answered(logprobs=(LOGPROB,)))
    (choice,) = told["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("hello", "stop")
    assert choice["logprobs"]["top_logprobs"] == [{"e": -1.5}]
    stream = PlainStream("x", 5, "m", wants_usage=True)
    said = stream.begin() + stream.piece(CompletionDelta(text="hello"))
    chunks = events(said + stream.end(answered(), WHERE))
    assert [choice["text"] for one in chunks for choice in one["choices"]] == ["hello", ""]
    assert chunks[-1]["usage"]["total_tokens"] == 12


def test_vectors_as_numbers_and_in_base64() -> None:
    vector = struct.pack("<2f", 0.5, -1.0)
    told = embeddings_answer((vector, vector), "e", USAGE, in_base64=False)
    assert told["data"][1] == {"object": "embedding", "index": 1, "embedding": [0.5, -1.0]}
    assert told["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    told = embeddings_answer((vector,), "e", USAGE, in_base64=True)
    assert base64.b64decode(told["data"][0]["embedding"]) == vector


def test_errors_have_the_kinds_that_clients_raise_by() -> None:
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "invalid_request_error",
        429: "rate_limit_error",
        503: "server_error",
    }
    for status, kind in kinds.items():
        told = error_answer(HttpError(status, "word", "text"))["error"]
        assert told == {"message": "text", "type": kind, "param": None, "code": "word"}
