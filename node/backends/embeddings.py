"""Vectors of texts: asking for them in batches, and reading what servers give. No I/O."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from kowalski.node.backends.lines import JsonObject, excerpt
from kowalski.node.backends.seam import BackendError, Embedded

if TYPE_CHECKING:
    from kowalski.node.backends.seam import EmbeddingRequest, EstimateTokens

BATCH_TEXTS_MAX: Final = 64
"""Of one request: 64 vectors of 4096 numbers in decimals are about 5 MB."""

BATCH_CHARS_MAX: Final = 256 * 1024
BODY_BYTES_MAX: Final = 32 * 1024 * 1024
DIMENSIONS_MAX: Final = 65_536

_IN_BASE64: Final = frozenset({"llama-server", "vllm", "sglang"})
"""Kinds that are known to give base64, which costs a tenth of decimals to read."""


def batches(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """`texts` in their order, in lots that fit one request."""
    lot: list[str] = []
    chars = 0
    for text in texts:
        if lot and (len(lot) >= BATCH_TEXTS_MAX or chars + len(text) > BATCH_CHARS_MAX):
            yield tuple(lot)
            lot, chars = [], 0
        lot.append(text)
        chars += len(text)
    if lot:
        yield tuple(lot)


def joined(found: Sequence[Embedded]) -> Embedded:
    """The lots as one.

    Raises:
        BackendError: `bad_reply`, their vectors differ in length.
    """
    if not found:
        raise BackendError("rejected", "no texts to embed")
    if len({lot.dimensions for lot in found}) > 1:
        raise BackendError("bad_reply", "vectors of different lengths")
    return Embedded(
        tuple(vector for lot in found for vector in lot.vectors),
        found[0].dimensions,
        sum(lot.prompt_tokens for lot in found),
        any(lot.usage_is_estimate for lot in found),
    )


def openai_body(request: EmbeddingRequest, texts: Sequence[str], kind: str) -> JsonObject:
    body: JsonObject = {
        "model": request.model,
        "input": list(texts),
        "encoding_format": "base64" if kind in _IN_BASE64 else "float",
    }
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return body


def openai_embedded(
    value: JsonObject, texts: Sequence[str], estimate_tokens: EstimateTokens
) -> Embedded:
    """What `/v1/embeddings` gave for `texts`; the entries may come in any order."""
    if value.get("error"):
        raise BackendError("bad_reply", excerpt(value["error"]))
    data = value.get("data")
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise BackendError("bad_reply", f"no list of embeddings: {excerpt(data)}")
    places = [entry.get("index", number) for number, entry in enumerate(data)]
    if sorted(places, key=str) != sorted(range(len(texts)), key=str):
        raise BackendError("bad_reply", f"{len(data)} embeddings of {len(texts)} texts")
    by_place = dict(zip(places, data, strict=True))
    vectors = [_vector(by_place[place].get("embedding")) for place in range(len(texts))]
    usage = value.get("usage")
    counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return embedded(vectors, counted, texts, estimate_tokens)


def embedded(
    vectors: Sequence[bytes], counted: object, texts: Sequence[str], estimate: EstimateTokens
) -> Embedded:
    """`vectors` for `texts`, with the tokens that the server counted or an estimate of them.

    Raises:
        BackendError: `bad_reply`, vectors are missing, empty, or differ in length.
    """
    if len(vectors) != len(texts):
        raise BackendError("bad_reply", f"{len(vectors)} embeddings of {len(texts)} texts")
    lengths = {len(vector) // 4 for vector in vectors}
    if len(lengths) != 1 or not 0 < max(lengths) <= DIMENSIONS_MAX:
        raise BackendError("bad_reply", f"vectors of lengths {sorted(lengths)[:4]}")
    is_count = isinstance(counted, int) and not isinstance(counted, bool) and counted >= 0
    tokens = counted if is_count else sum(map(estimate, texts))
    assert isinstance(tokens, int)
    return Embedded(tuple(vectors), lengths.pop(), tokens, not is_count)


def packed(vector: object) -> bytes:
    """A list of numbers as little-endian 32-bit floats.

    Raises:
        BackendError: `bad_reply`, it is none.
    """
    if not isinstance(vector, list) or not vector:
        raise BackendError("bad_reply", f"no vector: {excerpt(vector)}")
    try:
        return struct.pack(f"<{len(vector)}f", *vector)
    except (struct.error, OverflowError, TypeError) as error:
        raise BackendError("bad_reply", f"no vector: {excerpt(vector)}") from error


def _vector(value: object) -> bytes:
    if not isinstance(value, str):
        return packed(value)
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise BackendError("bad_reply", f"no base64: {excerpt(value)}") from error
    if len(data) % 4:
        raise BackendError("bad_reply", f"a vector of {len(data)} bytes")
    return data
