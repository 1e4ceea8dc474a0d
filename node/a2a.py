"""The Agent2Agent side of a node: a message is a task of the mesh. Pure.

After the A2A specification 1.0 (https://a2a-protocol.org), binding JSON-RPC: states in capitals,
one answer as the artifact `answer`. A task is one question: it takes no further messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from kowalski import __version__

Json = dict[str, object]

CARD_PATH: Final = "/.well-known/agent-card.json"
VERSION: Final = "1.0"

TASK_NOT_FOUND, NOT_CANCELABLE, NO_PUSH, UNSUPPORTED, CONTENT_TYPE = range(-32001, -32006, -1)
VERSION_NOT_SUPPORTED: Final = -32009
INVALID_REQUEST, UNKNOWN_METHOD, INVALID_PARAMS, INTERNAL = -32600, -32601, -32602, -32603

STATES: Mapping[str, str] = {
    "waiting": "TASK_STATE_SUBMITTED",
    "running": "TASK_STATE_WORKING",
    "answered": "TASK_STATE_COMPLETED",
    "failed": "TASK_STATE_FAILED",
    "cancelled": "TASK_STATE_CANCELED",
}
PUSH = frozenset(
    f"{what}TaskPushNotificationConfig{ending}"
    for what, ending in (("Create", ""), ("Get", ""), ("List", "s"), ("Delete", ""))
)


class A2aError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """A message as a task. `waits`: the answer is the finished task."""

    request: Json
    streams: bool
    waits: bool = True


@dataclass(frozen=True, slots=True)
class About:
    """A request about a task that exists: `get`, `cancel`, or `follow`."""

    what: str
    task: str


@dataclass(frozen=True, slots=True)
class Listed:
    """The latest tasks, as many as are asked for."""

    limit: int


Read = Asked | About | Listed


def card(url: str, *, needs_token: bool) -> Json:
    """The agent card. `url` is where this server is reached, without a path."""
    skills = (
        ("task", "Answer over any amount of text", ["rlm", "long context", "code"]),
        ("blocks", "Run the code blocks of a prompt and put their outputs in", ["code"]),
    )
    told: Json = {
        "name": "kowalski mesh",
        "description": "An agent mesh on the user's own devices: a task is led by one of them, "
        "its code runs sandboxed on the best placed, its model calls on those that have the "
        "model, and it survives the loss of any.",
        "version": __version__,
        "supportedInterfaces": [
            {"url": f"{url}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": VERSION}
        ],
        "capabilities": {"streaming": True, "pushNotifications": False},
        "defaultInputModes": ["text/plain", "application/json"],
        "defaultOutputModes": ["text/plain"],
        "skills": [
            {"id": name, "name": name, "description": description, "tags": tags}
            for name, description, tags in skills
        ],
    }
    if needs_token:
        scheme = {"httpAuthSecurityScheme": {"scheme": "Bearer"}}
        told["securitySchemes"] = {"token": scheme}
        told["securityRequirements"] = [{"schemes": {"token": {"list": []}}}]
    return told


def check_version(asked: str | None) -> None:
    """What `A2A-Version` of a request says; who says nothing is taken at our version.

    Raises:
        A2aError: another one.
    """
    if asked and ".".join(asked.strip().split(".")[:2]) != VERSION:
        told = f"A2A {asked[:40]!r} is not spoken here, {VERSION} is"
        raise A2aError(VERSION_NOT_SUPPORTED, told)


def check_cancelled(told: Mapping[str, object]) -> None:
    """A task that was to be cancelled. Raises A2aError: it had ended before."""
    if (state := told.get("state")) in {"answered", "failed"}:
        raise A2aError(NOT_CANCELABLE, f"the task is over: {state}")


def read(body: Mapping[str, object]) -> tuple[object, Read]:
    """The number of a request and what it asks.

    Raises:
        A2aError: it is no request, or asks for what is not done here.
    """
    method, params = body.get("method"), body.get("params", {})
    if body.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise A2aError(INVALID_REQUEST, "no request of JSON-RPC 2.0")
    if not isinstance(params, dict):
        raise A2aError(INVALID_PARAMS, "params: an object")
    match method:
        case "SendMessage" | "SendStreamingMessage":
            return body.get("id"), _asked(params, streams=method == "SendStreamingMessage")
        case "GetTask" | "CancelTask" | "SubscribeToTask":
            task = params.get("id")
            if not isinstance(task, str) or not task:
                raise A2aError(INVALID_PARAMS, "id: missing")
            what = {"GetTask": "get", "CancelTask": "cancel"}.get(method, "follow")
            return body.get("id"), About(what, task)
        case "ListTasks":
            limit = params.get("pageSize")
            asked = limit if isinstance(limit, int) and 1 <= limit <= 100 else 50
            return body.get("id"), Listed(asked)
        case "GetExtendedAgentCard":
            raise A2aError(UNSUPPORTED, "the card is the same for everybody")
        case _ if method in PUSH:
            raise A2aError(NO_PUSH, "push notifications are not sent; follow the task instead")
        case _:
            raise A2aError(UNKNOWN_METHOD, f"unknown method {method[:80]}")


def _asked(params: Mapping[str, object], *, streams: bool) -> Asked:
    message, settings = params.get("message"), params.get("configuration", {})
    if not isinstance(message, dict) or not isinstance(message.get("parts"), list):
        raise A2aError(INVALID_PARAMS, "message: with parts")
    if message.get("taskId"):
        raise A2aError(UNSUPPORTED, "a task takes one message; send another without taskId")
    texts: list[str] = []
    context: list[Json] = []
    for number, part in enumerate(message["parts"]):
        match part:
            case {"text": str(text), "filename": str(name)} if name:
                context.append({"name": name, "text": text})
            case {"text": str(text)}:
                texts.append(text)
            case {"data": data}:
                text = json.dumps(data, ensure_ascii=False)
                context.append({"name": f"data-{number}.json", "text": text})
            case _:
                raise A2aError(CONTENT_TYPE, f"part {number}: only text and data are taken")
    if not "".join(texts).strip():
        raise A2aError(INVALID_PARAMS, "message: no text in it")
    request: Json = {"prompt": "\n".join(texts), "context": context}
    metadata = params.get("metadata")
    if isinstance(metadata, dict):
        request |= {key: metadata[key] for key in ("mode", "model", "timeout_s") if key in metadata}
    at_once = isinstance(settings, dict) and settings.get("returnImmediately") is True
    return Asked(request, streams, waits=not at_once)


# --- what is told ---------------------------------------------------------------------------------


def task(told: Mapping[str, object], now_unix_s: float) -> Json:
    """A task of the mesh (a row of it, or its result) as an A2A task."""
    name, answer = str(told["task"]), told.get("answer")
    whole: Json = {"id": name, "contextId": name, "status": status(told, now_unix_s)}
    if answer:
        whole["artifacts"] = [artifact(str(answer))]
    stats = told.get("stats")
    if isinstance(stats, dict):
        whole["metadata"] = {"stats": stats, "coordinator": told.get("coordinator_name")}
    return whole


def status(told: Mapping[str, object], now_unix_s: float) -> Json:
    stamp = datetime.fromtimestamp(now_unix_s, UTC).isoformat(timespec="milliseconds")
    state = STATES.get(str(told.get("state")), "TASK_STATE_UNSPECIFIED")
    whole: Json = {"state": state, "timestamp": stamp.replace("+00:00", "Z")}
    if state == "TASK_STATE_FAILED" and told.get("reason"):
        whole["message"] = _said(str(told["task"]), str(told["reason"]))
    return whole


def artifact(answer: str) -> Json:
    return {"artifactId": "answer", "name": "answer", "parts": [{"text": answer}]}


def working(name: str, words: str, now_unix_s: float) -> Json:
    """An event of a stream: still at it, and at what."""
    told = status({"task": name, "state": "running"}, now_unix_s)
    update = {"taskId": name, "contextId": name, "status": {**told, "message": _said(name, words)}}
    return {"statusUpdate": update}


def ending(told: Mapping[str, object], now_unix_s: float) -> tuple[Json, ...]:
    """The last events of a stream: the answer, where there is one, and how it ended."""
    name, answer = str(told["task"]), told.get("answer")
    about = {"taskId": name, "contextId": name}
    end: Json = {"statusUpdate": {**about, "status": status(told, now_unix_s)}}
    if not answer:
        return (end,)
    whole = {**about, "artifact": artifact(str(answer)), "lastChunk": True}
    return ({"artifactUpdate": whole}, end)


def _said(name: str, words: str) -> Json:
    return {
        "messageId": f"{name}-status",
        "taskId": name,
        "contextId": name,
        "role": "ROLE_AGENT",
        "parts": [{"text": words}],
    }


def success(number: object, told: Mapping[str, object]) -> Json:
    return {"jsonrpc": "2.0", "id": number, "result": dict(told)}


def failure(number: object, error: A2aError) -> Json:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": error.code, "message": str(error)}}
