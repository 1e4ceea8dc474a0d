"""Agent2Agent, request by request."""

from __future__ import annotations

import pytest

from kowalski.node import a2a

Json = dict[str, object]
NOW = 1_800_000_000.0


def read(method: str, params: Json) -> a2a.Read:
    number, asked = a2a.read({"jsonrpc": "2.0", "id": 5, "method": method, "params": params})
    assert number == 5
    return asked


def message(*parts: Json, **more: object) -> Json:
    return {"messageId": "1", "role": "ROLE_USER", "parts": list(parts), **more}


def refused(method: str, params: object) -> int:
    with pytest.raises(a2a.A2aError) as no:
        a2a.read({"jsonrpc": "2.0", "id": 5, "method": method, "params": params})
    return no.value.code


def test_a_message_is_a_task() -> None:
    parts = (
        {"text": "compare"},
        {"text": "these"},
        {"text": "long text", "filename": "a.txt"},
        {"data": {"x": 1}},
    )
    asked = read("SendMessage", {"message": message(*parts), "metadata": {"mode": "rlm", "a": 1}})
    assert asked == a2a.Asked(
        {
            "prompt": "compare\nthese",
            "context": [
                {"name": "a.txt", "text": "long text"},
                {"name": "data-3.json", "text": '{"x": 1}'},
            ],
            "mode": "rlm",
        },
        streams=False,
    )


def test_who_will_not_wait_says_so() -> None:
    params = {"message": message({"text": "x"}), "configuration": {"returnImmediately": True}}
    asked = read("SendMessage", params)
    assert isinstance(asked, a2a.Asked)
    assert not asked.waits
    streamed = read("SendStreamingMessage", {"message": message({"text": "x"})})
    assert isinstance(streamed, a2a.Asked)
    assert streamed.streams


def test_tasks_are_asked_about_by_their_id() -> None:
    assert read("GetTask", {"id": "t"}) == a2a.About("get", "t")
    assert read("CancelTask", {"id": "t"}) == a2a.About("cancel", "t")
    assert read("SubscribeToTask", {"id": "t"}) == a2a.About("follow", "t")
    assert read("ListTasks", {"pageSize": 3}) == a2a.Listed(3)
    assert read("ListTasks", {"pageSize": 3000}) == a2a.Listed(50)


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("SendMessage", {}, a2a.INVALID_PARAMS),
        ("SendMessage", [], a2a.INVALID_PARAMS),
        ("SendMessage", {"message": message()}, a2a.INVALID_PARAMS),
        ("SendMessage", {"message": message({"text": " "})}, a2a.INVALID_PARAMS),
        ("SendMessage", {"message": message({"url": "https://x"})}, a2a.CONTENT_TYPE),
        ("SendMessage", {"message": message({"text": "x"}, taskId="t")}, a2a.UNSUPPORTED),
        ("GetTask", {}, a2a.INVALID_PARAMS),
        ("CreateTaskPushNotificationConfig", {}, a2a.NO_PUSH),
        ("ListTaskPushNotificationConfigs", {}, a2a.NO_PUSH),
        ("message/send", {}, a2a.UNKNOWN_METHOD),
    ],
)
def test_what_is_not_done_here_is_refused_by_its_own_code(
    method: str, params: object, code: int
) -> None:
    assert refused(method, params) == code


def test_the_codes_are_those_of_the_specification() -> None:
    codes = (a2a.TASK_NOT_FOUND, a2a.NOT_CANCELABLE, a2a.NO_PUSH, a2a.UNSUPPORTED, a2a.CONTENT_TYPE)
    assert codes == (-32001, -32002, -32003, -32004, -32005)


def test_a_finished_task_has_its_answer_as_an_artifact() -> None:
    told: Json = {"task": "t", "state": "answered", "answer": "7", "stats": {"cells": 1}}
    whole = a2a.task(told, NOW)
    assert whole["status"] == {
        "state": "TASK_STATE_COMPLETED",
        "timestamp": "2027-01-15T08:00:00.000Z",
    }
    assert whole["artifacts"] == [
        {"artifactId": "answer", "name": "answer", "parts": [{"text": "7"}]}
    ]
    update, end = a2a.ending(told, NOW)
    assert update["artifactUpdate"]["lastChunk"]
    assert end["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


def test_a_failed_task_says_why() -> None:
    told: Json = {"task": "t", "state": "failed", "answer": "", "reason": "no model"}
    (end,) = a2a.ending(told, NOW)
    status = end["statusUpdate"]["status"]
    assert status["message"]["parts"] == [{"text": "no model"}]
    assert "artifacts" not in a2a.task(told, NOW)


def test_the_card_says_where_and_whether_a_token_is_needed() -> None:
    open_card = a2a.card("http://localhost:4171", needs_token=False)
    assert open_card["supportedInterfaces"][0]["url"] == "http://localhost:4171/a2a"
    assert "securitySchemes" not in open_card
    closed = a2a.card("http://pc:4171", needs_token=True)
    assert closed["securitySchemes"]["token"]["httpAuthSecurityScheme"] == {"scheme": "Bearer"}
