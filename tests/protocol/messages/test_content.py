"""Big things by hash: no chunk outgrows its frame, no blob the promise."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.limits import CONTENT_BYTES_MAX, CONTENT_CHUNK_BYTES
from kowalski.protocol.messages.content import ContentAsked, ContentChunk, ContentRef
from tests.protocol.examples import HASH, WORKER


def test_the_largest_chunk_of_the_largest_blob_is_one_frame() -> None:
    asked = ContentAsked(
        hash=HASH,
        offset=CONTENT_BYTES_MAX - CONTENT_CHUNK_BYTES,
        bytes_max=CONTENT_CHUNK_BYTES,
    )
    chunk = ContentChunk(data=bytes(asked.bytes_max), bytes_total=CONTENT_BYTES_MAX)
    assert decode(encode(asked)) == asked
    assert decode(encode(chunk)) == chunk


def test_nobody_asks_for_nothing_or_for_more_than_a_chunk() -> None:
    for bytes_max in (0, CONTENT_CHUNK_BYTES + 1):
        with pytest.raises(ValidationError, match="bytes_max"):
            ContentAsked(hash=HASH, offset=0, bytes_max=bytes_max)


def test_a_reference_names_few_holders() -> None:
    assert ContentRef(hash=HASH, bytes_total=0).holders == ()
    assert ContentRef(hash=HASH, bytes_total=1, holders=(WORKER,) * 8)
    with pytest.raises(ValidationError, match="holders"):
        ContentRef(hash=HASH, bytes_total=1, holders=(WORKER,) * 9)
