"""The room that answers other peers' model calls with what this device runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

import trio

from kowalski.mesh.content_store import ContentStore, Requester
from kowalski.mesh.conversation import Conversation
from kowalski.mesh.own_conversation import no_longer_than
from kowalski.node.backends.catalogue import Catalogue
from kowalski.node.backends.seam import (
    BackendError,
    CallPiece,
    Completed,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    ModelInfo,
)
from kowalski.node.core import model_catalogue
from kowalski.node.core.fences import Fences
from kowalski.node.core.model_catalogue import Listing
from kowalski.node.core.worker_desk import WorkKey
from kowalski.node.services.kept_calls import Once, no_of, unkept
from kowalski.node.services.model_requests import ModelRequests
from kowalski.node.services.one_by_one import OneByOne, usage_of
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import inference as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.telemetry import Hot, Model, Occupancy

PROTOCOL = "/kowalski/inference/1"
DELTA_CHARS_MAX = 4096
DELTA_LOGPROBS_MAX = 8
"""Of one message: each has up to 20 alternatives."""

IDLE_TIMEOUT_S = 60.0
"""Without a byte of an answer. The first may have to wait for the model to be loaded and for a long
prompt to be read."""

IMAGE_BYTES_MAX = 20 * 1024 * 1024
MODELS_MAX = 128
RATES_MAX = 64

NAMES_BYTES_MAX = 8 * 1024
"""Of all models together. A profile is gossiped in 32 KiB, and may name each of them twice."""


CountByFile = Callable[[str, Sequence[str]], Awaitable[tuple[int, ...] | None]]


async def _nobody_counts(_model: str, _texts: Sequence[str]) -> None:
    await trio.lowlevel.checkpoint()


_Told = tuple[tuple[tuple[ModelInfo, str], ...], tuple[Model, ...]]
"""Models and their servers' names in order of preference, and how a profile tells of them."""


class InferenceRoom:
    """Serves `/kowalski/inference/1`. Images that come by hash are fetched into `store`.

    `models` answers what is asked about the models themselves; `on_use` hears which one was used.
    `count` counts the tokens of texts where no server does; `once` does one call of many. `me`
    needs not be told how full this device is with its own answers.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: ContentStore,
        requester: Requester,
        *,
        hot: Callable[[], Hot],
        models: ModelRequests | None = None,
        on_use: Callable[[str], None] = lambda _: None,
        count: CountByFile = _nobody_counts,
        once: Once = unkept,
        me: PeerId | None = None,
    ) -> None:
        self._me = me
        self._catalogue = catalogue
        self._store = store
        self._requester = requester
        self._hot = hot
        self._model_requests = models
        self._on_use = on_use
        self._count_by_file = count
        self._once = once
        self._fences: Fences[WorkKey] = Fences()
        self._told_models: _Told = ((), ())

    @property
    def occupancy(self) -> Occupancy:
        listings = self._catalogue.listings()
        return Occupancy(
            running=sum(one.in_flight for one in listings),
            slots=model_catalogue.slots(listings),
        )

    @property
    def slots(self) -> int:
        """Of all servers together."""
        return model_catalogue.slots(self._catalogue.listings())

    @property
    def models(self) -> tuple[Model, ...]:
        """What can be run now, the preferred first, each name once; as many as a profile holds.

        The same tuple again, while the models and their order are the same.
        """
        listings = self._catalogue.listings()
        of = tuple((one.model, one.backend_name) for one in listings)
        if self._told_models[0] != of:
            self._told_models = of, self._as_told(listings)
        return self._told_models[1]

    def _as_told(self, listings: tuple[Listing, ...]) -> tuple[Model, ...]:
        return tuple(
            Model(
                name=one.model.name,
                context_tokens=one.model.context_tokens,
                is_warm=one.model.is_warm,
                backend=one.backend_name,
                size_bytes=one.model.size_bytes,
                capabilities=one.model.capabilities,
            )
            for one in self._told(listings).values()
        )

    def _told(self, listings: tuple[Listing, ...]) -> dict[str, Listing]:
        told: dict[str, Listing] = {}
        names_bytes = 0
        for one in listings:
            if one.model.name not in told:
                names_bytes += len(one.model.name.encode())
                if names_bytes > NAMES_BYTES_MAX or len(told) >= MODELS_MAX:
                    break
                told[one.model.name] = one
        return told

    @property
    def tokens_per_s(self) -> dict[str, float]:
        """Of those that `models` tells; where two servers run one, the preferred server's."""
        return self._rates(lambda one: one.tokens_per_s)

    @property
    def prompt_tokens_per_s(self) -> dict[str, float]:
        """How fast they read what is not cached."""
        return self._rates(lambda one: one.prompt_tokens_per_s)

    def _rates(self, rate: Callable[[Listing], float | None]) -> dict[str, float]:
        listings = self._catalogue.listings()
        told = {one.name for one in self.models}
        rates: dict[str, float] = {}
        for one in reversed(listings):
            measured = rate(one)
            if measured is not None and one.model.name in told:
                rates[one.model.name] = measured
        return rates if len(rates) <= RATES_MAX else dict(list(rates.items())[-RATES_MAX:])

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        started = trio.current_time()
        work: Awaitable[Message]
        match request:
            case wire.CompletionAsked():
                self._hear(request)
                work = self._complete(conversation, request)
            case wire.CompletionsAsked():
                self._hear(request)
                work = self._complete_many(conversation, request, started)
            case wire.EmbeddingsAsked():
                self._hear(request)
                work = self._embed(conversation, request, started)
            case wire.TokensAsked():
                work = self._count(request, started)
            case (
                wire.CatalogueAsked()
                | wire.PreviewsAsked()
                | wire.PullAsked()
                | wire.LoadAsked()
                | wire.UnloadAsked()
            ) if self._model_requests is not None:
                work = self._model_requests.answer(conversation, request, started)
            case _:
                raise RemoteProtocolError(f"{request.KIND} in an inference conversation")
        with no_longer_than(conversation, started + request.remaining_s):
            try:
                return await work
            except BackendError as error:
                raise no_of(error) from error
        raise RequestFailedError("timeout", f"no end within {request.remaining_s:.1f} s")

    def _hear(
        self, asked: wire.CompletionAsked | wire.CompletionsAsked | wire.EmbeddingsAsked
    ) -> None:
        """Refuse what a coordinator asks whose term is over."""
        if asked.task is None or asked.term is None:
            return
        key = (asked.claim.submitter, asked.task)
        self._fences, stale = self._fences.hear(key, asked.term)
        if stale is not None:
            raise RequestRefusedError("stale", f"term {asked.term}; {stale.term} was heard")

    async def _complete(
        self,
        conversation: Conversation,
        request: wire.CompletionAsked,
        *,
        tells_hot: bool = True,
    ) -> wire.CompletionDone:
        started = trio.current_time()
        asked = await self._asked(request)
        async with self._catalogue.answer(asked, idle_timeout_s=IDLE_TIMEOUT_S) as answering:
            self._on_use(answering.listing.model.name)
            async for event in answering:
                if isinstance(event, Completed):
                    tells_hot &= conversation.peer != self._me
                    return self._done(answering.listing, event, started, tells_hot=tells_hot)
                for piece in pieces(event):
                    await conversation.send(piece, more_follows=answering.has_more_at_hand)
        raise RequestFailedError("backend", "the answer did not end")

    async def _complete_many(
        self, conversation: Conversation, request: wire.CompletionsAsked, started: float
    ) -> wire.CompletionsDone:
        if not request.prompts:
            raise RequestFailedError("bad_request", "no prompts")
        complete = partial(self._complete, tells_hot=False)
        answering = OneByOne(conversation, request, complete, self._once)
        await answering.run()
        return wire.CompletionsDone(
            model=answering.model,
            answered=len(request.prompts),
            usage=answering.usage,
            backend=answering.backend,
            held_s=trio.current_time() - started,
            hot=self._hot(),
        )

    def _done(
        self, listing: Listing, end: Completed, started: float, *, tells_hot: bool
    ) -> wire.CompletionDone:
        return wire.CompletionDone(
            model=listing.model.name,
            finish_reason=_word(end.finish_reason),
            usage=usage_of(end),
            backend=listing.backend_name,
            load_s=end.load_s,
            prompt_s=end.prompt_s,
            generation_s=end.generation_s,
            held_s=trio.current_time() - started,
            hot=self._hot() if tells_hot else None,
        )

    async def _asked(self, request: wire.CompletionAsked) -> CompletionRequest:
        """The request as backends take it, its images here."""
        if not request.messages and request.prompt is None:
            raise RequestFailedError("bad_request", "neither messages nor a prompt")
        numbers = {number for one in request.messages for number in one.images}
        if missing := [number for number in numbers if number >= len(request.images)]:
            raise RequestFailedError("bad_request", f"no image number {min(missing)}")
        return CompletionRequest(
            model=request.model,
            messages=request.messages,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            sampling=request.sampling,
            images=tuple([await self._image(one) for one in request.images]),
            prompt=request.prompt,
            tools=request.tools,
            tool_choice=request.tool_choice,
            tool_named=request.tool_named,
            calls_in_parallel=request.calls_in_parallel,
            json_schema=request.json_schema,
            logprobs=request.logprobs,
            thinking=request.thinking,
            so_far=request.so_far,
        )

    async def _image(self, image: wire.Image) -> bytes:
        if image.data is not None:
            return image.data
        if image.content is None:
            raise RequestFailedError("bad_request", "an image without data or content")
        if image.content.bytes_total > IMAGE_BYTES_MAX:
            size = image.content.bytes_total
            raise RequestRefusedError("too_large", f"an image of {size} bytes")
        try:
            await self._store.fetch(image.content, self._requester)
        except PeerUnreachableError as lost:
            raise RequestFailedError("content", str(lost)) from lost
        return await self._store.read(image.content)

    async def _embed(
        self, conversation: Conversation, request: wire.EmbeddingsAsked, started: float
    ) -> wire.EmbeddingsDone:
        asked = EmbeddingRequest(request.model, request.texts, request.dimensions)
        listing, found = await self._catalogue.embed(asked, idle_timeout_s=IDLE_TIMEOUT_S)
        at_a_time = max(1, wire.VECTORS_BYTES_MAX // (4 * found.dimensions))
        for start in range(0, len(found.vectors), at_a_time):
            vectors = b"".join(found.vectors[start : start + at_a_time])
            await conversation.send(wire.EmbeddingsPiece(vectors=vectors))
        return wire.EmbeddingsDone(
            model=listing.model.name,
            dimensions=found.dimensions,
            usage=wire.Usage(
                prompt_tokens=found.prompt_tokens,
                completion_tokens=0,
                is_estimate=found.usage_is_estimate,
            ),
            backend=listing.backend_name,
            held_s=trio.current_time() - started,
            hot=self._hot(),
        )

    async def _count(self, request: wire.TokensAsked, started: float) -> wire.TokensCounted:
        listing, counts = await self._catalogue.count_tokens(request.model, request.texts)
        if counts is None:
            counts = await self._count_by_file(listing.model.name, request.texts)
        return wire.TokensCounted(
            model=listing.model.name,
            counts=counts or self._catalogue.estimate_tokens(listing, request.texts),
            is_estimate=counts is None,
            backend=listing.backend_name,
            held_s=trio.current_time() - started,
        )


def pieces(delta: Delta) -> Iterator[wire.CompletionDelta]:
    """A delta in messages that are small enough, each with one thing."""
    for text in _cut(delta.thinking):
        yield wire.CompletionDelta(thinking=text)
    told = delta.logprobs
    texts = list(_cut(delta.text))
    for number, text in enumerate(texts):
        # The tokens of a piece travel with it as far as they fit.
        with_it = told[:DELTA_LOGPROBS_MAX] if number == 0 else ()
        yield wire.CompletionDelta(text=text, logprobs=with_it)
    start = DELTA_LOGPROBS_MAX if texts else 0
    for at in range(start, len(told), DELTA_LOGPROBS_MAX):
        yield wire.CompletionDelta(logprobs=told[at : at + DELTA_LOGPROBS_MAX])
    for call in delta.calls:
        yield from _call_pieces(call)


def _call_pieces(call: CallPiece) -> Iterator[wire.CompletionDelta]:
    first, *more = list(_cut(call.arguments)) or [""]
    head = wire.ToolCallPiece(
        index=call.index, id=call.id[:128], name=call.name[:128], arguments=first
    )
    yield wire.CompletionDelta(tool_calls=(head,))
    for arguments in more:
        piece = wire.ToolCallPiece(index=call.index, arguments=arguments)
        yield wire.CompletionDelta(tool_calls=(piece,))


def _cut(text: str) -> Iterator[str]:
    for start in range(0, len(text), DELTA_CHARS_MAX):
        yield text[start : start + DELTA_CHARS_MAX]


def _word(reason: str) -> str:
    """A finish reason as a code; servers write what they like."""
    word = "".join(c if c.isascii() and c.isalnum() else "_" for c in reason.lower())
    return word.strip("_0123456789")[:40] or "stop"
