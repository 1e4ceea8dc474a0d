"""What the control socket offers of folding: shorten a text, and get the original back."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from kowalski.mesh.content_store import PROTOCOL as CONTENT_PROTOCOL
from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node import control_messages as asked
from kowalski.node.control import Emit, Verb
from kowalski.node.emitting import emitting
from kowalski.node.fold_book import FoldBook
from kowalski.node.plain_files import read_text
from kowalski.node.services.fold_search import FoldSearch
from kowalski.node.services.folding import SOURCE_BYTES_MAX
from kowalski.node.services.model_folding import Summarised, fold_with_model
from kowalski.node.services.placed_work import Completion, Embeddings, PlacedWork
from kowalski.node.services.token_counts import TokenCounts
from kowalski.protocol.errors import ConfigError, RequestRefusedError
from kowalski.protocol.ids import ContentHash, PeerId
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.base import LINE_CHARS_MAX
from kowalski.protocol.messages.content import ContentAsked, ContentChunk, ContentRef
from kowalski.protocol.messages.folding import FoldAsked
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked, EmbeddingsAsked
from kowalski.rlm.fitting import Fitting
from kowalski.rlm.fitting import first as fitted_first
from kowalski.rlm.folding import fold
from kowalski.rlm.tokens import estimate_tokens

Reply = dict[str, object]

RATIO_DEFAULT: Final = 0.25
BUDGET_TOKENS_MAX: Final = 10_000_000
PASSAGE_TOKENS: Final = 1000
"""Of an original, what is shown to a question if no budget is given."""

HEAD_CHARS: Final = 100_000
"""Of a text, what tells how a model counts it."""

WORDS_S: Final = 2.0
"""Of the time of a search, what vectors may not use up."""

LOOK_S: Final = 2.0
"""How long a peer has to say whether it holds an original."""


class FoldingVerbs:
    def __init__(self, mesh: Mesh, work: PlacedWork, store: ContentStore, folds: FoldBook) -> None:
        self._mesh = mesh
        self._work = work
        self._store = store
        self._folds = folds
        self._search = FoldSearch(mesh, store)
        self._counts = TokenCounts(mesh)

    def offered(self) -> dict[str, Verb]:
        return {
            "fold": self.fold,
            "unfold": self.unfold,
            "folds": self.folds,
            "tokens": self.tokens,
        }

    async def fold(self, raw: Reply, emit: Emit) -> Reply:
        request = asked.parse(asked.FoldRequest, raw)
        _question(request.question)
        text = request.text
        if text is None:
            assert request.path is not None, "the request was checked: either text or path"
            text = await read_text(Path(request.path), bytes_max=SOURCE_BYTES_MAX)
        budget = request.budget_tokens
        if budget is None:
            ratio = request.ratio or RATIO_DEFAULT
            # A long text takes a second, in which a node must not be silent.
            tokens = await trio.to_thread.run_sync(estimate_tokens, text)
            budget = max(1, int(tokens * ratio))
        budget = min(budget, BUDGET_TOKENS_MAX)
        data = text.encode()
        original = await self._kept(data)
        if original is not None:
            name = Path(request.path).name if request.path is not None else text
            self._folds.add(original.hash, len(data), request.name or name)

        async def fold(ours: int) -> Reply:
            if request.model is not None:
                return await self._by_model(request, text, ours, emit)
            return await self._by_peer(request, text, ours, original)

        if request.fits is None:
            told = await fold(budget)
        else:
            told = await self._fitted(request, text, budget, fold)
        return {
            **told,
            "handle": original.hash if original else None,
            "bytes": len(data),
        }

    async def tokens(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.TokensRequest, raw)
        text = request.text
        if text is None:
            assert request.path is not None, "the request was checked: either text or path"
            text = await read_text(Path(request.path), bytes_max=SOURCE_BYTES_MAX)
        found = await self._counts.count(request.model, [text])
        return {
            "tokens": found.counts[0],
            "is_estimate": found.is_estimate,
            "model": found.model,
            "name": found.by,
            "backend": found.backend,
        }

    async def _fitted(
        self,
        request: asked.FoldRequest,
        text: str,
        budget: int,
        fold: Callable[[int], Awaitable[Reply]],
    ) -> Reply:
        """Fold until it fits as the model counts; as it is where no peer can count."""
        assert request.fits is not None
        head = text[:HEAD_CHARS]
        of_head = await self._counts.count(request.fits, [head])
        fitting: Fitting | None = fitted_first(budget, of_head.counts[0], estimate_tokens(head))
        best: tuple[tuple[bool, int], Reply] | None = None
        while fitting is not None:
            told = await fold(fitting.ours)
            counts = await self._counts.count(request.fits, [str(told["text"])])
            tokens = counts.counts[0]
            told |= {"tokens": tokens, "is_estimate": counts.is_estimate, "counted_by": counts.by}
            # The longest that fits; if none does, the shortest.
            worth = (tokens <= budget, tokens if tokens <= budget else -tokens)
            best = (worth, told) if best is None or worth > best[0] else best
            # A model is not asked over and over for some more words.
            is_last = counts.is_estimate or (request.model is not None and tokens <= budget)
            fitting = None if is_last else fitting.counted(tokens)
        assert best is not None
        return best[1]

    async def unfold(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.UnfoldRequest, raw)
        question = _question(request.question)
        with trio.move_on_after(request.timeout_s):
            return await self._unfolded(ContentHash(request.handle), question, request)
        raise RequestRefusedError("timeout", f"no original within {request.timeout_s:g} s")

    async def folds(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.FoldsRequest, raw)
        _question(request.question)
        ends = trio.current_time() + request.timeout_s

        async def embed(model: str, texts: tuple[str, ...]) -> Embeddings:
            # Where no vectors come, there has to be time for words.
            left_s = max(0.1, ends - trio.current_time() - WORDS_S)
            return await self._work.embed(
                EmbeddingsAsked(model=model, texts=texts, remaining_s=left_s)
            )

        known = {one.handle: one for one in self._folds.newest_first()}
        here = {handle for handle in known if self._store.path(handle) is not None}
        self._folds.forget(frozenset(known.keys() - here))
        refs = [
            ContentRef(hash=handle, bytes_total=one.bytes)
            for handle, one in known.items()
            if handle in here
        ]
        found = await self._search.find(
            request.question, refs, count=request.count, model=self._search.model(), embed=embed
        )
        return {
            "folds": [
                {**dataclasses.asdict(known[one.handle]), "score": one.score, "text": one.passage}
                for one in found.folds
            ],
            "searched": len(refs) - found.left_out - len(found.lost),
            "left_out": found.left_out,
            "model": found.model,
            "why_not": found.why_not,
            "usage": found.usage.model_dump(),
        }

    async def _by_peer(
        self, request: asked.FoldRequest, text: str, budget: int, original: ContentRef | None
    ) -> Reply:
        is_long = len(text.encode()) > TEXT_BYTES_MAX
        if is_long and original is None:
            original = await self._store.put(text.encode())
        folded = await self._work.fold(
            FoldAsked(
                text=None if is_long else text,
                content=original if is_long else None,
                budget_tokens=budget,
                question=request.question,
                remaining_s=request.timeout_s,
            )
        )
        return {
            "text": folded.text,
            "source_tokens": folded.done.source_tokens,
            "tokens": folded.done.tokens,
            "ratio": _ratio(folded.done.tokens, folded.done.source_tokens),
            "algorithm": folded.done.algorithm,
            "peer": folded.placed.peer,
            "name": folded.placed.name,
            "why": folded.placed.why,
            "attempts": folded.placed.attempts,
        }

    async def _by_model(
        self, request: asked.FoldRequest, text: str, budget: int, emit: Emit
    ) -> Reply:
        assert request.model is not None
        model, ends = request.model, trio.current_time() + request.timeout_s
        done = 0
        async with emitting(emit) as tell:

            async def ask(messages: tuple[ChatMessage, ...], reply_tokens: int) -> Completion:
                nonlocal done
                reply = await self._work.complete(
                    CompletionAsked(
                        model=model,
                        messages=messages,
                        max_tokens=reply_tokens,
                        temperature=0.0,
                        remaining_s=max(0.1, ends - trio.current_time()),
                    )
                )
                done += 1
                tell({"kind": "progress", "parts_done": done, "name": reply.placed.name})
                return reply

            summarised = await fold_with_model(
                text, budget_tokens=budget, question=request.question, ask=ask
            )
        self._work.count_model_fold(summarised.folded)
        return {**_of_model(summarised), "model": model, **self._who(summarised.peers)}

    def _who(self, peers: tuple[PeerId, ...]) -> Reply:
        peers = peers or (self._mesh.me,)
        names = [self._mesh.facts_of(peer).name for peer in peers]
        return {"peer": peers[0], "name": ", ".join(names), "attempts": 1}

    async def _kept(self, data: bytes) -> ContentRef | None:
        """The original, for `unfold`; None where there is no room, which spoils no fold."""
        try:
            return await self._store.put(data)
        except RequestRefusedError:
            return None

    async def _unfolded(
        self, handle: ContentHash, question: str | None, request: asked.UnfoldRequest
    ) -> Reply:
        path = self._store.path(handle)
        if path is None:
            path = await self._store.fetch(await self._find(handle), self._mesh)
        size = (await trio.Path(path).stat()).st_size
        self._work.count_unfold()
        told: Reply = {"handle": handle, "bytes": size}
        if question is None and size > TEXT_BYTES_MAX:
            return {**told, "files": [{"name": handle, "bytes": size, "path": str(path)}]}
        if size > SOURCE_BYTES_MAX:
            raise ConfigError(f"an original of {size} bytes; of {SOURCE_BYTES_MAX} at most, parts")
        data = await trio.Path(path).read_bytes()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return {**told, "files": [{"name": handle, "bytes": size, "path": str(path)}]}
        if question is None:
            return {**told, "text": text}
        budget = request.budget_tokens or PASSAGE_TOKENS
        passages = await trio.to_thread.run_sync(
            lambda: fold(text, budget_tokens=budget, question=question)
        )
        return {**told, "text": passages.text, "tokens": passages.tokens}

    async def _find(self, handle: ContentHash) -> ContentRef:
        """Who holds it: all peers are asked at once.

        Raises:
            RequestRefusedError: `unknown`, nobody who is reachable does.
        """
        holders: list[PeerId] = []
        size = 0

        async def look(peer: PeerId) -> None:
            nonlocal size
            try:
                chunk = await self._mesh.request(
                    peer,
                    CONTENT_PROTOCOL,
                    ContentAsked(hash=handle, offset=0, bytes_max=1),
                    ContentChunk,
                    timeout_s=LOOK_S,
                )
            except Weather:
                return
            holders.append(peer)
            size = max(size, chunk.bytes_total)

        async with open_plain_nursery() as nursery:
            for one in self._mesh.facts():
                if one.is_routable and not one.is_self:
                    nursery.start_soon(look, one.peer)
        if not holders:
            raise RequestRefusedError("unknown", f"no peer holds an original {handle[:16]}...")
        return ContentRef(hash=handle, bytes_total=size, holders=tuple(holders[:8]))


def _question(question: str | None) -> str | None:
    if question and len(question) > LINE_CHARS_MAX:
        raise ConfigError(f"a question of over {LINE_CHARS_MAX} characters")
    return question or None


def _ratio(tokens: int, source_tokens: int) -> float:
    return tokens / source_tokens if source_tokens else 1.0


def _of_model(summarised: Summarised) -> Reply:
    folded = summarised.folded
    return {
        **dataclasses.asdict(folded),
        "ratio": _ratio(folded.tokens, folded.source_tokens),
        "calls": summarised.calls,
        "usage": summarised.usage.model_dump(),
        "failure": summarised.failure,
    }
