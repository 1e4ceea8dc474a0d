"""What OpenAI's clients are answered at `/v1/responses`, whole or by events. Pure.

After the API reference (https://platform.openai.com/docs/api-reference/responses-streaming). A
response is a list of items: what the model thought, its message, its calls of tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kowalski.node.http.events import event
from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.responses_requests import Echo
from kowalski.node.http.faces.words import Answered
from kowalski.protocol.messages.inference import CompletionDelta, ToolCallPiece, Usage

Json = dict[str, object]


def response_answer(name: str, created: int, echo: Echo, answered: Answered) -> Json:
    """The whole of a response. `name` is its id, without the kind."""
    items: list[Json] = []
    if answered.thinking:
        items.append(_thought(f"rs_{name}", answered.thinking))
    if answered.text or not answered.tool_calls:
        items.append(_message(f"msg_{name}", answered.text))
    for number, call in enumerate(answered.tool_calls):
        called = call.id or f"call_{number}"
        items.append(_call(f"fc_{name}_{number}", called, call.name, call.arguments))
    return _ended(_Head(name, created, echo), items, answered)


def usage(counted: Usage) -> Json:
    return {
        "input_tokens": counted.prompt_tokens,
        "input_tokens_details": {"cached_tokens": counted.cached_tokens},
        "output_tokens": counted.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": counted.thinking_tokens},
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
    }


class ResponseStream:
    """The events of a response; see `words.Stream`. They are numbered, and so are its items."""

    def __init__(self, name: str, created: int, echo: Echo, model: str) -> None:
        self._head = _Head(name, created, echo)
        self._name = name
        self._model = model
        self._sequence = 0
        self._items: list[Json] = []
        self._open: tuple[str, int] | None = None
        """The kind of the item that is told now, and of a call its number."""
        self._said = ""
        """Of the item that is told now."""

    def begin(self) -> bytes:
        begun = self._response("in_progress", [])
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def piece(self, delta: CompletionDelta) -> bytes:
        said = b""
        if delta.thinking:
            said += self._within("thought", 0)
            said += self._part("response.reasoning_text.delta", delta=delta.thinking)
            self._said += delta.thinking
        if delta.text:
            said += self._text(delta.text)
        for piece in delta.tool_calls:
            said += self._call_piece(piece)
        return said

    def _text(self, text: str) -> bytes:
        said = self._within("message", 0)
        self._said += text
        return said + self._part("response.output_text.delta", delta=text, logprobs=[])

    def _call_piece(self, piece: ToolCallPiece) -> bytes:
        said = b""
        if self._open != ("call", piece.index):
            said = self._within("call", piece.index, piece)
        self._said += piece.arguments
        if piece.arguments:
            said += self._about("response.function_call_arguments.delta", delta=piece.arguments)
        return said

    def keep_alive(self) -> bytes:
        return b": still here\n\n"

    def end(self, answered: Answered, where: Mapping[str, object]) -> bytes:
        self._model = answered.done.model
        said = b"" if self._items or answered.tool_calls else self._within("message", 0)
        said += self._close()
        told = sum(one["type"] == "function_call" for one in self._items)
        for number, call in enumerate(answered.tool_calls[told:], told):
            piece = ToolCallPiece(
                index=number, id=call.id, name=call.name, arguments=call.arguments
            )
            said += self._call_piece(piece) + self._close()
        whole = _ended(self._head, self._items, answered)
        kind = f"response.{whole['status']}"
        return said + self._event(kind, response={**whole, "kowalski": dict(where)})

    def fail(self, error: HttpError) -> bytes:
        told = {"code": error.code, "message": error.message}
        failed = {**self._response("failed", self._items), "error": told}
        return self._event("error", **told, param=None) + self._event(
            "response.failed", response=failed
        )

    # --- items ------------------------------------------------------------------------------------

    def _within(self, kind: str, number: int, piece: ToolCallPiece | None = None) -> bytes:
        """Begin an item of that kind, unless it is the one that is told."""
        if self._open == (kind, number):
            return b""
        said = self._close()
        at = len(self._items)
        match kind:
            case "thought":
                item = _thought(f"rs_{self._name}_{at}", "", status="in_progress")
            case "message":
                item = _message(f"msg_{self._name}_{at}", "", status="in_progress")
            case _:
                assert piece is not None
                called = piece.id or f"call_{number}"
                name = f"fc_{self._name}_{at}"
                item = _call(name, called, piece.name or "", "", status="in_progress")
        self._open = (kind, number)
        self._items.append(item)
        begun = item if kind == "call" else {**item, "content": []}
        said += self._event("response.output_item.added", output_index=at, item=begun)
        if kind != "call":
            said += self._part("response.content_part.added", part=_part_of(item))
        return said

    def _close(self) -> bytes:
        """End the item that is told."""
        if self._open is None:
            return b""
        (kind, _), self._open = self._open, None
        text, self._said = self._said, ""
        item = {**self._items[-1], "status": "completed"}
        if kind == "call":
            item["arguments"] = text
            done = {"arguments": text, "name": item["name"]}
            said = self._about("response.function_call_arguments.done", **done)
        else:
            item["content"] = [{**_part_of(item), "text": text}]
            if kind == "message":
                said = self._part("response.output_text.done", text=text, logprobs=[])
            else:
                said = self._part("response.reasoning_text.done", text=text)
            said += self._part("response.content_part.done", part=_part_of(item))
        self._items[-1] = item
        at = len(self._items) - 1
        return said + self._event("response.output_item.done", output_index=at, item=item)

    # --- events -----------------------------------------------------------------------------------

    def _about(self, kind: str, **fields: object) -> bytes:
        """Of the last item."""
        at = len(self._items) - 1
        return self._event(kind, item_id=self._items[at]["id"], output_index=at, **fields)

    def _part(self, kind: str, **fields: object) -> bytes:
        """Of its one part."""
        return self._about(kind, content_index=0, **fields)

    def _event(self, kind: str, **fields: object) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        return event(kind, {"type": kind, "sequence_number": number, **fields})

    def _response(self, status: str, items: list[Json]) -> Json:
        return _response(self._head, self._model, status, items)


@dataclass(frozen=True, slots=True)
class _Head:
    """What stays the same of a response."""

    name: str
    created: int
    echo: Echo


def _ended(head: _Head, items: list[Json], answered: Answered) -> Json:
    is_cut = answered.done.finish_reason == "length"
    status = "incomplete" if is_cut else "completed"
    whole = _response(head, answered.done.model, status, items)
    why = {"reason": "max_output_tokens"} if is_cut else None
    return {**whole, "incomplete_details": why, "usage": usage(answered.done.usage)}


def _response(head: _Head, model: str, status: str, items: list[Json]) -> Json:
    return {
        "id": f"resp_{head.name}",
        "object": "response",
        "created_at": head.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": list(items),
        "usage": None,
        **head.echo.fields,
    }


def _thought(name: str, text: str, *, status: str = "completed") -> Json:
    part = {"type": "reasoning_text", "text": text}
    return {"type": "reasoning", "id": name, "summary": [], "content": [part], "status": status}


def _message(name: str, text: str, *, status: str = "completed") -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": name,
        "status": status,
        "role": "assistant",
        "content": [part],
    }


def _call(name: str, called: str, tool: str, arguments: str, *, status: str = "completed") -> Json:
    return {
        "type": "function_call",
        "id": name,
        "call_id": called,
        "name": tool,
        "arguments": arguments,
        "status": status,
    }


def _part_of(item: Json) -> Json:
    content = item["content"]
    assert isinstance(content, list), "a call has no parts"
    part: Json = content[0]
    return part
