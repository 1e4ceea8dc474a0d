"""Model calls (/kowalski/inference/1): one request, the reply streamed, one final message."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kowalski.protocol.ids import TaskIdField
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import (
    Code,
    Count,
    Message,
    ModelName,
    Record,
    Seconds,
    Term,
    Utf8BytesMax,
)
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.telemetry import Hot


class ChatMessage(Record):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Utf8BytesMax(FRAME_BYTES_MAX)]


class CompletionAsked(Message):
    """`task` and `term` fence calls made for a task; a single `ask` has neither."""

    KIND: ClassVar[str] = "inference/completion-asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField | None = None
    term: Term | None = None
    model: ModelName
    messages: Annotated[
        tuple[ChatMessage, ...], Field(strict=False, fail_fast=True, max_length=4096)
    ]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    remaining_s: Seconds
    claim: Claim = Claim()


class CompletionDelta(Message):
    KIND: ClassVar[str] = "inference/delta"

    text: Annotated[str, Utf8BytesMax(16 * 1024)]


class Usage(Record):
    """As the backend counted; `is_estimate` where it did not."""

    prompt_tokens: Count
    completion_tokens: Count
    is_estimate: bool = False


class CompletionDone(Message):
    """The deltas were everything. `held_s` is how long the responder had the request."""

    KIND: ClassVar[str] = "inference/completion-done"

    model: ModelName
    finish_reason: Code
    usage: Usage
    held_s: Seconds
    hot: Hot | None = None
