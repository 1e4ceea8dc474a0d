"""What OpenAI's clients ask of `/v1/responses`. Pure.

After the API reference (https://platform.openai.com/docs/api-reference/responses). Nothing is kept
here: a conversation comes whole with each request, as clients send it with `store: false`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.openai_requests import THINKING
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
from kowalski.protocol.messages.inference import ChatMessage, Sampling, Tool, ToolCall


class _Part(Lenient):
    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | None = None


class _Item(Lenient):
    """A message, a call of a tool, what came of one, or what a model thought."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: str | tuple[_Part, ...] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | tuple[_Part, ...] = ""


class _Tool(Lenient):
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, object] | None = None


class _Choice(Lenient):
    type: Literal["function"]
    name: str


class _Format(Lenient):
    type: Literal["text", "json_object", "json_schema"] = "text"
    schema_: Annotated[dict[str, object] | None, Field(alias="schema")] = None


class _Text(Lenient):
    format: _Format | None = None


class _Reasoning(Lenient):
    effort: str | None = None


class _Response(Lenient):
    model: str = ""
    input: str | Annotated[tuple[_Item, ...], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: tuple[_Tool, ...] | None = None
    tool_choice: Literal["auto", "none", "required"] | _Choice | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None


REFERENCE = "https://platform.openai.com/docs/api-reference/responses"

BODIES: Mapping[str, type[Lenient]] = {"/v1/responses": _Response}
"""What a request may say."""

NOT_KEPT: Mapping[str, object] = {
    "previous_response_id": None,
    "conversation": None,
    "prompt": None,
    "background": False,
    "top_logprobs": 0,
    "max_tool_calls": None,
}
"""What would need answers to be kept, and what else cannot be honoured."""


@dataclass(frozen=True, slots=True)
class Echo:
    """What of a request is said again with its response, as it was asked."""

    fields: Mapping[str, object]


@asking
def response_asked(body: Mapping[str, object], *, remaining_s: float) -> tuple[Asked, Echo]:
    """A request of `/v1/responses`.

    Raises:
        HttpError: 400, with the field that is wrong or cannot be honoured.
    """
    refuse(body, NOT_KEPT)
    told = parse(_Response, body)
    pictures: list[Picture] = []
    messages: list[ChatMessage] = []
    if told.instructions:
        messages.append(ChatMessage(role="system", content=told.instructions))
    if isinstance(told.input, str):
        messages.append(ChatMessage(role="user", content=told.input))
    else:
        for item in told.input:
            _add(messages, item, pictures)
    choice = told.tool_choice
    asked = completion(
        model=model_name(told.model),
        messages=tuple(messages),
        max_tokens=told.max_output_tokens,
        temperature=told.temperature,
        sampling=Sampling(top_p=told.top_p),
        tools=tuple(_tool(one) for one in told.tools or ()),
        tool_choice=choice if isinstance(choice, str) else None,
        tool_named=choice.name if isinstance(choice, _Choice) else None,
        calls_in_parallel=told.parallel_tool_calls,
        json_schema=_json_schema(told.text),
        thinking=_thinking(told.reasoning),
        remaining_s=remaining_s,
    )
    return Asked(asked, tuple(pictures), bool(told.stream)), Echo(_echo(body))


def _add(messages: list[ChatMessage], item: _Item, pictures: list[Picture]) -> None:
    """One item of a conversation; calls that follow one another are one turn."""
    match item.type:
        case "message":
            messages.append(_message(item, pictures))
        case "function_call":
            call = ToolCall(id=item.call_id[:128], name=item.name, arguments=item.arguments)
            if messages and messages[-1].role == "assistant":
                calls = (*messages[-1].tool_calls, call)
                messages[-1] = messages[-1].model_copy(update={"tool_calls": calls})
            else:
                messages.append(ChatMessage(role="assistant", content="", tool_calls=(call,)))
        case "function_call_output":
            output = item.output if isinstance(item.output, str) else _texts(item.output)
            messages.append(ChatMessage(role="tool", content=output, tool_call=item.call_id[:128]))
        case "reasoning":
            pass  # of a model that may be another one; nothing can be done with it
        case other:
            raise _unsupported(f"an item of type {other[:40]!r}", "input")


def _message(item: _Item, pictures: list[Picture]) -> ChatMessage:
    role = "system" if item.role == "developer" else item.role
    if item.content is None or isinstance(item.content, str):
        return ChatMessage(role=role, content=item.content or "")
    numbers: list[int] = []
    texts: list[str] = []
    for part in item.content:
        match part.type:
            case "input_text" | "output_text" | "text":
                texts.append(part.text)
            case "refusal":
                texts.append(part.refusal)
            case "input_image" if part.image_url is not None:
                numbers.append(len(pictures))
                pictures.append(picture(part.image_url))
            case other:
                raise _unsupported(f"content of type {other[:40]!r}", "input")
    return ChatMessage(role=role, content="\n".join(texts), images=tuple(numbers))


def _texts(parts: tuple[_Part, ...]) -> str:
    if other := next((one.type for one in parts if not one.type.endswith("text")), None):
        raise _unsupported(f"output of type {other[:40]!r}", "input")
    return "\n".join(one.text for one in parts)


def _tool(told: _Tool) -> Tool:
    if told.type != "function":
        raise _unsupported(f"the tool {told.type[:40]!r}", "tools")
    return Tool(
        name=told.name,
        description=told.description or "",
        parameters=json_text(told.parameters) if told.parameters is not None else "",
    )


def _json_schema(wanted: _Text | None) -> str | None:
    if wanted is None or wanted.format is None or wanted.format.type == "text":
        return None
    if wanted.format.type == "json_object":
        return "{}"
    if wanted.format.schema_ is None:
        raise HttpError(400, "invalid_request", "text.format.schema: missing", field="text")
    return json_text(wanted.format.schema_)


def _thinking(told: _Reasoning | None) -> str | None:
    if told is None or told.effort is None:
        return None
    if told.effort not in THINKING:
        known = ", ".join(THINKING)
        message = f"reasoning.effort: one of {known}"
        raise HttpError(400, "invalid_request", message, field="reasoning")
    return THINKING[told.effort]


def _echo(body: Mapping[str, object]) -> dict[str, object]:
    asked = {name: body[name] for name in _ECHOED if body.get(name) is not None}
    return {**_ECHOED, **asked, "store": False}


def _unsupported(what: str, field: str) -> HttpError:
    return HttpError(400, "unsupported", f"{field}: {what} is not supported", field=field)


_ECHOED: Mapping[str, object] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
}
"""What clients expect to be told again, and what it is where nothing was said."""
