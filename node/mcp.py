"""The Model Context Protocol's side of a node: its tools are the mesh's verbs. Pure.

JSON-RPC 2.0 after the specification of 2025-11-25 and the three before it
(https://modelcontextprotocol.io/specification). Standard library only: the command line speaks it
on its standard streams without loading anything heavy. The maintained SDK was not taken: its
server brings an ASGI stack of fifteen packages for what these messages are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kowalski import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, object]

VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Newest first."""

PARSE_ERROR, INVALID_REQUEST, UNKNOWN_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602
TEXT_CHARS_MAX = 200_000
"""Of what a tool gives back as text; models read it."""

INSTRUCTIONS = (
    "An agent mesh on the user's own devices. `run` runs code in a sandbox on the best device, "
    "`ask` calls a model that any of them has, `submit` gives the mesh a whole task (long inputs "
    "as context), `fold` shortens a text and keeps numbers and names."
)


def _schema(required: tuple[str, ...], **properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT: Json = {"type": "string"}
_SECONDS: Json = {"type": "number", "exclusiveMinimum": 0, "description": "give up after"}
_MODEL: Json = {"type": "string", "description": "any that the mesh has, where left out"}
_CONTEXT: Json = {
    "type": "array",
    "description": "texts that the task's programs find by name; they may be long",
    "items": _schema(("name", "text"), name=_TEXT, text=_TEXT),
}

TOOLS: Final[tuple[Json, ...]] = (
    {
        "name": "submit",
        "title": "Give the mesh a task",
        "description": "A task over any amount of text, answered with code and models on the "
        "user's devices; it goes on when one of them fails. Returns the answer.",
        "inputSchema": _schema(
            ("prompt",),
            prompt=_TEXT,
            mode={"type": "string", "enum": ["auto", "direct", "rlm", "blocks"]},
            model=_MODEL,
            context=_CONTEXT,
            timeout_s=_SECONDS,
        ),
    },
    {
        "name": "run",
        "title": "Run a program",
        "description": "One program, sandboxed, without network, on the device best placed for "
        "it. Returns its output and exit code.",
        "inputSchema": _schema(
            ("language", "code"),
            language={"type": "string", "description": "python, bash, js, ..."},
            code=_TEXT,
            args={"type": "array", "items": _TEXT},
            timeout_s=_SECONDS,
        ),
    },
    {
        "name": "ask",
        "title": "Ask a model",
        "description": "One call of a model that runs on one of the user's devices.",
        "inputSchema": _schema(
            ("prompt",),
            prompt=_TEXT,
            system=_TEXT,
            model=_MODEL,
            max_tokens={"type": "integer", "minimum": 1},
            temperature={"type": "number", "minimum": 0, "maximum": 2},
            timeout_s=_SECONDS,
        ),
    },
    {
        "name": "fold",
        "title": "Shorten a text",
        "description": "Keeps the sentences that matter, with numbers, names and identifiers as "
        "they stand; no model is asked.",
        "inputSchema": _schema(
            ("text",),
            text=_TEXT,
            ratio={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            budget_tokens={"type": "integer", "minimum": 1},
            question={"type": "string", "description": "what the text will be asked"},
            timeout_s=_SECONDS,
        ),
    },
)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to be called: the verb of its name. `progress` is where its client wants to hear."""

    id: object
    verb: str
    request: Json
    progress: object | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client no longer wants the answer to the request `id`."""

    id: object


def read(data: bytes | str) -> Json | Call | Cancelled | None:
    """One message: the reply to it, a call to make, a cancellation, or None if it wants nothing."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return failure(None, PARSE_ERROR, "no JSON")
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return failure(None, INVALID_REQUEST, "no single message of JSON-RPC 2.0")
    method, params = message.get("method"), message.get("params", {})
    if not isinstance(method, str):
        return None  # a reply to something that was never asked
    if not isinstance(params, dict):
        return failure(message.get("id"), INVALID_PARAMS, "params: an object")
    if "id" not in message:
        cancels = method == "notifications/cancelled" and "requestId" in params
        return Cancelled(params["requestId"]) if cancels else None
    return _answer(message["id"], method, params)


def _answer(number: object, method: str, params: Json) -> Json | Call:
    match method:
        case "initialize":
            return success(number, _initialized(params))
        case "ping":
            return success(number, {})
        case "tools/list":
            return success(number, {"tools": list(TOOLS)})
        case "tools/call":
            return _call(number, params)
        case _:
            return failure(number, UNKNOWN_METHOD, f"unknown method {method[:80]}")


def is_beginning(message: object) -> bool:
    """Whether what was read is answered with who we are."""
    result = message.get("result") if isinstance(message, dict) else None
    return isinstance(result, dict) and "serverInfo" in result


def _initialized(params: Json) -> Json:
    asked = params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "kowalski-node", "title": "Kowalski mesh", "version": __version__},
        "instructions": INSTRUCTIONS,
    }


def _call(number: object, params: Json) -> Json | Call:
    name, arguments = params.get("name"), params.get("arguments") or {}
    tool = next((one for one in TOOLS if one["name"] == name), None)
    if tool is None:
        known = ", ".join(str(one["name"]) for one in TOOLS)
        return failure(number, INVALID_PARAMS, f"unknown tool {str(name)[:80]}; there is: {known}")
    if not isinstance(arguments, dict):
        return failure(number, INVALID_PARAMS, "arguments: an object")
    schema = tool["inputSchema"]
    assert isinstance(schema, dict)
    for field in schema["required"]:
        if field not in arguments:
            return failure(number, INVALID_PARAMS, f"{name}: {field} is missing")
    for field in arguments:
        if field not in schema["properties"]:
            return failure(number, INVALID_PARAMS, f"{name}: unknown argument {field[:80]}")
    meta = params.get("_meta")
    progress = meta.get("progressToken") if isinstance(meta, dict) else None
    return Call(number, str(name), {k: v for k, v in arguments.items() if v is not None}, progress)


def result(call: Call, told: Mapping[str, object], outputs: Mapping[str, str]) -> Json:
    """The reply to a call that was made; `outputs` are stdout and stderr of a program."""
    whole: Json = {**told, **outputs}
    is_error = bool(told.get("exit_code"))
    return success(
        call.id,
        {
            "content": [{"type": "text", "text": _text(call.verb, whole)[:TEXT_CHARS_MAX]}],
            "structuredContent": whole,
            "isError": is_error,
        },
    )


def _text(verb: str, whole: Json) -> str:
    match verb:
        case "submit":
            answer = str(whole.get("answer") or "")
            return answer or f"{whole.get('state')}: {whole.get('reason') or 'no answer'}"
        case "run":
            parts = [str(whole.get(one) or "") for one in ("stdout", "stderr", "error")]
            text = "\n".join(part.rstrip("\n") for part in parts if part)
            code = whole.get("exit_code")
            return text if not code else f"{text}\n(exit code {code})".lstrip("\n")
        case _:
            return str(whole.get("text") or "")


def call_failed(call: Call, message: str) -> Json:
    """A tool's own failure is a result, so that the model reads it."""
    said = {"content": [{"type": "text", "text": message}], "isError": True}
    return success(call.id, said)


def progress(call: Call, count: int, message: str) -> Json:
    """A notification on the way to the reply."""
    told: Json = {"progressToken": call.progress, "progress": count, "message": message}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": told}


def progress_words(event: Mapping[str, object]) -> str:
    """What is said of an event on the way, or nothing."""
    match event.get("kind"):
        case "note":
            return str(event.get("text"))
        case "coordinator":
            return f"led by {event.get('name')}"
        case "cell":
            cell, name, status = (event.get(key) for key in ("cell", "name", "status"))
            return f"cell {cell} on {name}: {status}"
        case "call":
            return f"model {event.get('model')} on {event.get('name')}"
        case "turn":
            return f"turn {event.get('n')}"
        case _:
            return ""


def success(number: object, told: Json) -> Json:
    return {"jsonrpc": "2.0", "id": number, "result": told}


def failure(number: object, code: int, message: str) -> Json:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}
