"""How `scripted_model_server` says things: OpenAI's server-sent events, Ollama's JSON lines."""

from __future__ import annotations

import json
from typing import Any


class Words:
    """One dialect."""

    content_type = b""

    def line(self, data: bytes) -> bytes:
        raise NotImplementedError

    def json(self, value: object) -> bytes:
        return self.line(json.dumps(value).encode())

    def error_line(self, message: str) -> bytes:
        return self.json(self.error(message))

    def error(self, message: str) -> object:
        raise NotImplementedError

    def comment(self) -> bytes:
        return b""

    def max_tokens(self, body: dict[str, Any]) -> int | None:
        raise NotImplementedError

    def is_streamed(self, body: dict[str, Any]) -> bool:
        raise NotImplementedError

    def wants_usage(self, body: dict[str, Any]) -> bool:
        return True

    def token(self, model: str, token: str) -> bytes:
        raise NotImplementedError

    def end(self, model: str, reason: str, usage: tuple[int, int] | None) -> bytes:
        raise NotImplementedError

    def end_without_usage(self) -> bytes:
        raise NotImplementedError

    def whole(self, model: str, text: str, reason: str, usage: tuple[int, int] | None) -> object:
        raise NotImplementedError

    def tool_call(self, model: str, name: str, arguments: str) -> bytes:
        raise NotImplementedError


class OpenAiWords(Words):
    content_type = b"text/event-stream"

    def line(self, data: bytes) -> bytes:
        return b"data: " + data + b"\n\n"

    def comment(self) -> bytes:
        return b": keep-alive\n\n"

    def error(self, message: str) -> object:
        return {"error": {"message": message, "type": "server_error", "code": 500}}

    def max_tokens(self, body: dict[str, Any]) -> int | None:
        return body.get("max_tokens")

    def is_streamed(self, body: dict[str, Any]) -> bool:
        return bool(body.get("stream", False))

    def wants_usage(self, body: dict[str, Any]) -> bool:
        return bool(body.get("stream_options", {}).get("include_usage", False))

    def error_line(self, message: str) -> bytes:
        return super().error_line(message) + b"data: [DONE]\n\n"

    def token(self, model: str, token: str) -> bytes:
        return self.json(self._chunk(model, {"content": token}, None))

    def end(self, model: str, reason: str, usage: tuple[int, int] | None) -> bytes:
        sent = self.json(self._chunk(model, {}, reason))
        if usage is not None:
            sent += self.json({"model": model, "choices": [], "usage": self._usage(usage)})
        return sent + b"data: [DONE]\n\n"

    def end_without_usage(self) -> bytes:
        return self.json(self._chunk("scripted", {}, "stop"))

    def whole(self, model: str, text: str, reason: str, usage: tuple[int, int] | None) -> object:
        message = {"role": "assistant", "content": text}
        value: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        }
        return value | ({"usage": self._usage(usage)} if usage else {})

    def tool_call(self, model: str, name: str, arguments: str) -> bytes:
        """In two pieces, as most servers send them."""
        half = len(arguments) // 2
        head = {"name": name, "arguments": arguments[:half]}
        first = {"index": 0, "id": "call_1", "type": "function", "function": head}
        rest = {"index": 0, "function": {"arguments": arguments[half:]}}
        pieces = ({"tool_calls": [one]} for one in (first, rest))
        return b"".join(self.json(self._chunk(model, one, None)) for one in pieces)

    def _chunk(self, model: str, delta: dict[str, Any], reason: str | None) -> object:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "model": model,
            "choices": [choice],
        }

    def _usage(self, usage: tuple[int, int]) -> dict[str, int]:
        prompt, completion = usage
        total = prompt + completion
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": total,
        }


class OllamaWords(Words):
    content_type = b"application/x-ndjson"

    def line(self, data: bytes) -> bytes:
        return data + b"\n"

    def error(self, message: str) -> object:
        return {"error": message}

    def max_tokens(self, body: dict[str, Any]) -> int | None:
        return body.get("options", {}).get("num_predict")

    def is_streamed(self, body: dict[str, Any]) -> bool:
        return bool(body.get("stream", True))

    def tool_call(self, model: str, name: str, arguments: str) -> bytes:
        function = {"name": name, "arguments": json.loads(arguments)}
        message = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
        return self.json({"model": model, "message": message, "done": False})

    def token(self, model: str, token: str) -> bytes:
        message = {"role": "assistant", "content": token}
        return self.json({"model": model, "message": message, "done": False})

    def end(self, model: str, reason: str, usage: tuple[int, int] | None) -> bytes:
        return self.json(self.whole(model, "", reason, usage))

    def end_without_usage(self) -> bytes:
        return self.json(self.whole("scripted", "", "stop", None))

    def whole(self, model: str, text: str, reason: str, usage: tuple[int, int] | None) -> object:
        message = {"role": "assistant", "content": text}
        value = {"model": model, "message": message, "done": True, "done_reason": reason}
        if usage is None:
            return value
        return value | {"prompt_eval_count": usage[0], "eval_count": usage[1]}


def embeddings(body: dict[str, Any]) -> object:
    """OpenAI's answer: of each text, how often each letter of the alphabet comes."""
    given = body["input"]
    texts = [given] if isinstance(given, str) else given
    letters = "abcdefghijklmnopqrstuvwxyz"
    data = [
        {"index": number, "embedding": [float(text.lower().count(one)) for one in letters]}
        for number, text in enumerate(texts)
    ]
    tokens = sum(len(text.split()) for text in texts)
    return {"data": data, "model": body["model"], "usage": {"prompt_tokens": tokens}}
