"""Vectors: in batches, in order, and of one length."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.backends import embeddings
from kowalski.node.backends.seam import Backend, BackendError, Embedded, EmbeddingRequest
from tests.faulty_network import Recording, giving_by, open_faulty
from tests.node.backends.asking import estimate
from tests.node.backends.test_recordings import backend_of

TEXTS = ("a whale", "a sea")
VECTORS = (struct.pack("<2f", 0.25, -0.5), struct.pack("<2f", 1, 0))
ASKED = EmbeddingRequest("m", TEXTS)


async def embed(backend: Backend, request: EmbeddingRequest = ASKED) -> Embedded:
    return await backend.embed(request, idle_timeout_s=5)


@pytest.mark.trio
@pytest.mark.parametrize(
    ("kind", "path", "recording"),
    [
        ("openai", "/v1/embeddings", "openai-embeddings"),
        ("llama-server", "/v1/embeddings", "openai-embeddings-base64"),
        ("ollama", "/api/embed", "ollama-embed"),
    ],
)
async def test_each_server_gives_them_in_the_order_of_the_texts(
    kind: str, path: str, recording: str
) -> None:
    give = giving_by({f"POST {path}": recording})
    async with open_faulty(give) as (network, http):
        found = await embed(backend_of(kind, http), EmbeddingRequest("m", TEXTS, dimensions=2))
    assert found == Embedded(VECTORS, 2, 8, usage_is_estimate=False)
    (asked,) = network.asked
    assert (asked.body["model"], asked.body["input"]) == ("m", list(TEXTS))
    assert asked.body["dimensions"] == 2


@pytest.mark.trio
async def test_who_has_none_says_so() -> None:
    async with open_faulty(lambda _: Recording.read("llama-server-no-embeddings")) as (_, http):
        for kind in ("exo", "llama-server"):
            with pytest.raises(BackendError) as caught:
                await embed(backend_of(kind, http))
            assert caught.value.code == "unsupported"


@given(st.lists(st.text(max_size=30), max_size=200))
def test_batches_hold_all_texts_in_order(texts: list[str]) -> None:
    lots = list(embeddings.batches(texts))
    assert [text for lot in lots for text in lot] == texts
    assert all(1 <= len(lot) <= embeddings.BATCH_TEXTS_MAX for lot in lots)


def test_long_texts_go_in_requests_of_their_own() -> None:
    long = "x" * embeddings.BATCH_CHARS_MAX
    assert [len(lot) for lot in embeddings.batches([long, long, "a", "b"])] == [1, 1, 2]


def test_lots_are_joined_and_their_tokens_added() -> None:
    one, other = Embedded(VECTORS, 2, 8, False), Embedded(VECTORS[:1], 2, 1, True)
    assert embeddings.joined([one, other]) == Embedded((*VECTORS, VECTORS[0]), 2, 9, True)
    with pytest.raises(BackendError, match="different lengths"):
        embeddings.joined([one, Embedded((b"1234",), 1, 1, False)])
    with pytest.raises(BackendError, match="no texts"):
        embeddings.joined([])


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"data": 3},
        {"data": [3]},
        {"data": [{"embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 5, "embedding": [1.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]},
        {"data": [{"embedding": []}, {"embedding": []}]},
        {"data": [{"embedding": ["x"]}, {"embedding": ["y"]}]},
        {"data": [{"embedding": "!"}, {"embedding": "!"}]},
        {"data": [{"embedding": "AAAA"}, {"embedding": "AAAA"}]},
        {"data": [{"embedding": None}, {"embedding": None}]},
        {"error": {"message": "no"}},
    ],
)
def test_what_is_no_list_of_vectors_is_a_bad_reply(value: dict[str, object]) -> None:
    with pytest.raises(BackendError) as caught:
        embeddings.openai_embedded(value, TEXTS, estimate)
    assert caught.value.code == "bad_reply"


def test_tokens_that_were_not_counted_are_estimated() -> None:
    value: dict[str, object] = {"data": [{"embedding": [1.0]}, {"embedding": [2.0]}], "usage": 3}
    found = embeddings.openai_embedded(value, TEXTS, estimate)
    assert (found.prompt_tokens, found.usage_is_estimate) == (2004, True)
