"""Finding folds by a question: by words always, and by vectors where a peer has a model for them.

The ranking is `kowalski.rlm.retrieval`'s. Vectors of what was searched once are kept in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.placement import Devices
from kowalski.mesh.mesh import Mesh
from kowalski.node.services.placed_work import Embeddings
from kowalski.protocol.errors import PeerUnreachableError, RequestRefusedError
from kowalski.protocol.ids import ContentHash, PeerId
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import Usage
from kowalski.rlm import retrieval

FOUND_MAX: Final = 8
SEARCHED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of all originals together; older ones are not looked at."""

PIECES_OF_TEXT_MAX: Final = 64
"""That are embedded; of a longer text, pieces from all over it. Words are looked for in all."""

PIECES_EMBEDDED_MAX: Final = 1024
SHORTER_MAX: Final = 2
"""How often pieces are cut to their first halves, for a model that reads less than they are."""

TOO_LONG: Final = "too_long"
PIECES_OF_REQUEST_MAX: Final = 256
VECTORS_KEPT_BYTES_MAX: Final = 32 * 1024 * 1024

NO_USAGE: Final = Usage(prompt_tokens=0, completion_tokens=0)

Embed = Callable[[str, tuple[str, ...]], Awaitable[Embeddings]]
"""Vectors of texts by the model of that name. Raises `Weather`."""


@dataclass(frozen=True, slots=True)
class FoundFold:
    handle: ContentHash
    score: float
    passage: str


@dataclass(frozen=True, slots=True)
class Found:
    """`model` made vectors, None where words alone decided; `why_not` says why, if one could have.

    `lost` are originals that could not be had, `left_out` are those beyond what is searched.
    """

    folds: tuple[FoundFold, ...]
    model: str | None = None
    why_not: str = ""
    lost: tuple[ContentHash, ...] = ()
    left_out: int = 0
    calls: int = 0
    usage: Usage = NO_USAGE
    peer: PeerId | None = None


@dataclass(slots=True)
class _Text:
    """An original in pieces; those with the numbers `embedded` get vectors."""

    ref: ContentRef
    pieces: tuple[str, ...]
    embedded: tuple[int, ...]


@dataclass(slots=True)
class _Cost:
    calls: int = 0
    tokens: int = 0
    is_estimate: bool = False
    peer: PeerId | None = None

    def add(self, embeddings: Embeddings) -> None:
        usage = embeddings.done.usage
        self.calls += 1
        self.tokens += usage.prompt_tokens
        self.is_estimate |= usage.is_estimate
        self.peer = self.peer or embeddings.placed.peer

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=self.tokens, completion_tokens=0, is_estimate=self.is_estimate)


@dataclass(slots=True)
class VectorsKept:
    """Of the texts that were searched last, by model and original."""

    _kept: OrderedDict[tuple[str, ContentHash], tuple[bytes, ...]] = field(
        default_factory=OrderedDict
    )
    _bytes: int = 0

    def find(self, model: str, original: ContentHash) -> tuple[bytes, ...] | None:
        found = self._kept.get((model, original))
        if found is not None:
            self._kept.move_to_end((model, original))
        return found

    def keep(self, model: str, original: ContentHash, vectors: tuple[bytes, ...]) -> None:
        if (model, original) in self._kept:
            return
        self._kept[model, original] = vectors
        self._bytes += sum(map(len, vectors))
        while self._bytes > VECTORS_KEPT_BYTES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= sum(map(len, oldest))

    def forget(self, model: str) -> None:
        """All that it made."""
        for key in [key for key in self._kept if key[0] == model]:
            self._bytes -= sum(map(len, self._kept.pop(key)))


class FoldSearch:
    def __init__(self, mesh: Mesh, store: ContentStore) -> None:
        self._mesh = mesh
        self._store = store
        self._kept = VectorsKept()

    def model(self, devices: Devices = "all") -> str | None:
        """With which model of the mesh folds are embedded; None where no peer has one."""
        return retrieval.embedding_model(
            model
            for one in self._mesh.facts()
            if one.is_routable and "infer" in one.roles and one.profile is not None
            if devices == "all" or one.is_self == (devices == "local")
            for model in one.profile.models
        )

    async def find(
        self,
        question: str,
        originals: Sequence[ContentRef],
        *,
        count: int,
        model: str | None,
        embed: Embed,
    ) -> Found:
        """The `count` nearest of `originals`, of which the newest come first."""
        texts, lost, left_out = await self._read(originals)
        pieces = [piece for text in texts for piece in text.pieces]
        scores = await trio.to_thread.run_sync(retrieval.by_words, question, pieces)
        made_vectors: str | None = None
        why_not, cost = "", _Cost()
        if model is not None and pieces:
            try:
                asked = await self._embed(question, texts, model, embed, cost)
                near = await trio.to_thread.run_sync(self._by_vectors, asked, texts, model)
            except (*Weather, ValueError) as error:
                why_not = line(f"{model}: {error}")
                if isinstance(error, ValueError):
                    # Two peers call two models the same: what was kept fits nothing.
                    self._kept.forget(model)
            else:
                scores, made_vectors = retrieval.joined(scores, near), model
        nearest = retrieval.nearest([text.pieces for text in texts], scores, count=count)
        return Found(
            tuple(FoundFold(texts[one.number].ref.hash, one.score, one.passage) for one in nearest),
            model=made_vectors,
            why_not=why_not,
            lost=tuple(lost),
            left_out=left_out,
            calls=cost.calls,
            usage=cost.usage,
            peer=cost.peer,
        )

    async def _read(
        self, originals: Sequence[ContentRef]
    ) -> tuple[list[_Text], list[ContentHash], int]:
        texts: list[_Text] = []
        lost: list[ContentHash] = []
        room, left_out, to_embed = SEARCHED_BYTES_MAX, 0, PIECES_EMBEDDED_MAX
        for ref in originals:
            if ref.bytes_total > room:
                left_out += 1
                continue
            try:
                await self._store.fetch(ref, self._mesh)
                data = await self._store.read(ref)
            except (PeerUnreachableError, RequestRefusedError, OSError):
                lost.append(ref.hash)
                continue
            room -= len(data)
            text = data.decode(errors="replace")
            pieces = await trio.to_thread.run_sync(retrieval.pieces_of, text)
            embedded = _spread(len(pieces), PIECES_OF_TEXT_MAX)
            if len(embedded) > to_embed:
                embedded = ()
            to_embed -= len(embedded)
            texts.append(_Text(ref, pieces, embedded))
        return texts, lost, left_out

    async def _embed(
        self, question: str, texts: Sequence[_Text], model: str, embed: Embed, cost: _Cost
    ) -> bytes:
        """The vector of the question; those of the texts are kept."""
        before_question, before_text = retrieval.prefixes(model)
        missing = [
            one for one in texts if one.embedded and self._kept.find(model, one.ref.hash) is None
        ]

        async def ask(chars: int) -> list[bytes]:
            wanted = [before_question + question]
            wanted += [before_text + one.pieces[n][:chars] for one in missing for n in one.embedded]
            vectors: list[bytes] = []
            for start in range(0, len(wanted), PIECES_OF_REQUEST_MAX):
                lot = tuple(wanted[start : start + PIECES_OF_REQUEST_MAX])
                embeddings = await embed(model, lot)
                cost.add(embeddings)
                vectors += embeddings.vectors
            return vectors

        chars = retrieval.PIECE_CHARS
        for _ in range(SHORTER_MAX):
            try:
                told: Iterator[bytes] = iter(await ask(chars))
                break
            except RequestRefusedError as no:
                if no.reason != TOO_LONG:
                    raise
            chars //= 2
        else:
            told = iter(await ask(chars))
        asked = next(told)
        for one in missing:
            self._kept.keep(model, one.ref.hash, tuple(next(told) for _ in one.embedded))
        return asked

    def _by_vectors(self, asked: bytes, texts: Sequence[_Text], model: str) -> list[float | None]:
        vectors: list[bytes | None] = []
        for one in texts:
            known = self._kept.find(model, one.ref.hash) or ()
            by_number = dict(zip(one.embedded, known, strict=False))
            vectors += [by_number.get(number) for number in range(len(one.pieces))]
        return retrieval.by_vectors(asked, vectors)


def _spread(count: int, at_most: int) -> tuple[int, ...]:
    """Of `count` numbers at most so many, from all over them."""
    if count <= at_most:
        return tuple(range(count))
    return tuple(number * count // at_most for number in range(at_most))
