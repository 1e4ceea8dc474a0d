"""What is searched for a question, what is embedded, and what is left out. The model is letters."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from kowalski.node.services import fold_search
from kowalski.node.services.fold_search import FoldSearch, Found, VectorsKept
from kowalski.node.services.placed_work import Embeddings
from kowalski.node.services.placing import Placed
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId, content_hash
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import EmbeddingsDone, Usage
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world

pytestmark = pytest.mark.trio

WIND = "The wind blows over the hill and nobody says a word about it. "
KEY = "The key is in the blue box. "


@dataclass
class Desk:
    world: World
    search: FoldSearch
    asked: list[tuple[str, ...]] = field(default_factory=list)
    numbers: int = 26
    refusal: Exception | None = None
    chars_max: int = 10_000

    async def embed(self, model: str, texts: tuple[str, ...]) -> Embeddings:
        self.asked.append(texts)
        if self.refusal is not None:
            raise self.refusal
        if max(map(len, texts)) > self.chars_max:
            raise RequestRefusedError("too_long", "input is too large to process")
        letters = "abcdefghijklmnopqrstuvwxyz"[: self.numbers]
        vectors = [[float(text.lower().count(one)) for one in letters] for text in texts]
        usage = Usage(prompt_tokens=len(texts), completion_tokens=0)
        done = EmbeddingsDone(model=model, dimensions=len(letters), usage=usage, held_s=0.0)
        packed = tuple(struct.pack(f"<{len(letters)}f", *one) for one in vectors)
        return Embeddings(packed, done, Placed(PeerId("p"), "gpu", "idle", 1))

    async def keep(self, *texts: str) -> list[ContentRef]:
        return [await self.world[0].store.put(text.encode()) for text in texts]

    async def find(
        self, refs: list[ContentRef], question: str = "where is the key?", model: str | None = "e"
    ) -> Found:
        return await self.search.find(question, refs, count=8, model=model, embed=self.embed)


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    async with open_world([Part()]) as world:
        yield Desk(world, FoldSearch(world[0].mesh, world[0].store))


async def test_no_model_no_vectors_and_the_same_answer_each_time(
    virtual_time: JumpingClock,
) -> None:
    async with open_desk() as desk:
        refs = await desk.keep(WIND * 9, WIND * 9 + KEY)
        found = await desk.find(refs, model=None)
        assert found.folds[0].handle == refs[1].hash
        assert (found.model, found.calls, desk.asked) == (None, 0, [])
        assert await desk.find(refs, model=None) == found
        assert desk.search.model() is None


async def test_a_text_is_embedded_once_and_what_it_cost_is_told(
    virtual_time: JumpingClock,
) -> None:
    async with open_desk() as desk:
        refs = await desk.keep(WIND * 30, KEY)
        found = await desk.find(refs)
        assert (found.model, found.calls, found.peer) == ("e", 1, "p")
        assert found.usage.prompt_tokens == len(desk.asked[0]) > 3
        again = await desk.find(refs)
        assert again.folds == found.folds
        assert desk.asked[1] == ("where is the key?",)
        # Another model knows nothing of these vectors.
        assert len((await desk.find(refs, model="f")).folds) == len(found.folds)
        assert len(desk.asked[2]) == len(desk.asked[0])


async def test_of_a_long_text_pieces_from_all_over_it_are_embedded_and_words_are_found_in_all(
    virtual_time: JumpingClock,
) -> None:
    async with open_desk() as desk:
        (ref,) = await desk.keep(WIND * 2000 + KEY + WIND * 2000)
        (found,) = (await desk.find([ref])).folds
        assert "in the blue box" in found.passage
        texts = [text for lot in desk.asked for text in lot]
        assert len(texts) == 1 + fold_search.PIECES_OF_TEXT_MAX


async def test_what_is_gone_or_beyond_the_bound_is_told_and_the_rest_is_found(
    virtual_time: JumpingClock,
) -> None:
    async with open_desk() as desk:
        (here,) = await desk.keep(KEY)
        gone = ContentRef(hash=content_hash(b"gone"), bytes_total=4)
        huge = ContentRef(
            hash=content_hash(b"huge"), bytes_total=fold_search.SEARCHED_BYTES_MAX + 1
        )
        found = await desk.find([gone, huge, here])
        assert [one.handle for one in found.folds] == [here.hash]
        assert (found.lost, found.left_out) == ((gone.hash,), 1)


@pytest.mark.parametrize("is_refused", [True, False])
async def test_where_vectors_fail_or_do_not_fit_words_decide_and_why_is_told(
    virtual_time: JumpingClock, is_refused: bool
) -> None:
    async with open_desk() as desk:
        refs = await desk.keep(WIND * 9, KEY)
        await desk.find(refs)
        if is_refused:
            desk.refusal = RequestRefusedError("no_peer", "nobody has e")
        else:
            desk.numbers = 3
        found = await desk.find(refs)
        assert found.folds[0].handle == refs[1].hash
        assert found.model is None
        assert ("nobody has e" if is_refused else "vectors of 3 and 26") in found.why_not


@pytest.mark.parametrize(("chars_max", "is_enough"), [(400, True), (200, True), (100, False)])
async def test_for_a_model_that_reads_little_the_beginnings_of_pieces_are_embedded(
    virtual_time: JumpingClock, chars_max: int, is_enough: bool
) -> None:
    async with open_desk() as desk:
        desk.chars_max = chars_max
        found = await desk.find(await desk.keep(WIND * 30, KEY))
        assert found.folds[0].passage.strip() == KEY.strip()
        assert (found.model is not None) == is_enough
        assert ("too_long" in found.why_not) != is_enough


async def test_vectors_are_kept_within_a_bound_those_used_last() -> None:
    kept = VectorsKept()
    share = fold_search.VECTORS_KEPT_BYTES_MAX // 4
    handles = [content_hash(b"%d" % number) for number in range(6)]
    for number, handle in enumerate(handles):
        kept.keep("m", handle, (bytes(share),))
        assert kept.find("m", handles[0]) is not None, number
    there = [kept.find("m", handle) is not None for handle in handles]
    assert there == [True, False, False, True, True, True]


async def test_vectors_of_a_model_that_fit_nothing_are_forgotten() -> None:
    kept = VectorsKept()
    first, second = (content_hash(text) for text in (b"a", b"b"))
    kept.keep("m", first, (bytes(8),))
    kept.keep("other", second, (bytes(8),))
    kept.forget("m")
    assert kept.find("m", first) is None
    assert kept.find("other", second) == (bytes(8),)
