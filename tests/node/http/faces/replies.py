"""Answers to put into clients' languages."""

import json

from kowalski.node.http.faces.words import Answered
from kowalski.protocol.messages.inference import (
    CompletionDelta,
    CompletionDone,
    Logprob,
    TokenLogprob,
    ToolCall,
    ToolCallPiece,
    Usage,
)

USAGE = Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=2, thinking_tokens=1)
WHERE = {"peer": "12D3", "name": "minipc", "attempts": 1}
CALL = ToolCall(id="c1", name="look", arguments='{"x":1}')
LOGPROB = Logprob(
    token="é",
    logprob=-0.5,
    alternatives=(TokenLogprob(token="e", logprob=-1.5, utf8=b"\xc3"),),
)
CALL_PIECES = (
    CompletionDelta(tool_calls=(ToolCallPiece(index=0, id="c1", name="look", arguments='{"x"'),)),
    CompletionDelta(tool_calls=(ToolCallPiece(index=0, arguments=":1}"),)),
)


def done(finish_reason: str = "stop") -> CompletionDone:
    return CompletionDone(
        model="m",
        finish_reason=finish_reason,
        usage=USAGE,
        load_s=0.25,
        prompt_s=0.5,
        generation_s=1.5,
        held_s=2.5,
    )


def answered(
    text: str = "hello",
    *,
    thinking: str = "",
    tool_calls: tuple[ToolCall, ...] = (),
    logprobs: tuple[Logprob, ...] = (),
    finish_reason: str = "stop",
) -> Answered:
    return Answered(text, thinking, tool_calls, logprobs, done(finish_reason))


def events(data: bytes) -> list[dict[str, object]]:
    """The data of server-sent events that is JSON."""
    lines = [line for line in data.decode().split("\n") if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]
