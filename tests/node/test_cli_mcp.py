"""mcp: one message a line, calls beside each other."""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kowalski.node.cli_mcp import McpStreams
from kowalski.node.control_client import HangingUp, NodeGoneError, VerbFailedError

Event = dict[str, object]


def spoken(
    monkeypatch: pytest.MonkeyPatch, converse: object, *messages: Event
) -> dict[object, Event]:
    """What is written for these lines, by the number of the request."""
    lines = "".join(json.dumps({"jsonrpc": "2.0", **one}) + "\n" for one in messages)
    told = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines + "\n"))
    monkeypatch.setattr(sys, "stdout", told)
    McpStreams(converse).serve()  # type: ignore[arg-type]
    replies = [json.loads(line) for line in told.getvalue().splitlines()]
    return {reply.get("id", reply.get("method")): reply for reply in replies}


def call(number: int, tool: str, **arguments: object) -> Event:
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": number}}
    return {"id": number, "method": "tools/call", "params": params}


def test_calls_are_made_and_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def converse(verb: str, request: Event, hear: Callable[[Event], None], _up: object) -> Event:
        assert (verb, request) == ("run", {"language": "python", "code": "1"})
        hear({"kind": "output", "stream": "stdout", "text": "4"})
        hear({"kind": "output", "stream": "stdout", "text": "2"})
        hear({"kind": "note", "text": "on the way"})
        return {"exit_code": 0}

    told = spoken(
        monkeypatch,
        converse,
        {"id": 1, "method": "ping"},
        {"method": "notifications/initialized"},
        call(2, "run", language="python", code="1"),
    )
    assert told[1]["result"] == {}
    assert told[2]["result"]["content"] == [{"type": "text", "text": "42"}]
    assert told["notifications/progress"]["params"]["message"] == "on the way"


def test_texts_are_there_as_files_while_the_call_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def converse(_verb: str, request: Event, _hear: object, _up: object) -> Event:
        context = request["context"]
        assert isinstance(context, list)
        seen.extend((one["name"], Path(one["path"]).read_text()) for one in context)
        return {"state": "answered", "answer": "yes"}

    context = [{"name": "a.txt", "text": "long"}]
    told = spoken(monkeypatch, converse, call(1, "submit", prompt="x", context=context))
    assert seen == [("a.txt", "long")]
    assert told[1]["result"]["content"][0]["text"] == "yes"


def test_a_node_that_does_not_run_is_the_tools_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def converse(_verb: str, _request: Event, _hear: object, _up: object) -> Event:
        raise VerbFailedError("busy", "every slot is taken", 5, None)

    told = spoken(monkeypatch, converse, call(1, "ask", prompt="x"))
    assert told[1]["result"]["isError"]
    assert "every slot is taken" in told[1]["result"]["content"][0]["text"]


def test_calls_go_on_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)

    def converse(_verb: str, _request: Event, _hear: object, _up: object) -> Event:
        both.wait()
        return {"text": "done"}

    told = spoken(monkeypatch, converse, call(1, "ask", prompt="x"), call(2, "ask", prompt="y"))
    assert set(told) == {1, 2}


def test_a_call_that_is_cancelled_is_hung_up_though_nothing_is_heard_and_has_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, Event]] = []

    def converse(
        verb: str, request: Event, hear: Callable[[Event], None], hanging_up: HangingUp
    ) -> Event:
        asked.append((verb, request))
        if verb == "cancel":
            return {}
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(20)
            hanging_up.hold(ours)
            hear({"kind": "submitted", "task": "t7"})
            assert ours.recv(1) == b"", "nothing is ever said"
            raise NodeGoneError("the node went away")

    told = spoken(
        monkeypatch,
        converse,
        call(1, "submit", prompt="x"),
        {"method": "notifications/cancelled", "params": {"requestId": 1}},
        {"method": "notifications/cancelled", "params": {"requestId": "another"}},
    )
    assert told == {}
    assert asked == [("submit", {"prompt": "x"}), ("cancel", {"task": "t7"})]
