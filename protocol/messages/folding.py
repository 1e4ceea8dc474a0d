"""Folding a text to a token budget (/kowalski/fold/1). Long texts go by hash, both ways."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Count, Line, Message, Name, Seconds, Text
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.telemetry import Hot


class FoldAsked(Message):
    """Of the text inside `content`, or of `text`, keep what fits `budget_tokens`."""

    KIND: ClassVar[str] = "folding/fold-asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    text: Text | None = None
    content: ContentRef | None = None
    budget_tokens: Annotated[int, Field(ge=1, le=10_000_000)]
    question: Line | None = None
    remaining_s: Seconds
    claim: Claim = Claim()


class FoldDone(Message):
    KIND: ClassVar[str] = "folding/fold-done"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    text: Text | None = None
    content: ContentRef | None = None
    source_tokens: Count
    tokens: Count
    algorithm: Name
    held_s: Seconds
    hot: Hot | None = None
