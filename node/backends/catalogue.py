"""Which models this device can run now, how fast each is, and how many slots are taken.

Looks again every so often, and at once when a server fails. Which server is asked is decided by
`core.model_catalogue`; here it is asked, watched and measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import trio

from kowalski.node.backends.answers import AnswerStream
from kowalski.node.backends.probing import Candidate, Finding
from kowalski.node.backends.seam import (
    Backend,
    BackendError,
    Completed,
    CompletionEvent,
    CompletionRequest,
    Counter,
    Embedded,
    EmbeddingRequest,
    ModelInfo,
)
from kowalski.node.core.look_pace import LookPace
from kowalski.node.core.model_catalogue import Listing, averaged, choose, having, preference
from kowalski.rlm.tokens import estimate_tokens
from kowalski.rlm.window_size import UNLEARNT, TokenScale

Look: TypeAlias = Callable[[Sequence[Candidate]], Awaitable[tuple[Finding, ...]]]

# Fewer tokens say more about the clock than about the model.
RATED_TOKENS_MIN = 4
RATED_PROMPT_TOKENS_MIN = 16
# Counts of prompts that are learnt from: the first few, then one of so many.
LEARNT_FROM_FIRST, LEARNT_FROM_EACH = 4, 16
# Less is a look at what is loaded already.
LOADED_S = 0.2
# A server that fails makes us look again, but not in a busy loop.
LOOK_GAP_S = 1.0
# A port that takes connections and says nothing would hold up the start of the node.
FIRST_LOOK_S = 0.5
# What the owner named is expected to answer, and whoever asks for a model next to have it.
NAMED_LOOK_S = 5.0


@dataclass(slots=True)
class _Record:
    """What is known of one model on one server, and outlives the next look."""

    in_flight: int = 0
    tokens_per_s: float | None = None
    prompt_tokens_per_s: float | None = None
    load_s: float | None = None
    scale: TokenScale = UNLEARNT
    heard: int = 0
    """Counts of prompts, of which not each is worth estimating the prompt once more."""

    def rate(self, tokens: int, elapsed_s: float) -> None:
        if tokens > 0 and elapsed_s > 0:
            self.tokens_per_s = averaged(self.tokens_per_s, tokens / elapsed_s)

    def rate_prompt(self, tokens: int, elapsed_s: float) -> None:
        if tokens >= RATED_PROMPT_TOKENS_MIN and elapsed_s > 0:
            self.prompt_tokens_per_s = averaged(self.prompt_tokens_per_s, tokens / elapsed_s)

    def hear(self, request: CompletionRequest, end: Completed) -> None:
        """Learn how long texts are for this model. A picture's tokens are not of the text."""
        if end.usage_is_estimate or request.images:
            return
        if self.heard < LEARNT_FROM_FIRST or self.heard % LEARNT_FROM_EACH == 0:
            self.scale = self.scale.heard(estimate_tokens(request.said), end.prompt_tokens)
        self.heard += 1


class Catalogue:
    """Use `open_catalogue`."""

    def __init__(self, places: Sequence[Candidate], look: Look) -> None:
        self._places = {place.url: place for place in places}
        self._look = look
        self._findings: dict[str, Finding] = {}
        self._models: dict[str, tuple[ModelInfo, ...]] = {}
        self._records: dict[tuple[str, str], _Record] = {}
        self._listed: tuple[Listing, ...] | None = None
        """What `listings` found; None once a model, its server, speed or load has changed."""
        self._named_left = {place.url for place in places if place.is_explicit}
        self.named_looked = trio.Event()
        """Every place that the owner named has answered, or cannot be reached."""
        if not self._named_left:
            self.named_looked.set()
        self._pace = LookPace()
        self._looking = trio.Lock()
        self._look_wanted = trio.Event()
        self._changed = trio.Event()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found at each address, for `doctor`."""
        return tuple(self._findings.values())

    def listings(self) -> tuple[Listing, ...]:
        """What can be run now, the preferred first. Asked several times for each request."""
        if self._listed is None:
            self._listed = self._list()
        return self._listed

    def _list(self) -> tuple[Listing, ...]:
        found = [
            self._listing(url, backend, model)
            for url, models in self._models.items()
            for model in models
            if (backend := self._findings[url].backend) is not None
        ]
        return tuple(sorted(found, key=preference))

    async def wait_changed(self) -> None:
        """Wait until other models can be run than now."""
        await self._changed.wait()

    async def refresh(self) -> None:
        """Look now: known servers are asked for their models, the other places what is there.

        Not each time where somebody else is (`core.look_pace`).
        Each is listed as soon as it has answered; one that never does holds up none of the others.
        """
        async with self._looking:
            known = [self._findings[url] for url in self._models]
            now = trio.current_time()
            unknown = [
                place
                for url, place in self._places.items()
                if url not in self._models and self._pace.is_due(url, now)
            ]
            async with trio.open_nursery() as nursery:
                for finding in known:
                    nursery.start_soon(self._list_one, finding)
                for place in unknown:
                    nursery.start_soon(self._look_at, place)
            present = {(each.backend_url, each.model.name) for each in self.listings()}
            self._records = {
                key: record
                for key, record in self._records.items()
                if key in present or record.in_flight
            }

    def answer(self, request: CompletionRequest, *, idle_timeout_s: float) -> Answering:
        """Answer on the best server with a free slot; an empty model name leaves the choice.

        As `Backend.complete`, and it never waits for a slot.

        Raises:
            BackendError: as `core.model_catalogue.choose`; on entering, as `Backend.complete`.
        """

        def left_out(one: Listing) -> tuple[str, ...]:
            return self._backend(one.backend_url).left_out(request, one.model)

        listing = choose(request.model, self.listings(), left_out=left_out)
        if request.model != listing.model.name:
            request = dataclasses.replace(request, model=listing.model.name)
        backend = self._backend(listing.backend_url)
        completing = backend.complete(request, idle_timeout_s=idle_timeout_s)
        return Answering(self, listing, request, completing)

    async def embed(
        self, request: EmbeddingRequest, *, idle_timeout_s: float
    ) -> tuple[Listing, Embedded]:
        """The vectors of the texts, by the best server that has the model, and which that was.

        Raises:
            BackendError: as `Backend.embed` and `core.model_catalogue.choose`.
        """
        listing = choose(request.model, self.listings(), capability="embed")
        backend = self._backend(listing.backend_url)
        request = dataclasses.replace(request, model=listing.model.name)
        record = self.begun(listing)
        try:
            return listing, await backend.embed(request, idle_timeout_s=idle_timeout_s)
        except BackendError as error:
            self.notice_failure(listing, error)
            raise
        finally:
            self.ended(record)

    async def count_tokens(
        self, model: str, texts: Sequence[str]
    ) -> tuple[Listing, tuple[int, ...] | None]:
        """Of each text, by a server that has the model and counts; None: none of them does.

        Takes no slot: the model itself is not asked.

        Raises:
            BackendError: `model_missing`, no server here has such a model.
        """
        found = having(model, self.listings())
        for listing in found:
            backend = self._backend(listing.backend_url)
            if isinstance(backend, Counter):
                with contextlib.suppress(BackendError):
                    counts = await backend.count_tokens(listing.model.name, texts)
                    if counts is not None:
                        return listing, counts
        return found[0], None

    def estimate_tokens(self, listing: Listing, texts: Sequence[str]) -> tuple[int, ...]:
        """Of each text, by what was learnt of this model on its server."""
        record = self._records.get((listing.backend_url, listing.model.name))
        scale = UNLEARNT if record is None else record.scale
        return tuple(round(estimate_tokens(text) * scale.factor) for text in texts)

    def backends(self) -> tuple[Backend, ...]:
        """The servers that are there now."""
        return tuple(self._backend(url) for url in self._models)

    def report(self, finding: Finding) -> None:
        """Tell of something that is no server yet, or none any more; for `doctor`."""
        assert finding.backend is None
        self._findings[finding.url] = finding
        self._listed = None

    @contextlib.asynccontextmanager
    async def with_place(self, place: Candidate, *, instead_of: str) -> AsyncIterator[None]:
        """Look at one more place while the block lasts. `instead_of` is what was reported."""
        self._places[place.url] = place
        self._findings.pop(instead_of, None)
        try:
            await self.refresh()
            yield
        finally:
            del self._places[place.url]
            self._findings.pop(place.url, None)
            self._set_models(place.url, None)

    async def keep_looking(self, interval_s: float, looked: trio.Event) -> None:
        """Refresh now, every `interval_s`, and soon after a server failed. Never returns.

        `looked` is set after the first time.
        """
        while True:
            await self.refresh()
            looked.set()
            with trio.move_on_after(interval_s):
                await self._look_wanted.wait()
                await trio.sleep(LOOK_GAP_S)
            self._look_wanted = trio.Event()

    def _backend(self, url: str) -> Backend:
        backend = self._findings[url].backend
        assert backend is not None
        return backend

    def begun(self, listing: Listing) -> _Record:
        """One more is being answered; to be `ended`."""
        record = self._record(listing.backend_url, listing.model.name)
        record.in_flight += 1
        self._listed = None
        return record

    def ended(self, record: _Record) -> None:
        record.in_flight -= 1
        self._listed = None

    def notice_rate(self) -> None:
        """A speed was measured."""
        self._listed = None

    def notice_warm(self, listing: Listing) -> None:
        """What has answered is loaded: say so before the next look."""
        url, name = listing.backend_url, listing.model.name
        models = self._models.get(url, ())
        if any(model.name == name and not model.is_warm for model in models):
            self._set_models(
                url,
                tuple(
                    dataclasses.replace(model, is_warm=True) if model.name == name else model
                    for model in models
                ),
            )

    def notice_failure(self, listing: Listing, error: BackendError) -> None:
        """Take off the list at once what a server turned out not to have."""
        url = listing.backend_url
        if error.code == "unreachable":
            self._set_models(url, None)
            self._look_wanted.set()
        elif error.code == "model_missing" and url in self._models:
            name = listing.model.name
            self._set_models(url, tuple(m for m in self._models[url] if m.name != name))
            self._look_wanted.set()

    async def _look_at(self, place: Candidate) -> None:
        looked_at = trio.current_time()
        (finding,) = await self._look([place])
        self._pace = self._pace.after(
            place.url,
            looked_at,
            # What the owner named is awaited: it may be starting.
            is_stranger=finding.is_stranger and not place.is_explicit,
        )
        if place.url in self._places:  # It may have gone meanwhile.
            self._findings[place.url] = finding
            await self._list_one(finding)
        self._named_left.discard(place.url)
        if not self._named_left:
            self.named_looked.set()

    async def _list_one(self, finding: Finding) -> None:
        if finding.backend is None:
            return
        try:
            self._set_models(finding.url, await finding.backend.list_models())
        except BackendError as error:
            if self._is_answering(finding.url) or finding.url not in self._places:
                return  # Too busy to list; if it is dead, its answer will tell.
            why_not = f"{finding.kind} does not list its models: {error}"
            self._findings[finding.url] = dataclasses.replace(
                finding, backend=None, why_not=why_not
            )
            self._set_models(finding.url, None)

    def _is_answering(self, url: str) -> bool:
        return url in self._models and any(
            record.in_flight for (at, _), record in self._records.items() if at == url
        )

    def _set_models(self, url: str, models: tuple[ModelInfo, ...] | None) -> None:
        if models == self._models.get(url) or (models is not None and url not in self._places):
            return
        if models is None:
            self._models.pop(url, None)
        else:
            self._models[url] = models
        self._listed = None
        self._changed.set()
        self._changed = trio.Event()

    def _listing(self, url: str, backend: Backend, model: ModelInfo) -> Listing:
        record = self._records.get((url, model.name), _Record())
        return Listing(
            model,
            backend.name,
            url,
            record.in_flight,
            record.tokens_per_s,
            record.prompt_tokens_per_s,
            record.load_s,
        )

    def _record(self, url: str, model: str) -> _Record:
        return self._records.setdefault((url, model), _Record())


class Answering:
    """The answer of one server, for the length of a block. Made by `Catalogue`.

    The block is given the answer's events, see `Backend.complete`. Here they are counted and timed,
    and a failure is noticed.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        listing: Listing,
        request: CompletionRequest,
        completing: contextlib.AbstractAsyncContextManager[AsyncIterator[CompletionEvent]],
    ) -> None:
        self.listing = listing
        self._catalogue = catalogue
        self._request = request
        self._completing = completing
        self._record: _Record
        self._events: AsyncIterator[CompletionEvent]
        self._started_at = math.inf
        self._first_at: float | None = None
        self._deltas = 0

    async def __aenter__(self) -> Self:
        self._record = self._catalogue.begun(self.listing)
        try:
            self._events = await self._completing.__aenter__()
        except BaseException as error:
            self._catalogue.ended(self._record)
            if isinstance(error, BackendError):
                self._catalogue.notice_failure(self.listing, error)
            raise
        self._started_at = trio.current_time()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._completing.__aexit__(kind, error, trace)
        finally:
            self._catalogue.ended(self._record)

    @property
    def has_more_at_hand(self) -> bool:
        """The next event is here already."""
        return isinstance(self._events, AnswerStream) and self._events.has_more_at_hand

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CompletionEvent:
        try:
            event = await anext(self._events)
        except BackendError as error:
            self._catalogue.notice_failure(self.listing, error)
            raise
        if isinstance(event, Completed):
            self._rate(event)
            self._record.hear(self._request, event)
            self._catalogue.notice_rate()
        else:
            self._deltas += 1
            if self._first_at is None:
                self._first_at = trio.current_time()
                self._catalogue.notice_warm(self.listing)
        return event

    def _rate(self, end: Completed) -> None:
        """By the server's own clock where it tells; ours has the network and the queue in it."""
        tokens, read = end.completion_tokens, end.prompt_tokens - end.cached_tokens
        if end.load_s is not None and end.load_s >= LOADED_S:
            self._record.load_s = end.load_s
        if end.prompt_s is not None:
            self._record.rate_prompt(read, end.prompt_s)
        if tokens < RATED_TOKENS_MIN or self._first_at is None:
            return
        if end.generation_s is not None:
            self._record.rate(tokens, end.generation_s)
            return
        # The first token waited for the prompt, unless everything came at once.
        since, timed = (self._first_at, tokens - 1)
        if self._deltas == 1:
            since, timed = (self._started_at, tokens)
        elif end.prompt_s is None:
            self._record.rate_prompt(read, self._first_at - self._started_at)
        self._record.rate(timed, trio.current_time() - since)


@contextlib.asynccontextmanager
async def open_catalogue(
    places: Sequence[Candidate], look: Look, *, interval_s: float = 30.0
) -> AsyncIterator[Catalogue]:
    """Look at all places, and keep looking until the block ends.

    The block begins when all have answered, or after `FIRST_LOOK_S`, or `NAMED_LOOK_S` for what the
    owner named: who is slower comes later.
    """
    catalogue = Catalogue(places, look)
    async with trio.open_nursery() as nursery:
        looked = trio.Event()
        nursery.start_soon(catalogue.keep_looking, interval_s, looked)
        with trio.move_on_after(FIRST_LOOK_S):
            await looked.wait()
        with trio.move_on_after(NAMED_LOOK_S - FIRST_LOOK_S):
            await catalogue.named_looked.wait()
        yield catalogue
        nursery.cancel_scope.cancel()
