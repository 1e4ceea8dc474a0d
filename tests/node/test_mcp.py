"""The Model Context Protocol, message by message."""

from __future__ import annotations

import json

import pytest

from kowalski.node import mcp
from kowalski.node.control_messages import REQUESTS

Json = dict[str, object]


def read(method: str, params: object = None, number: object = 1) -> object:
    message: Json = {"jsonrpc": "2.0", "id": number, "method": method}
    if params is not None:
        message["params"] = params
    return mcp.read(json.dumps(message))


def error_of(reply: object) -> tuple[object, object]:
    assert isinstance(reply, dict)
    return reply["id"], reply["error"]["code"]


@pytest.mark.parametrize("asked", mcp.VERSIONS)
def test_a_version_that_both_speak_is_agreed_on(asked: str) -> None:
    reply = read("initialize", {"protocolVersion": asked})
    assert isinstance(reply, dict)
    assert reply["result"]["protocolVersion"] == asked
    assert reply["result"]["capabilities"] == {"tools": {"listChanged": False}}


def test_a_version_from_the_future_is_answered_with_the_newest_we_know() -> None:
    reply = read("initialize", {"protocolVersion": "2031-01-01"})
    assert isinstance(reply, dict)
    assert reply["result"]["protocolVersion"] == mcp.VERSIONS[0]


def test_every_tool_is_a_verb_and_its_arguments_are_the_verbs_fields() -> None:
    for tool in mcp.TOOLS:
        schema = tool["inputSchema"]
        assert isinstance(schema, dict)
        fields = REQUESTS[str(tool["name"])].model_fields
        assert set(schema["properties"]) <= set(fields)


@pytest.mark.parametrize(
    ("data", "number", "code"),
    [
        ("nope", None, mcp.PARSE_ERROR),
        ("[" * 100_000, None, mcp.PARSE_ERROR),
        ("[]", None, mcp.INVALID_REQUEST),
        ("7", None, mcp.INVALID_REQUEST),
        ('{"id": 1, "method": "ping"}', None, mcp.INVALID_REQUEST),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}', 1, mcp.INVALID_PARAMS),
        ('{"jsonrpc": "2.0", "id": "a", "method": "resources/list"}', "a", mcp.UNKNOWN_METHOD),
    ],
)
def test_what_is_no_request_is_told_so(data: str, number: object, code: int) -> None:
    assert error_of(mcp.read(data)) == (number, code)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": "format_disk"},
        {"name": "run", "arguments": {"code": "1"}},
        {"name": "run", "arguments": {"language": "python", "code": "1", "path": "/etc"}},
        {"name": "run", "arguments": []},
        {"name": "run", "arguments": "x"},
    ],
)
def test_a_call_that_cannot_be_made_is_told_why(params: Json) -> None:
    assert error_of(read("tools/call", params)) == (1, mcp.INVALID_PARAMS)


def test_a_call_is_the_verb_with_what_was_given() -> None:
    arguments = {"language": "python", "code": "1", "args": None}
    params = {"name": "run", "arguments": arguments, "_meta": {"progressToken": 7}}
    call = read("tools/call", params, "a")
    assert call == mcp.Call("a", "run", {"language": "python", "code": "1"}, 7)


def test_notifications_and_replies_want_nothing() -> None:
    for message in (
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
    ):
        assert mcp.read(json.dumps(message)) is None
    cancelled = {"method": "notifications/cancelled", "params": {"requestId": 3}}
    assert mcp.read(json.dumps({"jsonrpc": "2.0", **cancelled})) == mcp.Cancelled(3)


def test_ping_and_the_list_of_tools() -> None:
    assert read("ping", number=0) == {"jsonrpc": "2.0", "id": 0, "result": {}}
    reply = read("tools/list")
    assert isinstance(reply, dict)
    names = [tool["name"] for tool in reply["result"]["tools"]]
    assert names == ["submit", "run", "ask", "fold"]


def result(verb: str, told: Json, **outputs: str) -> Json:
    reply = mcp.result(mcp.Call(1, verb, {}), told, outputs)
    told_back = reply["result"]
    assert isinstance(told_back, dict)
    return told_back


def test_a_programs_output_is_its_text_and_its_failure_is_an_error() -> None:
    fine = result("run", {"exit_code": 0}, stdout="42\n", stderr="")
    assert (fine["content"], fine["isError"]) == ([{"type": "text", "text": "42"}], False)
    assert fine["structuredContent"] == {"exit_code": 0, "stdout": "42\n", "stderr": ""}
    failed = result("run", {"exit_code": 1, "error": "ZeroDivisionError"}, stderr="Trace\n")
    text = "Trace\nZeroDivisionError\n(exit code 1)"
    assert (failed["content"], failed["isError"]) == ([{"type": "text", "text": text}], True)


def test_a_task_without_an_answer_says_how_it_ended() -> None:
    told = result("submit", {"state": "failed", "reason": "no model", "answer": "", "exit_code": 1})
    assert told["content"] == [{"type": "text", "text": "failed: no model"}]
    assert result("submit", {"state": "answered", "answer": "7"})["content"][0]["text"] == "7"


def test_a_tool_that_fails_is_a_result_for_the_model_to_read() -> None:
    reply = mcp.call_failed(mcp.Call(1, "ask", {}), "no_peer: no peer has a model")
    assert "error" not in reply
    assert reply["result"]["isError"]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"kind": "note", "text": "mode rlm"}, "mode rlm"),
        ({"kind": "cell", "cell": 2, "name": "pc", "status": "done"}, "cell 2 on pc: done"),
        ({"kind": "call", "model": "m", "name": "pc"}, "model m on pc"),
        ({"kind": "turn", "n": 3}, "turn 3"),
        ({"kind": "coordinator", "name": "pc"}, "led by pc"),
        ({"kind": "delta", "text": "x"}, ""),
    ],
)
def test_what_happens_on_the_way_is_told_in_words(event: Json, words: str) -> None:
    assert mcp.progress_words(event) == words
    told = mcp.progress(mcp.Call(1, "submit", {}, "t"), 2, words)
    assert told["params"] == {"progressToken": "t", "progress": 2, "message": words}
