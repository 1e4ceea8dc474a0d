"""A response of OpenAI's, whole and by events."""

from __future__ import annotations

from typing import Any

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.responses_replies import ResponseStream, response_answer
from kowalski.node.http.faces.responses_requests import Echo
from kowalski.protocol.messages.inference import CompletionDelta, ToolCall, ToolCallPiece
from tests.node.http.faces.replies import CALL, CALL_PIECES, WHERE, answered, events

ECHO = Echo({"temperature": 0.5, "store": False})
NOW = 1_800_000_000
Event = dict[str, Any]


def stream() -> ResponseStream:
    return ResponseStream("1", NOW, ECHO, "*")


def told(data: bytes) -> list[Event]:
    found: list[Event] = list(events(data))
    return found


def test_a_whole_response() -> None:
    whole: Event = response_answer("1", NOW, ECHO, answered("hello", thinking="hm"))
    assert (whole["id"], whole["status"], whole["model"]) == ("resp_1", "completed", "m")
    assert (whole["temperature"], whole["created_at"]) == (0.5, NOW)
    thought, message = whole["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert (message["role"], message["content"][0]["text"]) == ("assistant", "hello")
    used = whole["usage"]
    assert (used["input_tokens"], used["output_tokens"], used["total_tokens"]) == (7, 5, 12)
    assert used["input_tokens_details"] == {"cached_tokens": 2}
    assert used["output_tokens_details"] == {"reasoning_tokens": 1}


def test_a_response_of_calls_has_no_empty_message() -> None:
    whole: Event = response_answer("1", NOW, ECHO, answered("", tool_calls=(CALL,)))
    (call,) = whole["output"]
    assert (call["type"], call["call_id"], call["arguments"]) == ("function_call", "c1", '{"x":1}')


def test_a_response_that_was_cut_says_why() -> None:
    whole: Event = response_answer("1", NOW, ECHO, answered(finish_reason="length"))
    assert whole["status"] == "incomplete"
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_message_is_told_as_it_comes() -> None:
    saying = stream()
    data = saying.begin()
    for text in ("hel", "lo"):
        data += saying.piece(CompletionDelta(text=text))
    data += saying.keep_alive() + saying.end(answered("hello"), WHERE)
    said = told(data)
    assert [one["type"] for one in said] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [one["sequence_number"] for one in said] == list(range(10))
    assert (said[2]["item"]["content"], said[2]["item"]["status"]) == ([], "in_progress")
    assert "".join(one["delta"] for one in said[4:6]) == said[6]["text"] == "hello"
    assert {one["item_id"] for one in said[3:8]} == {said[2]["item"]["id"]}
    last = said[-1]["response"]
    assert last["output"] == [said[8]["item"]]
    assert last["output"][0]["content"][0]["text"] == "hello"
    assert (last["model"], last["usage"]["total_tokens"]) == ("m", 12)
    assert last["kowalski"] == WHERE


def test_thoughts_words_and_calls_are_items_of_their_own() -> None:
    saying = stream()
    data = saying.piece(CompletionDelta(thinking="hm"))
    data += saying.piece(CompletionDelta(text="I look"))
    for piece in CALL_PIECES:
        data += saying.piece(piece)
    other = ToolCallPiece(index=1, id="c2", name="look", arguments="{}")
    data += saying.piece(CompletionDelta(tool_calls=(other,)))
    calls = (CALL, ToolCall(id="c2", name="look", arguments="{}"))
    data += saying.end(answered("I look", thinking="hm", tool_calls=calls), WHERE)
    said = told(data)
    output = said[-1]["response"]["output"]
    assert [one["type"] for one in output] == [
        *("reasoning", "message", "function_call", "function_call")
    ]
    assert [one["call_id"] for one in output[2:]] == ["c1", "c2"]
    assert [one["arguments"] for one in output[2:]] == ['{"x":1}', "{}"]
    done = [one for one in said if one["type"] == "response.function_call_arguments.done"]
    assert [(one["name"], one["output_index"]) for one in done] == [("look", 2), ("look", 3)]
    assert len({one["id"] for one in output}) == 4
    kinds = {one["type"] for one in said}
    assert {"response.reasoning_text.delta", "response.reasoning_text.done"} <= kinds


def test_calls_that_come_only_at_the_end_are_told_then() -> None:
    said = told(stream().end(answered("", tool_calls=(CALL,)), WHERE))
    assert [one["type"] for one in said][-2:] == ["response.output_item.done", "response.completed"]
    assert said[-1]["response"]["output"][0]["arguments"] == '{"x":1}'


def test_nothing_at_all_is_an_empty_message() -> None:
    (message,) = told(stream().end(answered(""), WHERE))[-1]["response"]["output"]
    assert message["content"][0]["text"] == ""


def test_a_failure_is_no_end_that_a_client_could_take_for_one() -> None:
    error, failed = told(stream().fail(HttpError(502, "lost", "the peer is gone")))
    assert (error["type"], error["code"], error["message"]) == ("error", "lost", "the peer is gone")
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "lost", "message": "the peer is gone"}
    assert failed["response"]["status"] == "failed"
