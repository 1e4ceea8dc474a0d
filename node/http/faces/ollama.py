"""Ollama's own interface, as its clients speak it. Pure.

After the API reference (https://github.com/ollama/ollama/blob/main/docs/api.md). Durations are
nanoseconds there. What belongs to the server that runs a model (`keep_alive`, `num_ctx` and other
options of loading) is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from kowalski.node.http.exchange import HttpError, dump
from kowalski.node.http.faces.openai_replies import floats
from kowalski.node.http.faces.words import (
    Answered,
    Asked,
    Lenient,
    Picture,
    asking,
    completion,
    json_text,
    model_name,
    parse,
    picture,
    refuse,
    said_json,
)
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionDelta,
    CompletionDone,
    EmbeddingsAsked,
    EmbeddingsDone,
    Sampling,
    Tool,
    ToolCall,
)


class _Function(Lenient):
    name: str
    arguments: dict[str, object] | None = None
    description: str | None = None
    parameters: dict[str, object] | None = None


class _Call(Lenient):
    function: _Function


class _Message(Lenient):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: tuple[str, ...] | None = None
    tool_calls: tuple[_Call, ...] | None = None
    tool_name: str | None = None


class _Options(Lenient):
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    stop: str | tuple[str, ...] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None

    def sampling(self) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        return Sampling(
            seed=None if self.seed is None else self.seed % 2**53,
            stop=stop,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repeat_penalty=self.repeat_penalty,
        )


class _Common(Lenient):
    model: str = ""
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, object] | None = None
    options: _Options | None = None
    think: bool | Literal["low", "medium", "high"] | None = None
    keep_alive: float | str | None = None

    def fields(self) -> dict[str, object]:
        """What goes into a completion, whatever is asked."""
        options = self.options or _Options()
        predict = options.num_predict
        thinking = ("on" if self.think else "off") if isinstance(self.think, bool) else self.think
        schema = {"json": "{}", "": None, None: None}
        return {
            "model": model_name(self.model),
            "max_tokens": predict if predict is not None and predict > 0 else None,
            "temperature": options.temperature,
            "sampling": options.sampling(),
            "thinking": thinking,
            "json_schema": json_text(self.format)
            if isinstance(self.format, dict)
            else schema[self.format],
        }


class _Chat(_Common):
    messages: tuple[_Message, ...] = ()
    tools: tuple[_Call, ...] | None = None


class _Generate(_Common):
    prompt: str = ""
    system: str = ""
    images: tuple[str, ...] | None = None
    raw: bool = False


class _Embed(Lenient):
    model: str = ""
    input: str | tuple[str, ...] = ()
    prompt: str = ""
    dimensions: Annotated[int, Field(ge=1)] | None = None


class _Show(Lenient):
    model: str


class _Pull(Lenient):
    model: str
    stream: bool = True
    on: str | None = None


class _Plain(Lenient):
    model: str = ""
    prompt: str


REFERENCE = "https://docs.ollama.com/api"

_NO_TIME = re.compile(r"[-+]?0+(\.0*)?(ns|us|µs|ms|s|m|h)?")

BODIES: Mapping[str, type[Lenient]] = {
    "/api/chat": _Chat,
    "/api/generate": _Generate,
    "/api/embed": _Embed,
    "/api/embeddings": _Plain,
    "/api/show": _Show,
    "/api/pull": _Pull,
}
"""What a request of each path may say."""


def is_unloading(body: Mapping[str, object]) -> bool:
    """Whether a request without a prompt is for taking the model out of memory, not into it."""
    return _NO_TIME.fullmatch(str(body.get("keep_alive"))) is not None


@asking
def chat_asked(body: Mapping[str, object], *, remaining_s: float) -> Asked | None:
    """A request of `/api/chat`; None where the model shall only be loaded, or unloaded.

    Raises:
        HttpError: 400, with the field that is wrong or cannot be honoured.
    """
    chat = parse(_Chat, body)
    if not chat.messages:
        return None
    pictures: list[Picture] = []
    messages = tuple(_message(one, pictures) for one in chat.messages)
    asked = completion(
        **chat.fields(),
        messages=messages,
        tools=tuple(_tool(one.function) for one in chat.tools or ()),
        remaining_s=remaining_s,
    )
    return Asked(asked, tuple(pictures), chat.stream is not False)


@asking
def generate_asked(body: Mapping[str, object], *, remaining_s: float) -> Asked | None:
    """A request of `/api/generate`; as `chat_asked`."""
    refuse(body, {"suffix": "", "template": "", "context": []})
    told = parse(_Generate, body)
    if not told.prompt:
        return None
    wants_stream = told.stream is not False
    if told.raw:
        asked = completion(
            **told.fields(), messages=(), prompt=told.prompt, remaining_s=remaining_s
        )
        return Asked(asked, (), wants_stream)
    pictures = tuple(picture(one) for one in told.images or ())
    system = (ChatMessage(role="system", content=told.system),) if told.system else ()
    said = ChatMessage(role="user", content=told.prompt, images=tuple(range(len(pictures))))
    asked = completion(**told.fields(), messages=(*system, said), remaining_s=remaining_s)
    return Asked(asked, pictures, wants_stream)


@asking
def embed_asked(body: Mapping[str, object], *, remaining_s: float) -> EmbeddingsAsked:
    """A request of `/api/embed`, or of the older `/api/embeddings`. Raises as `chat_asked`."""
    told = parse(_Embed, body)
    texts = (told.input,) if isinstance(told.input, str) else told.input
    texts = texts or ((told.prompt,) if told.prompt else ())
    if not texts:
        raise HttpError(400, "invalid_request", "input: at least one text")
    return EmbeddingsAsked(
        model=model_name(told.model),
        texts=texts,
        dimensions=told.dimensions,
        remaining_s=remaining_s,
    )


def _message(told: _Message, pictures: list[Picture]) -> ChatMessage:
    first = len(pictures)
    pictures += [picture(one) for one in told.images or ()]
    calls = tuple(
        ToolCall(name=one.function.name, arguments=json_text(one.function.arguments or {}))
        for one in told.tool_calls or ()
    )
    return ChatMessage(
        role=told.role,
        content=told.content,
        tool_calls=calls,
        tool_call=(told.tool_name or "")[:128],
        images=tuple(range(first, len(pictures))),
    )


def _tool(told: _Function) -> Tool:
    parameters = "" if told.parameters is None else json_text(told.parameters)
    return Tool(name=told.name, description=told.description or "", parameters=parameters)


# --- what clients are answered --------------------------------------------------------------------


def chat_answer(now_unix_s: float, answered: Answered) -> dict[str, object]:
    """The whole of a chat, in one object."""
    return {
        **_head(answered.done.model, now_unix_s),
        "message": _said(answered),
        **_ending(answered.done),
    }


def generate_answer(now_unix_s: float, answered: Answered) -> dict[str, object]:
    thinking = {"thinking": answered.thinking} if answered.thinking else {}
    return {
        **_head(answered.done.model, now_unix_s),
        "response": answered.text,
        **thinking,
        **_ending(answered.done),
    }


def loaded_answer(
    model: str, now_unix_s: float, *, is_chat: bool, is_unloaded: bool = False
) -> dict[str, object]:
    """To a request without a prompt, which asks for the model to be loaded or unloaded."""
    said = {**_head(model, now_unix_s), **_nothing(is_chat=is_chat)}
    return {**said, "done": True, "done_reason": "unload" if is_unloaded else "load"}


def embed_answer(vectors: Sequence[bytes], done: EmbeddingsDone) -> dict[str, object]:
    return {
        "model": done.model,
        "embeddings": [floats(one) for one in vectors],
        "total_duration": _ns(done.held_s),
        "load_duration": 0,
        "prompt_eval_count": done.usage.prompt_tokens,
    }


def error_answer(error: HttpError) -> dict[str, object]:
    return {"error": error.message}


class LineStream:
    """Lines of JSON, of a chat or of a generation; see `words.Stream`."""

    def __init__(self, model: str, now_unix_s: float, *, is_chat: bool) -> None:
        self._model = model
        self._now_unix_s = now_unix_s
        self._is_chat = is_chat

    def begin(self) -> bytes:
        return b""

    def piece(self, delta: CompletionDelta) -> bytes:
        if not (delta.text or delta.thinking):
            return b""  # calls go out whole, at the end
        thinking = {"thinking": delta.thinking} if delta.thinking else {}
        if self._is_chat:
            said: dict[str, object] = {"role": "assistant", "content": delta.text, **thinking}
            return self._line({"message": said, "done": False})
        return self._line({"response": delta.text, **thinking, "done": False})

    def keep_alive(self) -> bytes:
        # An empty piece: clients read every line as JSON.
        return self._line({**_nothing(is_chat=self._is_chat), "done": False})

    def end(self, answered: Answered, where: Mapping[str, object]) -> bytes:
        self._model = answered.done.model
        lines = b""
        if self._is_chat and answered.tool_calls:
            calls = {"role": "assistant", "content": "", "tool_calls": _calls(answered)}
            lines = self._line({"message": calls, "done": False})
        said = {**_nothing(is_chat=self._is_chat), **_ending(answered.done)}
        return lines + self._line({**said, "kowalski": dict(where)})

    def fail(self, error: HttpError) -> bytes:
        return dump(error_answer(error)) + b"\n"

    def _line(self, fields: Mapping[str, object]) -> bytes:
        return dump({**_head(self._model, self._now_unix_s), **fields}) + b"\n"


def time_text(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")


def _head(model: str, now_unix_s: float) -> dict[str, object]:
    return {"model": model, "created_at": time_text(now_unix_s)}


def _nothing(*, is_chat: bool) -> dict[str, object]:
    return {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}


def _said(answered: Answered) -> dict[str, object]:
    said: dict[str, object] = {"role": "assistant", "content": answered.text}
    if answered.thinking:
        said["thinking"] = answered.thinking
    if answered.tool_calls:
        said["tool_calls"] = _calls(answered)
    return said


def _calls(answered: Answered) -> list[dict[str, object]]:
    return [
        {"function": {"name": one.name, "arguments": said_json(one.arguments)}}
        for one in answered.tool_calls
    ]


def _ending(done: CompletionDone) -> dict[str, object]:
    return {
        "done": True,
        "done_reason": "length" if done.finish_reason == "length" else "stop",
        "total_duration": _ns(done.held_s),
        "load_duration": _ns(done.load_s),
        "prompt_eval_count": done.usage.prompt_tokens,
        "prompt_eval_duration": _ns(done.prompt_s),
        "eval_count": done.usage.completion_tokens,
        "eval_duration": _ns(done.generation_s),
    }


def _ns(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1e9)
