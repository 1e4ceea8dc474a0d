"""Anthropic's messages, as its clients speak them. Pure.

After the API reference (https://docs.anthropic.com/en/api/messages and .../messages-streaming).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from kowalski.node.http.events import event
from kowalski.node.http.exchange import HttpError
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
    said_json,
)
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionDelta,
    Sampling,
    Tool,
    ToolCall,
    ToolCallPiece,
)

STOP_REASONS: Mapping[str, str] = {"length": "max_tokens", "tool_calls": "tool_use"}


class _Source(Lenient):
    type: str = "base64"
    data: str = ""
    url: str = ""


class _Block(Lenient):
    type: str
    text: str = ""
    thinking: str = ""
    source: _Source | None = None
    id: str = ""
    name: str = ""
    input: dict[str, object] | None = None
    tool_use_id: str = ""
    content: str | tuple[_Block, ...] = ""


class _Message(Lenient):
    role: Literal["user", "assistant", "system"]
    content: str | tuple[_Block, ...]


class _ToolTold(Lenient):
    name: str
    description: str | None = None
    input_schema: dict[str, object] | None = None
    type: str | None = None


class _Choice(Lenient):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(Lenient):
    type: Literal["enabled", "disabled", "adaptive"]


class _Messages(Lenient):
    model: str = ""
    messages: Annotated[tuple[_Message, ...], Field(min_length=1)]
    system: str | tuple[_Block, ...] = ""
    max_tokens: Annotated[int, Field(ge=1)]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: tuple[str, ...] | None = None
    stream: bool = False
    tools: tuple[_ToolTold, ...] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None


class _Counted(_Messages):
    max_tokens: Annotated[int, Field(ge=1)] = 1


REFERENCE = "https://docs.anthropic.com/en/api/messages"

BODIES: Mapping[str, type[Lenient]] = {
    "/v1/messages": _Messages,
    "/v1/messages/count_tokens": _Counted,
}
"""What a request of each path may say."""


@asking
def messages_asked(body: Mapping[str, object], *, remaining_s: float) -> Asked:
    """A request of `/v1/messages`.

    Raises:
        HttpError: 400, with the field that is wrong or cannot be honoured.
    """
    told = parse(_Messages, body)
    pictures: list[Picture] = []
    messages: list[ChatMessage] = []
    system = told.system if isinstance(told.system, str) else _texts(told.system)
    if system:
        messages.append(ChatMessage(role="system", content=system))
    for one in told.messages:
        messages += _turn(one, pictures)
    choice = told.tool_choice
    words: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}
    asked = completion(
        model=model_name(told.model),
        messages=tuple(messages),
        max_tokens=min(told.max_tokens, 1_000_000),
        temperature=told.temperature,
        sampling=Sampling(
            stop=tuple(told.stop_sequences or ()), top_p=told.top_p, top_k=told.top_k
        ),
        tools=tuple(_tool(one) for one in told.tools or ()),
        tool_choice=words.get(choice.type) if choice else None,
        tool_named=choice.name if choice and choice.type == "tool" else None,
        calls_in_parallel=False if choice and choice.disable_parallel_tool_use else None,
        thinking=_thinking(told.thinking),
        remaining_s=remaining_s,
    )
    return Asked(asked, tuple(pictures), told.stream)


def counted_text(body: Mapping[str, object]) -> str:
    """All the text of a request of `/v1/messages/count_tokens`. Raises as `messages_asked`."""
    asked = messages_asked({"max_tokens": 1, **body}, remaining_s=1.0).completion
    tools = (f"{one.name} {one.description} {one.parameters}" for one in asked.tools)
    return "\n".join((*(one.content for one in asked.messages), *tools))


def _turn(told: _Message, pictures: list[Picture]) -> list[ChatMessage]:
    """One of Anthropic's turns: results of tools come as turns of their own, and first."""
    if isinstance(told.content, str):
        return [ChatMessage(role=told.role, content=told.content)]
    texts: list[str] = []
    calls: list[ToolCall] = []
    results: list[ChatMessage] = []
    numbers: list[int] = []
    for block in told.content:
        match block.type:
            case "text":
                texts.append(block.text)
            case "image" if block.source is not None:
                numbers.append(len(pictures))
                pictures.append(picture(block.source.data or block.source.url))
            case "tool_use":
                arguments = json_text(block.input or {})
                calls.append(ToolCall(id=block.id[:128], name=block.name, arguments=arguments))
            case "tool_result":
                content = block.content if isinstance(block.content, str) else _texts(block.content)
                results.append(
                    ChatMessage(role="tool", content=content, tool_call=block.tool_use_id[:128])
                )
            case "thinking" | "redacted_thinking":
                pass  # of a model that may be another one; nothing can be done with it
            case other:
                raise HttpError(400, "unsupported", f"content of type {other[:40]!r}")
    if not (texts or calls or numbers):
        return results
    said = ChatMessage(
        role=told.role,
        content="\n".join(texts),
        tool_calls=tuple(calls),
        images=tuple(numbers),
    )
    return [*results, said]


def _texts(blocks: tuple[_Block, ...]) -> str:
    if other := next((one.type for one in blocks if one.type != "text"), None):
        raise HttpError(400, "unsupported", f"content of type {other[:40]!r} here")
    return "\n".join(one.text for one in blocks)


def _tool(told: _ToolTold) -> Tool:
    if told.input_schema is None:
        raise HttpError(400, "unsupported", f"the tool {told.name[:40]!r} of type {told.type!r}")
    return Tool(
        name=told.name,
        description=told.description or "",
        parameters=json_text(told.input_schema),
    )


def _thinking(told: _Thinking | None) -> str | None:
    if told is None or told.type == "adaptive":
        return None
    return "on" if told.type == "enabled" else "off"


# --- what clients are answered --------------------------------------------------------------------


def messages_answer(name: str, answered: Answered) -> dict[str, object]:
    """The whole of a message. `name` is its id, without the kind."""
    content: list[dict[str, object]] = []
    if answered.thinking:
        content.append({"type": "thinking", "thinking": answered.thinking, "signature": ""})
    if answered.text or not answered.tool_calls:
        content.append({"type": "text", "text": answered.text})
    for number, call in enumerate(answered.tool_calls):
        content.append(
            {
                "type": "tool_use",
                "id": call.id or f"toolu_{number}",
                "name": call.name,
                "input": said_json(call.arguments),
            }
        )
    counted = answered.done.usage
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": answered.done.model,
        "content": content,
        "stop_reason": _stop_reason(answered),
        "stop_sequence": None,
        "usage": {
            "input_tokens": counted.prompt_tokens - counted.cached_tokens,
            "cache_read_input_tokens": counted.cached_tokens,
            "output_tokens": counted.completion_tokens,
        },
    }


def error_answer(error: HttpError) -> dict[str, object]:
    kinds = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
    default = "invalid_request_error" if error.status < 500 else "api_error"
    kind = kinds.get(error.status, default)
    return {"type": "error", "error": {"type": kind, "message": error.message}}


class MessageStream:
    """The events of a message; see `words.Stream`. Blocks follow one another as they come."""

    def __init__(self, name: str, model: str) -> None:
        self._name = name
        self._model = model
        self._blocks = 0
        self._open: tuple[str, int] | None = None
        """The kind of the block that is open, and of a call its number."""

    def begin(self) -> bytes:
        message: dict[str, object] = {
            "id": f"msg_{self._name}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return _event("message_start", message=message)

    def piece(self, delta: CompletionDelta) -> bytes:
        said = b""
        if delta.thinking:
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            said += self._in_block(("thinking", 0), empty)
            said += self._delta({"type": "thinking_delta", "thinking": delta.thinking})
        if delta.text:
            said += self._in_block(("text", 0), {"type": "text", "text": ""})
            said += self._delta({"type": "text_delta", "text": delta.text})
        for piece in delta.tool_calls:
            said += self._call(piece)
        return said

    def _call(self, piece: ToolCallPiece) -> bytes:
        said = b""
        if piece.name:
            block = {
                "type": "tool_use",
                "id": piece.id or f"toolu_{piece.index}",
                "name": piece.name,
                "input": {},
            }
            said += self._in_block(("tool_use", piece.index), block)
        if piece.arguments and self._open == ("tool_use", piece.index):
            delta = {"type": "input_json_delta", "partial_json": piece.arguments}
            said += self._delta(delta)
        return said

    def keep_alive(self) -> bytes:
        return _event("ping")

    def end(self, answered: Answered, where: Mapping[str, object]) -> bytes:
        whole = messages_answer(self._name, answered)
        said = b""
        if not self._blocks:
            said += self._in_block(("text", 0), {"type": "text", "text": ""})
        said += self._close()
        ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        said += _event("message_delta", delta=ending, usage=whole["usage"], kowalski=dict(where))
        return said + _event("message_stop")

    def fail(self, error: HttpError) -> bytes:
        return event("error", error_answer(error))

    def _in_block(self, kind: tuple[str, int], empty: Mapping[str, object]) -> bytes:
        if self._open == kind:
            return b""
        said = self._close()
        self._open = kind
        self._blocks += 1
        index = self._blocks - 1
        return said + _event("content_block_start", index=index, content_block=empty)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event("content_block_stop", index=self._blocks - 1)

    def _delta(self, delta: Mapping[str, object]) -> bytes:
        return _event("content_block_delta", index=self._blocks - 1, delta=delta)


def _stop_reason(answered: Answered) -> str:
    if answered.tool_calls and answered.done.finish_reason != "length":
        return "tool_use"
    return STOP_REASONS.get(answered.done.finish_reason, "end_turn")


def _event(kind: str, **fields: object) -> bytes:
    return event(kind, {"type": kind, **fields})
