"""What OpenAI's clients are answered, whole or in chunks. Pure. See `openai_requests`."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence

from kowalski.node.http.exchange import HttpError, dump
from kowalski.node.http.faces.words import Answered
from kowalski.protocol.messages.inference import (
    CompletionDelta,
    Logprob,
    TokenLogprob,
    ToolCall,
    ToolCallPiece,
    Usage,
)

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter"})
DONE = b"data: [DONE]\n\n"


def chat_answer(name: str, created: int, answered: Answered) -> dict[str, object]:
    """The whole of a chat completion. `name` is its id, without the kind."""
    message: dict[str, object] = {"role": "assistant", "content": answered.text}
    if answered.thinking:
        message["reasoning_content"] = answered.thinking
    if answered.tool_calls:
        message["content"] = answered.text or None
        message["tool_calls"] = [
            _call(number, one) for number, one in enumerate(answered.tool_calls)
        ]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(answered.logprobs),
        "finish_reason": _finish_reason(answered),
    }
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": created,
        "model": answered.done.model,
        "choices": [choice],
        "usage": usage(answered.done.usage),
    }


def plain_answer(name: str, created: int, answered: Answered) -> dict[str, object]:
    choice = {
        "index": 0,
        "text": answered.text,
        "logprobs": _plain_logprobs(answered.logprobs),
        "finish_reason": _finish_reason(answered),
    }
    return {
        "id": f"cmpl-{name}",
        "object": "text_completion",
        "created": created,
        "model": answered.done.model,
        "choices": [choice],
        "usage": usage(answered.done.usage),
    }


def embeddings_answer(
    vectors: Sequence[bytes], model: str, counted: Usage, *, in_base64: bool
) -> dict[str, object]:
    data = [
        {
            "object": "embedding",
            "index": number,
            "embedding": base64.b64encode(vector).decode() if in_base64 else floats(vector),
        }
        for number, vector in enumerate(vectors)
    ]
    tokens = counted.prompt_tokens
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def floats(vector: bytes) -> list[float]:
    """Little-endian 32-bit floats, as they travel."""
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


def error_answer(error: HttpError) -> dict[str, object]:
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    default = "invalid_request_error" if error.status < 500 else "server_error"
    kind = kinds.get(error.status, default)
    told = {"message": error.message, "type": kind, "param": error.field, "code": error.code}
    return {"error": told}


class ChatStream:
    """`chat.completion.chunk`s; see `words.Stream`."""

    def __init__(self, name: str, created: int, model: str, *, wants_usage: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{name}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._wants_usage = wants_usage
        self._called: set[int] = set()

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, delta: CompletionDelta) -> bytes:
        told: dict[str, object] = {}
        if delta.text:
            told["content"] = delta.text
        if delta.thinking:
            told["reasoning_content"] = delta.thinking
        if delta.tool_calls:
            told["tool_calls"] = [self._call_piece(one) for one in delta.tool_calls]
        return self._chunk(told, logprobs=_logprobs(delta.logprobs)) if told else b""

    def _call_piece(self, told: ToolCallPiece) -> dict[str, object]:
        function: dict[str, object] = {"arguments": told.arguments}
        piece: dict[str, object] = {"index": told.index, "function": function}
        if told.name and told.index not in self._called:
            self._called.add(told.index)
            function["name"] = told.name
            piece |= {"id": told.id or f"call_{told.index}", "type": "function"}
        return piece

    def keep_alive(self) -> bytes:
        return b": still here\n\n"

    def end(self, answered: Answered, where: Mapping[str, object]) -> bytes:
        self._head["model"] = answered.done.model
        last = self._chunk({}, finish_reason=_finish_reason(answered), kowalski=dict(where))
        if not self._wants_usage:
            return last + DONE
        counted = {**self._head, "choices": [], "usage": usage(answered.done.usage)}
        return last + _event(counted) + DONE

    def fail(self, error: HttpError) -> bytes:
        return _event(error_answer(error))

    def _chunk(
        self,
        delta: Mapping[str, object],
        *,
        finish_reason: str | None = None,
        logprobs: object = None,
        **more: object,
    ) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return _event({**self._head, "choices": [choice], **more})


class PlainStream:
    """Chunks of a plain completion; see `words.Stream`."""

    def __init__(self, name: str, created: int, model: str, *, wants_usage: bool) -> None:
        self._head = {
            "id": f"cmpl-{name}",
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._wants_usage = wants_usage

    def begin(self) -> bytes:
        return b""

    def piece(self, delta: CompletionDelta) -> bytes:
        return self._chunk(delta.text, None, _plain_logprobs(delta.logprobs)) if delta.text else b""

    def keep_alive(self) -> bytes:
        return b": still here\n\n"

    def end(self, answered: Answered, where: Mapping[str, object]) -> bytes:
        self._head["model"] = answered.done.model
        last = self._chunk("", _finish_reason(answered), None, kowalski=dict(where))
        if not self._wants_usage:
            return last + DONE
        counted = {**self._head, "choices": [], "usage": usage(answered.done.usage)}
        return last + _event(counted) + DONE

    def fail(self, error: HttpError) -> bytes:
        return _event(error_answer(error))

    def _chunk(
        self, text: str, finish_reason: str | None, logprobs: object, **more: object
    ) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
        return _event({**self._head, "choices": [choice], **more})


def usage(counted: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": counted.completion_tokens,
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": counted.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": counted.thinking_tokens},
    }


def _finish_reason(answered: Answered) -> str:
    reason = answered.done.finish_reason
    if answered.tool_calls and reason in {"stop", "tool_calls"}:
        return "tool_calls"
    return reason if reason in FINISH_REASONS else "stop"


def _call(number: int, call: ToolCall) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id or f"call_{number}", "type": "function", "function": function}


def _logprobs(told: Sequence[Logprob]) -> dict[str, object] | None:
    if not told:
        return None
    content = [
        {**_token(one), "top_logprobs": [_token(other) for other in one.alternatives]}
        for one in told
    ]
    return {"content": content, "refusal": None}


def _token(one: TokenLogprob) -> dict[str, object]:
    data = one.utf8 if one.utf8 is not None else one.token.encode()
    return {"token": one.token, "logprob": one.logprob, "bytes": list(data)}


def _plain_logprobs(told: Sequence[Logprob]) -> dict[str, object] | None:
    if not told:
        return None
    return {
        "tokens": [one.token for one in told],
        "token_logprobs": [one.logprob for one in told],
        "top_logprobs": [
            {other.token: other.logprob for other in one.alternatives} for one in told
        ],
        "text_offset": [],
    }


def _event(value: object) -> bytes:
    return b"data: " + dump(value) + b"\n\n"
