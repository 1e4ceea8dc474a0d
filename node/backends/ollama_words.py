"""Ollama's own API in bytes: the bodies of requests, and its JSON lines. No I/O.

Shapes: docs.ollama.com/api and `api/types.go` of ollama/ollama. Durations there are nanoseconds.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final, cast

from kowalski.node.backends.answers import Answer, error_words
from kowalski.node.backends.lines import JsonLinesReader, JsonObject, excerpt
from kowalski.node.backends.openai_words import asked_json, logprobs_of
from kowalski.node.backends.seam import BackendError, CallPiece, CompletionEvent, Fetched

if TYPE_CHECKING:
    from kowalski.node.backends.seam import CompletionRequest
    from kowalski.protocol.messages.inference import ChatMessage

MODELS_MAX: Final = 1000
NAME_CHARS_MAX: Final = 256
"""As on the wire."""

_CAPABILITIES: Final = {
    "completion": "chat",
    "tools": "tools",
    "vision": "vision",
    "embedding": "embed",
    "thinking": "thinking",
}
"""Ours by Ollama's; it has more, such as `insert`."""


def chat_body(request: CompletionRequest, *, context_tokens: int, keep_alive: str) -> JsonObject:
    """For `/api/chat`."""
    body = _body(request, context_tokens, keep_alive)
    messages = [_message(one, request) for one in request.messages]
    if request.so_far:
        # A last message of the assistant is left open for the model to go on with.
        messages.append({"role": "assistant", "content": request.so_far})
    body["messages"] = messages
    if request.tools and request.tool_choice != "none":
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": asked_json(
                        tool.parameters or '{"type":"object","properties":{}}',
                        f"the parameters of {tool.name}",
                    ),
                },
            }
            for tool in request.tools
        ]
    if request.thinking is not None:
        levels: dict[str, object] = {"on": True, "off": False}
        body["think"] = levels.get(request.thinking, request.thinking)
    return body


def prompt_body(request: CompletionRequest, *, context_tokens: int, keep_alive: str) -> JsonObject:
    """For `/api/generate`, the chat template left aside."""
    body = _body(request, context_tokens, keep_alive)
    return {**body, "prompt": (request.prompt or "") + request.so_far, "raw": True}


def _body(request: CompletionRequest, context_tokens: int, keep_alive: str) -> JsonObject:
    sampling = request.sampling
    asked: JsonObject = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repeat_penalty,
    }
    options = {name: value for name, value in asked.items() if value is not None}
    body: JsonObject = {
        "model": request.model,
        "stream": True,
        "keep_alive": keep_alive,
        # Without it Ollama cuts long prompts to its default and says nothing.
        "options": {"num_ctx": context_tokens, **options},
    }
    if request.json_schema is not None:
        body["format"] = asked_json(request.json_schema, "the schema of the answer") or "json"
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    return body


def _message(said: ChatMessage, request: CompletionRequest) -> JsonObject:
    message: JsonObject = {"role": said.role, "content": said.content}
    if said.images:
        images = [request.images[number] for number in said.images]
        message["images"] = [base64.b64encode(image).decode() for image in images]
    if said.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "function": {
                    "name": call.name,
                    "arguments": asked_json(call.arguments or "{}", f"the call of {call.name}"),
                },
            }
            for call in said.tool_calls
        ]
    if said.role == "tool":
        # By name in its documentation, by id in newer versions.
        names = {call.id: call.name for one in request.messages for call in one.tool_calls}
        message["tool_name"] = names.get(said.tool_call, said.tool_call)
        message["tool_call_id"] = said.tool_call
    return message


class ChatLinesReader:
    """JSON lines of `/api/chat` or `/api/generate`; the last one is `done`, with the counts."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.is_done = False
        self._lines = JsonLinesReader()
        self._calls = 0

    def feed(self, data: bytes) -> tuple[list[CompletionEvent], bool]:
        values = self._lines.feed(data)
        return self._take(values), bool(values)

    def finish(self) -> list[CompletionEvent]:
        return self._take(self._lines.finish())

    def _take(self, values: list[JsonObject]) -> list[CompletionEvent]:
        events: list[CompletionEvent] = []
        for value in values:
            if self.is_done:
                break
            if value.get("error"):
                raise stream_error(value)
            message = value.get("message") or {}
            if not isinstance(message, dict):
                raise BackendError("bad_reply", f"message is no object: {excerpt(message)}")
            said = cast("JsonObject", message)
            events += self.answer.take(
                said.get("content") if said else value.get("response"),
                thinking=said.get("thinking") or value.get("thinking"),
                calls=self._called(said.get("tool_calls")),
                logprobs=logprobs_of(value.get("logprobs")),
            )
            if value.get("done") is True:
                self._end(value)
        return events

    def _called(self, value: object) -> tuple[CallPiece, ...]:
        """Each call comes whole, its arguments as an object."""
        if not isinstance(value, list):
            return ()
        pieces: list[CallPiece] = []
        for entry in value:
            function = entry.get("function") if isinstance(entry, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise BackendError("bad_reply", f"no call of a tool: {excerpt(entry)}")
            arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
            name = entry.get("id") or f"call_{self._calls}"
            pieces.append(
                CallPiece(self._calls, str(name)[:128], function["name"][:128], arguments)
            )
            self._calls += 1
        return tuple(pieces)

    def _end(self, value: JsonObject) -> None:
        reason = value.get("done_reason")
        if not self.answer.has_stopped:
            self.answer.finish_reason = reason if isinstance(reason, str) and reason else "stop"
            if self._calls and self.answer.finish_reason == "stop":
                self.answer.finish_reason = "tool_calls"
        # A prompt that was in the cache is not counted again: then it is estimated.
        self.answer.count(value.get("prompt_eval_count"), value.get("eval_count"))
        self.answer.time(
            load_s=_nanoseconds(value.get("load_duration")),
            prompt_s=_nanoseconds(value.get("prompt_eval_duration")),
            generation_s=_nanoseconds(value.get("eval_duration")),
        )
        self.is_done = True


def stream_error(value: JsonObject) -> BackendError:
    words = error_words(value["error"])
    if "not found" in words:
        return BackendError("model_missing", words)
    return BackendError("bad_reply", f"error in the stream: {words}")


def fetched(value: JsonObject) -> Fetched:
    """One line of a pull: `pulling 970aa74c0a90`, with bytes, or a word such as `success`."""
    status = value.get("status")
    status = status[:100] if isinstance(status, str) else ""
    done, total = _bytes(value.get("completed")), _bytes(value.get("total"))
    if status == "success":
        return Fetched("ready", status)
    if total:
        return Fetched("downloading", status, min(done, total), total)
    return Fetched("verifying" if "verif" in status else "preparing", status)


def pull_error(value: JsonObject) -> BackendError:
    """A pull that failed says so in a line, under HTTP 200."""
    said = error_words(value["error"])
    if "does not exist" in said or "not found" in said:
        return BackendError("model_missing", said)
    if any(sign in said for sign in ("dial tcp", "no such host", "timeout", "connection")):
        return BackendError("unreachable", f"it cannot reach the registry: {said}")
    return BackendError("rejected", said)


def _bytes(value: object) -> int:
    is_size = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53
    return cast("int", value) if is_size else 0


def named(payload: JsonObject) -> dict[str, JsonObject]:
    """The entries of `/api/tags` or `/api/ps` by their names."""
    models = payload.get("models")
    if models is None:
        return {}
    if not isinstance(models, list):
        raise BackendError("bad_reply", f"no list of models: {excerpt(models)}")
    found: dict[str, JsonObject] = {}
    for entry in models[:MODELS_MAX]:
        name = (entry.get("model") or entry.get("name")) if isinstance(entry, dict) else None
        if isinstance(name, str) and 0 < len(name) <= NAME_CHARS_MAX:
            found[name] = cast("JsonObject", entry)
    return found


def capabilities(show: JsonObject) -> tuple[str, ...]:
    """Out of `/api/show`; empty where it does not tell."""
    told = show.get("capabilities")
    if not isinstance(told, list):
        return ()
    return tuple(ours for theirs, ours in _CAPABILITIES.items() if theirs in told)


def trained_context(show: JsonObject) -> int | None:
    """The context length that the model was made for, out of `/api/show`."""
    info = show.get("model_info")
    if not isinstance(info, dict):
        return None
    for name, value in info.items():
        if str(name).endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
    return None


def _nanoseconds(value: object) -> float | None:
    return value / 1e9 if isinstance(value, int | float) else None
