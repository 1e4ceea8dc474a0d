"""What OpenAI's clients ask: chat completions, completions and embeddings. Pure.

After the API reference (https://platform.openai.com/docs/api-reference/chat) and what clients of
compatible servers add to it (top_k, min_p, repeat_penalty).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.words import (
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
)
from kowalski.protocol.messages.inference import (
    ChatMessage,
    EmbeddingsAsked,
    Sampling,
    Tool,
    ToolCall,
)

THINKING: Mapping[str, str] = {
    "none": "off",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
}


class _ImageUrl(Lenient):
    url: str


class _Part(Lenient):
    type: str
    text: str = ""
    image_url: _ImageUrl | None = None


class _Function(Lenient):
    name: str
    arguments: str = ""


class _Call(Lenient):
    id: str = ""
    function: _Function


class _Message(Lenient):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[_Part, ...] | None = None
    tool_calls: tuple[_Call, ...] | None = None
    tool_call_id: str | None = None


class _FunctionTold(Lenient):
    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None


class _ToolTold(Lenient):
    type: Literal["function"] = "function"
    function: _FunctionTold


class _Named(Lenient):
    name: str


class _Choice(Lenient):
    function: _Named


class _Schema(Lenient):
    schema_: Annotated[dict[str, object] | None, Field(alias="schema")] = None


class _Format(Lenient):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(Lenient):
    include_usage: bool | None = None


class _Sampled(Lenient):
    """What chat and plain completions have in common."""

    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    def sampling(self) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        return Sampling(
            seed=None if self.seed is None else self.seed % 2**53,
            stop=tuple(one for one in stop if one),
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repeat_penalty=self.repeat_penalty,
        )

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class _Chat(_Sampled):
    messages: Annotated[tuple[_Message, ...], Field(min_length=1)]
    max_completion_tokens: int | None = None
    tools: tuple[_ToolTold, ...] | None = None
    tool_choice: Literal["auto", "none", "required"] | _Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None


class _Plain(_Sampled):
    prompt: str | tuple[str, ...] = ""
    logprobs: int | None = None


class _Embeddings(Lenient):
    model: str = ""
    input: str | tuple[str, ...]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


REFERENCE = "https://platform.openai.com/docs/api-reference/chat"

BODIES: Mapping[str, type[Lenient]] = {
    "/v1/chat/completions": _Chat,
    "/v1/completions": _Plain,
    "/v1/embeddings": _Embeddings,
}
"""What a request of each path may say."""


@asking
def chat_asked(body: Mapping[str, object], *, remaining_s: float) -> Asked:
    """A request of `/v1/chat/completions`.

    Raises:
        HttpError: 400, with the field that is wrong or cannot be honoured.
    """
    refuse(body, {"n": 1, "logit_bias": {}, "functions": [], "audio": None, "prediction": None})
    chat = parse(_Chat, body)
    pictures: list[Picture] = []
    messages = tuple(_message(one, pictures) for one in chat.messages)
    choice = chat.tool_choice
    if chat.reasoning_effort is not None and chat.reasoning_effort not in THINKING:
        known = ", ".join(THINKING)
        raise HttpError(400, "invalid_request", f"reasoning_effort: one of {known}")
    asked = completion(
        model=model_name(chat.model),
        messages=messages,
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        temperature=chat.temperature,
        sampling=chat.sampling(),
        tools=tuple(_tool(one) for one in chat.tools or ()),
        tool_choice=choice if isinstance(choice, str) else None,
        tool_named=choice.function.name if isinstance(choice, _Choice) else None,
        calls_in_parallel=chat.parallel_tool_calls,
        json_schema=_json_schema(chat.response_format),
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        thinking=THINKING[chat.reasoning_effort] if chat.reasoning_effort else None,
        remaining_s=remaining_s,
    )
    return Asked(asked, tuple(pictures), bool(chat.stream), chat.wants_usage)


@asking
def plain_asked(body: Mapping[str, object], *, remaining_s: float) -> Asked:
    """A request of `/v1/completions`. Raises as `chat_asked`."""
    nothing = {"n": 1, "best_of": 1, "echo": False, "logit_bias": {}, "suffix": ""}
    refuse(body, nothing)
    plain = parse(_Plain, body)
    prompts = (plain.prompt,) if isinstance(plain.prompt, str) else plain.prompt
    if len(prompts) != 1:
        raise HttpError(400, "unsupported", "prompt: one text at a time")
    asked = completion(
        model=model_name(plain.model),
        messages=(),
        prompt=prompts[0],
        max_tokens=plain.max_tokens,
        temperature=plain.temperature,
        sampling=plain.sampling(),
        logprobs=plain.logprobs,
        remaining_s=remaining_s,
    )
    return Asked(asked, (), bool(plain.stream), plain.wants_usage)


@asking
def embeddings_asked(
    body: Mapping[str, object], *, remaining_s: float
) -> tuple[EmbeddingsAsked, bool]:
    """A request of `/v1/embeddings`, and whether its vectors go out in base64. Raises as above."""
    wanted = parse(_Embeddings, body)
    texts = (wanted.input,) if isinstance(wanted.input, str) else wanted.input
    if not texts:
        raise HttpError(400, "invalid_request", "input: at least one text")
    asked = EmbeddingsAsked(
        model=model_name(wanted.model),
        texts=texts,
        dimensions=wanted.dimensions,
        remaining_s=remaining_s,
    )
    return asked, wanted.encoding_format == "base64"


def _message(told: _Message, pictures: list[Picture]) -> ChatMessage:
    numbers: list[int] = []
    if told.content is None or isinstance(told.content, str):
        content = told.content or ""
    else:
        texts = []
        for part in told.content:
            if part.type == "image_url" and part.image_url is not None:
                numbers.append(len(pictures))
                pictures.append(picture(part.image_url.url))
            elif part.type == "text":
                texts.append(part.text)
            else:
                raise HttpError(400, "unsupported", f"content of type {part.type[:40]!r}")
        content = "\n".join(texts)
    calls = tuple(
        ToolCall(id=one.id[:128], name=one.function.name, arguments=one.function.arguments)
        for one in told.tool_calls or ()
    )
    return ChatMessage(
        role="system" if told.role == "developer" else told.role,
        content=content,
        tool_calls=calls,
        tool_call=(told.tool_call_id or "")[:128],
        images=tuple(numbers),
    )


def _tool(told: _ToolTold) -> Tool:
    function = told.function
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=json_text(function.parameters) if function.parameters is not None else "",
    )


def _json_schema(wanted: _Format | None) -> str | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return "{}"
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        raise HttpError(400, "invalid_request", "response_format.json_schema.schema: missing")
    return json_text(wanted.json_schema.schema_)
