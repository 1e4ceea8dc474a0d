"""OpenAI's API in bytes: the bodies of requests, and what the pieces of an answer say. No I/O.

Reads streams by what servers send, not by what the reference says: `object` is ignored, usage may
ride on any chunk or be missing, an `error` may arrive under HTTP 200.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from kowalski.node.backends.answers import Answer, error_words
from kowalski.node.backends.lines import (
    JsonObject,
    SseReader,
    excerpt,
    parse_json_object,
)
from kowalski.node.backends.seam import BackendError, CallPiece, CompletionEvent
from kowalski.protocol.messages.inference import Logprob, TokenLogprob

if TYPE_CHECKING:
    from kowalski.node.backends.seam import CompletionRequest
    from kowalski.protocol.messages.inference import ChatMessage

LOGPROB_MIN: Final = -10_000.0
TOKEN_CHARS_MAX: Final = 256
CHUNK_LOGPROBS_MAX: Final = 4096
_REPETITION: Final = frozenset({"vllm", "sglang", "exo"})
"""Kinds that say `repetition_penalty`."""


def chat_body(request: CompletionRequest, kind: str = "openai") -> JsonObject:
    """A chat as a server of this kind wants it; what is not set is left to the server."""
    messages = [_message(one, request) for one in request.messages]
    body: JsonObject = {"model": request.model, "messages": messages, **_common(request, kind)}
    if request.so_far:
        messages.append({"role": "assistant", "content": request.so_far})
        # In vLLM's words, which SGLang and llama.cpp took over; one excludes the other.
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.tools:
        body["tools"] = [_tool(one.name, one.description, one.parameters) for one in request.tools]
        if request.tool_named is not None:
            named = {"type": "function", "function": {"name": request.tool_named}}
            body["tool_choice"] = named
        elif request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
        if request.calls_in_parallel is not None:
            body["parallel_tool_calls"] = request.calls_in_parallel
    if request.json_schema is not None:
        body["response_format"] = _response_format(request.json_schema)
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    if request.thinking is not None:
        body |= _thinking(request.thinking, kind)
    return body


def prompt_body(request: CompletionRequest, kind: str = "openai") -> JsonObject:
    """A text to go on with, for `/completions`."""
    prompt = (request.prompt or "") + request.so_far
    return {"model": request.model, "prompt": prompt, **_common(request, kind)}


def _common(request: CompletionRequest, kind: str) -> JsonObject:
    sampling = request.sampling
    penalty = "repetition_penalty" if kind in _REPETITION else "repeat_penalty"
    asked: JsonObject = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        penalty: sampling.repeat_penalty,
    }
    set_ones = {name: value for name, value in asked.items() if value is not None}
    return {"stream": True, "stream_options": {"include_usage": True}, **set_ones}


def _message(said: ChatMessage, request: CompletionRequest) -> JsonObject:
    message: JsonObject = {"role": said.role, "content": said.content}
    if said.images:
        parts: list[JsonObject] = [{"type": "text", "text": said.content}] if said.content else []
        for number in said.images:
            url = data_url(request.images[number])
            parts.append({"type": "image_url", "image_url": {"url": url}})
        message["content"] = parts
    if said.tool_calls:
        message["content"] = said.content or None
        message["tool_calls"] = [
            {
                "id": call.id or f"call_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for number, call in enumerate(said.tool_calls)
        ]
    if said.role == "tool":
        message["tool_call_id"] = said.tool_call or "call_0"
    return message


def data_url(image: bytes) -> str:
    """`data:image/png;base64,...`; the type by the first bytes of the image."""
    kinds = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"RIFF", "webp"), (b"GIF8", "gif"))
    kind = next((kind for magic, kind in kinds if image.startswith(magic)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _tool(name: str, description: str, parameters: str) -> JsonObject:
    function: JsonObject = {"name": name}
    if description:
        function["description"] = description
    if parameters:
        function["parameters"] = asked_json(parameters, f"the parameters of {name}")
    return {"type": "function", "function": function}


def _response_format(schema: str) -> JsonObject:
    parsed = asked_json(schema, "the schema of the answer")
    if not parsed:
        return {"type": "json_object"}
    named = {"name": "answer", "strict": True, "schema": parsed}
    return {"type": "json_schema", "json_schema": named}


def asked_json(text: str, what: str) -> JsonObject:
    """A JSON object out of a request.

    Raises:
        BackendError: `rejected`, it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BackendError("rejected", f"{what} is no JSON: {excerpt(text)}") from error
    if not isinstance(value, dict):
        raise BackendError("rejected", f"{what} is no JSON object: {excerpt(text)}")
    return cast("JsonObject", value)


def _thinking(thinking: str, kind: str) -> JsonObject:
    if kind == "exo":
        effort = {} if thinking in ("on", "off") else {"reasoning_effort": thinking}
        return {"enable_thinking": thinking != "off", **effort}
    # What the chat templates of Qwen, GLM, DeepSeek and gpt-oss read.
    template: JsonObject = {"enable_thinking": thinking != "off"}
    if thinking not in ("on", "off"):
        template["reasoning_effort"] = thinking
    return {"chat_template_kwargs": template}


class ChunkReader:
    """Server-sent `chat.completion.chunk` objects, up to `[DONE]` or the end of the body."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.is_done = False
        self._sse = SseReader()

    def feed(self, data: bytes) -> tuple[list[CompletionEvent], bool]:
        before = self._sse.progress
        payloads = self._sse.feed(data)
        # A long prompt that is being read is no silence, as long as it goes on.
        return self._take(payloads), bool(payloads) or self._sse.progress != before

    def finish(self) -> list[CompletionEvent]:
        return self._take(self._sse.finish())

    def _take(self, payloads: list[str]) -> list[CompletionEvent]:
        events: list[CompletionEvent] = []
        for payload in payloads:
            if self.is_done:
                break
            if payload.strip() == "[DONE]":
                self.is_done = True
            else:
                value = parse_json_object(payload)
                events += take_completion(value, self.answer, part="delta")
        return events


class WholeReader:
    """One `chat.completion` object: some servers answer so although a stream was asked for."""

    def __init__(self, answer: Answer, *, bytes_max: int = 64 * 1024 * 1024) -> None:
        self.answer = answer
        self.is_done = False
        self._bytes_max = bytes_max
        self._body = bytearray()

    def feed(self, data: bytes) -> tuple[list[CompletionEvent], bool]:
        self._body += data
        if len(self._body) > self._bytes_max:
            raise BackendError("bad_reply", f"body of more than {self._bytes_max} bytes")
        return [], True

    def finish(self) -> list[CompletionEvent]:
        if not self._body.strip():
            return []
        return take_completion(parse_json_object(bytes(self._body)), self.answer, part="message")


def take_completion(value: JsonObject, answer: Answer, *, part: str) -> list[CompletionEvent]:
    """Move what one completion object says into `answer`; gives the deltas.

    Raises:
        BackendError: it carries an `error`, or is none.
    """
    if value.get("error"):
        raise _stream_error(value["error"])
    _take_usage(value, answer)
    choices = value.get("choices")
    # The chunk that carries the usage has no choices.
    if choices is None or choices == []:
        return []
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise BackendError("bad_reply", f"choices are no list of objects: {excerpt(choices)}")
    choice = cast("JsonObject", choices[0])
    piece = choice.get(part) or {}
    if not isinstance(piece, dict):
        raise BackendError("bad_reply", f"{part} is no object: {excerpt(piece)}")
    piece = cast("JsonObject", piece)
    # `text` is what `/completions` says in place of a message.
    text = piece.get("content") if piece else choice.get("text")
    logprobs = choice.get("logprobs")
    events = answer.take(
        text,
        thinking=piece.get("reasoning_content") or piece.get("reasoning"),
        calls=_calls(piece.get("tool_calls")),
        logprobs=logprobs_of(_object(logprobs).get("content")) if logprobs else (),
    )
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason and not answer.has_stopped:
        answer.finish_reason = reason
    return events


def _take_usage(value: JsonObject, answer: Answer) -> None:
    usage, timings = value.get("usage"), value.get("timings")
    if not (usage or timings):
        return  # nearly all chunks
    usage, timings = _object(usage), _object(timings)
    if usage:
        answer.count(
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
            cached_tokens=_object(usage.get("prompt_tokens_details")).get("cached_tokens"),
            thinking_tokens=_object(usage.get("completion_tokens_details")).get("reasoning_tokens"),
        )
    if timings:
        # llama-server's own, on its last chunk; the only counts of a raw prompt's stream.
        prompt_n, cached = timings.get("prompt_n"), timings.get("cache_n")
        if isinstance(prompt_n, int) and isinstance(cached, int):
            answer.count(prompt_n + cached, timings.get("predicted_n"), cached_tokens=cached)
        answer.time(
            prompt_s=_thousandth(timings.get("prompt_ms")),
            generation_s=_thousandth(timings.get("predicted_ms")),
        )


def _calls(value: object) -> tuple[CallPiece, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BackendError("bad_reply", f"tool_calls are no list: {excerpt(value)}")
    return tuple(_call(entry, number) for number, entry in enumerate(value))


def _call(entry: object, number: int) -> CallPiece:
    called = _object(entry)
    function = _object(called.get("function"))
    index = called.get("index", number)
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        index = number
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(arguments, str):
        # Some servers give the object itself.
        arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    return CallPiece(index, _short(called.get("id")), _short(name), arguments)


def logprobs_of(value: object) -> tuple[Logprob, ...]:
    """The list that OpenAI's chunks, and Ollama's, tell of their tokens."""
    if not isinstance(value, list):
        return ()
    return tuple(
        Logprob(
            token=told.token,
            logprob=told.logprob,
            utf8=told.utf8,
            alternatives=_alternatives(entry),
        )
        for entry in value[:CHUNK_LOGPROBS_MAX]
        if isinstance(entry, dict)
        for told in [_token(entry)]
    )


def _alternatives(entry: Mapping[str, object]) -> tuple[TokenLogprob, ...]:
    told = entry.get("top_logprobs")
    if not isinstance(told, list):
        return ()
    return tuple(_token(one) for one in told[:20] if isinstance(one, dict))


def _token(entry: Mapping[str, object]) -> TokenLogprob:
    token, logprob, data = entry.get("token"), entry.get("logprob"), entry.get("bytes")
    number = float(logprob) if isinstance(logprob, int | float) else LOGPROB_MIN
    number = max(LOGPROB_MIN, min(0.0, number)) if math.isfinite(number) else LOGPROB_MIN
    text = token[:TOKEN_CHARS_MAX] if isinstance(token, str) else ""
    utf8 = b""
    if isinstance(data, list) and all(isinstance(b, int) and 0 <= b < 256 for b in data):
        utf8 = bytes(data[:64])
    # Whole characters speak for themselves.
    is_told = utf8 in (b"", text.encode(errors="replace"))
    return TokenLogprob(token=text, logprob=number, utf8=None if is_told else utf8)


def _stream_error(error: object) -> BackendError:
    code = error.get("code") if isinstance(error, dict) else None
    words = error_words(error)
    if code in (429, 503):
        return BackendError("overloaded", words)
    if code == 404:
        return BackendError("model_missing", words)
    return BackendError("bad_reply", f"error in the stream: {words}")


def _object(value: object) -> JsonObject:
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def _short(value: object) -> str:
    return value[:128] if isinstance(value, str) else ""


def _thousandth(value: object) -> float | None:
    return value / 1000 if isinstance(value, int | float) else None
