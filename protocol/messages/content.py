"""Big things by hash (/kowalski/content/1): the asker pulls range after range, at its own pace."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kowalski.protocol.ids import ContentHashField, PeerIdField
from kowalski.protocol.limits import CONTENT_BYTES_MAX, CONTENT_CHUNK_BYTES, FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Message, Record

Size = Annotated[int, Field(ge=0, le=CONTENT_BYTES_MAX)]


class ContentRef(Record):
    """Some bytes, and peers that hold them."""

    hash: ContentHashField
    bytes_total: Size
    holders: Annotated[
        tuple[PeerIdField, ...], Field(strict=False, fail_fast=True, max_length=8)
    ] = ()


class ContentAsked(Message):
    KIND: ClassVar[str] = "content/asked"

    hash: ContentHashField
    offset: Size
    bytes_max: Annotated[int, Field(ge=1, le=CONTENT_CHUNK_BYTES)]


class ContentChunk(Message):
    """From `offset` on; the last one ends at `bytes_total`."""

    KIND: ClassVar[str] = "content/chunk"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    data: Annotated[bytes, Field(max_length=CONTENT_CHUNK_BYTES)]
    bytes_total: Size
