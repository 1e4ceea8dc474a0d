"""Work sent to the peer best placed for it, and to the next when that one fails.

The caller says what is needed; who does it and how often it is tried is for `placing` to say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Request
from kowalski.mesh.core.placement import Devices, Need
from kowalski.mesh.interruption import interrupted_if
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.job import PROMPT_SPEED, Job, Usual, request_of
from kowalski.node.core.portions import spans
from kowalski.node.core.question_groups import Paces
from kowalski.node.services import folding, inference, repl
from kowalski.node.services.dispatch import Work
from kowalski.node.services.model_replies import Reply, WholeReply
from kowalski.node.services.model_work import ModelWork
from kowalski.node.services.placing import Attempt, NotYetError, Placed, Placing
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from kowalski.protocol.messages.inference import (
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
    CompletionsDone,
    EmbeddingsAsked,
    EmbeddingsDone,
    EmbeddingsPiece,
)
from kowalski.protocol.messages.repl import (
    CellAsked,
    CellDone,
    CellOutput,
    SubCall,
    SubCallResult,
    SubCallsAnswered,
    SubCallsAsked,
)
from kowalski.rlm.fold_counts import FoldCounts
from kowalski.rlm.model_folding import ModelFolded

R = TypeVar("R")
M = TypeVar("M", bound=Message)

ANY_MODEL = "*"
"""In place of a model's name: whichever the best peer prefers."""

RESULTS_BYTES_MAX = 512 * 1024
"""Of the answers to a cell's sub-calls in one message: two of the longest fit a frame."""

RESULT_BYTES = 2048
"""Of an answer besides its text: an error's words, names of fields."""

OnOutput = Callable[[Literal["stdout", "stderr"], bytes], None]
OnSubCalls = Callable[[tuple[SubCall, ...]], Awaitable[tuple[SubCallResult, ...]]]


@dataclass(slots=True)
class Attempts:
    """Requests that went to models for one call, failed and hedged ones included.

    A peer that refused was not asked: its model heard nothing of it.
    """

    sent: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    done: CompletionDone
    placed: Placed
    reply: Reply
    """All of it: thoughts, calls of tools and logprobs besides the text."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`vectors` has one entry for each text: little-endian 32-bit floats."""

    vectors: tuple[bytes, ...]
    done: EmbeddingsDone
    placed: Placed


@dataclass(frozen=True, slots=True)
class Fold:
    text: str
    done: FoldDone
    placed: Placed


def _ignore(_told: object) -> None:
    pass


async def _as_it_is(request: R) -> R:
    # No turn of the scheduler where nothing has to be waited for: it costs as much as choosing.
    await trio.lowlevel.checkpoint_if_cancelled()
    return request


Terms = dict[str, object]
"""What an attempt changes of a request: its claim, its time."""


async def _stamped(
    request: M, to: Attempt, as_of_now: Callable[[M], Awaitable[M]] = _as_it_is, **more: object
) -> M:
    """What a request is to be when it is sent; asked for then, as the last thing before."""
    now = await as_of_now(request)
    terms = {"claim": to.claim, "remaining_s": to.remaining_s, **more}
    return now.model_copy(update=terms)


class _Place(Protocol):
    async def __call__(self, *, remaining_s: float) -> tuple[CompletionDone, Placed]: ...


class PlacedWork:
    """`placing` is shared by all that a node sends: what one request learns, the next uses."""

    def __init__(self, mesh: Mesh, store: ContentStore, placing: Placing) -> None:
        self._mesh = mesh
        self._store = store
        self.placing = placing
        self._models = ModelWork(mesh)
        self._usual = Usual()
        self.paces = Paces()
        """Of models, as their peers tell: without the way there and the line before them."""
        self.fold_counts = FoldCounts()

    async def complete(
        self,
        asked: CompletionAsked,
        *,
        on_delta: Callable[[str], None] = _ignore,
        on_piece: Callable[[CompletionDelta], None] = _ignore,
        on_restart: Callable[[str], None] = _ignore,
        may_begin_anew: bool = True,
        as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]] = _as_it_is,
        attempts: Attempts | None = None,
        devices: Devices = "all",
        holder: PeerId | None = None,
    ) -> Completion:
        """One model call on the best peer that has the model; an empty model leaves the choice.

        `on_delta` hears the text, `on_piece` everything. Where a peer is lost in the middle,
        another goes on from there. One that cannot begins anew, which `on_restart` tells, unless
        that may not be (`may_begin_anew`): then the answer ends. `on_restart` is also told where a
        peer was lost that had said nothing. Each is asked what `as_of_now` makes of the request at
        its time, which may say `NotYetError`. `attempts` is counted up in any case. `holder` has
        the answer, or is at it.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed; `cut_short`.
        """
        whole = WholeReply(asked, may_begin_anew=may_begin_anew, on_restart=on_restart)
        attempts = attempts or Attempts()

        def hear(delta: CompletionDelta) -> None:
            whole.reply.add(delta)
            on_piece(delta)
            if delta.text:
                on_delta(delta.text)

        async def attempt(to: Attempt) -> CompletionDone:
            is_any = asked.model == ANY_MODEL
            model = self.preferred_model(to.peer) if is_any else asked.model
            stamped = partial(_stamped, to=to, as_of_now=as_of_now, model=model)
            request = whole.next_request()
            attempts.sent += 1
            try:
                done = await self._complete_on(to, partial(stamped, request), hear)
            except (NotYetError, RequestRefusedError) as no:
                attempts.sent -= 1
                if not _cannot_go_on(no) or not whole.is_going_on(request):
                    raise
                whole.begin_anew(f"{to.choice.name} cannot go on with an answer")
                request, attempts.sent = asked, attempts.sent + 1
                done = await self._complete_on(to, partial(stamped, request), hear)
            except RequestFailedError as failed:
                if failed.code == "too_long":
                    whole.overflowed(failed)
                raise
            to.sent.units = units(done.usage.prompt_tokens, done.usage.completion_tokens)
            self.learn(to, job, done)
            return whole.done(done, request)

        work, job = self._model_work(asked, devices)
        place = partial(
            self.placing.place,
            work,
            attempt,
            on_restart=whole.failed,
            may_hedge=True,
            holder=holder,
        )

        done, placed = await self._place_or_fetch(asked, place, on_restart)
        return Completion(whole.reply.text, done, placed, whole.reply)

    async def _place_or_fetch(
        self, asked: CompletionAsked, place: _Place, on_note: Callable[[str], None]
    ) -> tuple[CompletionDone, Placed]:
        """A model that nobody has is fetched, where a peer's owner allows that."""
        ends = trio.current_time() + asked.remaining_s
        try:
            return await place(remaining_s=asked.remaining_s)
        except RequestRefusedError as no:
            left_s = ends - trio.current_time()
            if no.reason != "no_peer" or asked.model == ANY_MODEL or left_s <= 0:
                raise
            if not await self._models.fetch_on_demand(asked.model, left_s, on_note):
                raise
        return await place(remaining_s=ends - trio.current_time())

    def model_work(self, asked: CompletionAsked, devices: Devices = "all") -> Work:
        """What `asked` is to the choice of a peer."""
        return self._model_work(asked, devices)[0]

    def _model_work(self, asked: CompletionAsked, devices: Devices) -> tuple[Work, Job]:
        request = request_of(asked)
        assert request is not None
        job = request.job
        prompt_tokens = job.prompt_tokens or 0
        model = None if asked.model == ANY_MODEL else asked.model
        reply_tokens = self.reply_tokens(job.need, asked.max_tokens)
        work = Work(
            Need(
                "inference", model=model, devices=devices, units=units(prompt_tokens, reply_tokens)
            ),
            claim=asked.claim,
            task=asked.task,
            prompt_tokens=prompt_tokens,
            max_tokens=asked.max_tokens,
            prefixes=request.prefixes,
        )
        return work, job

    def reply_tokens(self, need: Need, max_tokens: int | None) -> float:
        """How long a reply of a model usually is."""
        usual = self._usual.usual_reply_tokens(need.work)
        return usual if max_tokens is None else min(usual, float(max_tokens))

    def learn(self, to: Attempt, job: Job, done: CompletionDone | CompletionsDone) -> None:
        """Take in how long replies were, and how long they took."""
        self._usual = self._usual.learn(job, 0.0, done)
        if to.sent.units is not None:
            self.paces.learn(to.peer, job.need.work, done.held_s / to.sent.units)

    def preferred_model(self, peer: PeerId) -> str:
        """Raises RequestRefusedError: `unsupported`, it has none."""
        profile = self._mesh.facts_of(peer).profile
        if profile is None or not profile.models:
            raise RequestRefusedError("unsupported", "its models have just gone")
        able = [one for one in profile.models if "chat" in (one.capabilities or ("chat",))]
        return (able or profile.models)[0].name

    async def embed(self, asked: EmbeddingsAsked, *, devices: Devices = "all") -> Embeddings:
        """Vectors of texts, by the best peer that has the model.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed.
        """

        async def attempt(to: Attempt) -> tuple[tuple[bytes, ...], EmbeddingsDone]:
            request = asked.model_copy(update={"remaining_s": to.remaining_s})
            return await self._embed_on(to.peer, request)

        need = Need("inference", model=asked.model, devices=devices)
        (vectors, done), placed = await self.placing.place(
            Work(need, task=asked.task),
            attempt,
            remaining_s=asked.remaining_s,
            on_restart=_ignore,
            may_hedge=True,
        )
        return Embeddings(vectors, done, placed)

    async def _embed_on(
        self, peer: PeerId, asked: EmbeddingsAsked
    ) -> tuple[tuple[bytes, ...], EmbeddingsDone]:
        told: list[bytes] = []
        async with self._mesh.converse(peer, inference.PROTOCOL, asked) as conversation:
            while isinstance(message := await conversation.receive(), EmbeddingsPiece):
                told.append(message.vectors)
        if not isinstance(message, EmbeddingsDone):
            raise RemoteProtocolError(f"{message.KIND} in answer to {asked.KIND}")
        self._mesh.hear_reply(peer, message.hot)
        size, data = 4 * message.dimensions, b"".join(told)
        if len(data) != size * len(asked.texts):
            raise RemoteProtocolError(f"{len(data)} bytes of vectors for {len(asked.texts)} texts")
        return tuple(data[at : at + size] for at in range(0, len(data), size)), message

    async def _complete_on(
        self,
        to: Attempt,
        asked: Callable[[], Awaitable[CompletionAsked]],
        hear: Callable[[CompletionDelta], None],
    ) -> CompletionDone:
        def told(message: Message) -> None:
            if not isinstance(message, CompletionDelta):
                raise RemoteProtocolError(f"{message.KIND} in answer to {CompletionAsked.KIND}")
            if to.speak():
                hear(message)

        done = await self._mesh.hear_out(
            to.peer, inference.PROTOCOL, asked, CompletionDone, told, until=to.deadline
        )
        to.speak()
        self._mesh.hear_reply(to.peer, done.hot)
        return done

    async def fold(
        self,
        asked: FoldAsked,
        *,
        as_of_now: Callable[[FoldAsked], Awaitable[FoldAsked]] = _as_it_is,
        devices: Devices = "all",
        task: TaskId | None = None,
    ) -> Fold:
        """Fold on the nearest peer, for a task if any. `as_of_now` as in `complete`.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed.
        """

        async def attempt(to: Attempt) -> tuple[str, FoldDone]:
            request = await _stamped(asked, to, as_of_now)
            done = await self._mesh.request(
                to.peer, folding.PROTOCOL, request, FoldDone, timeout_s=request.remaining_s
            )
            self._mesh.hear_reply(to.peer, done.hot)
            return await self._folded(done), done

        content = () if asked.content is None else (asked.content,)
        need = Need("folding", devices=devices, units=max(1.0, _bytes_of(asked) / 1000))
        (text, done), placed = await self.placing.place(
            Work(need, claim=asked.claim, task=task, content=content),
            attempt,
            remaining_s=asked.remaining_s,
            on_restart=_ignore,
            may_hedge=True,
        )
        self.fold_counts = self.fold_counts.folded(done.source_tokens, done.tokens)
        return Fold(text, done, placed)

    def count_model_fold(self, folded: ModelFolded) -> None:
        """One that was made with calls of `complete`."""
        self.fold_counts = self.fold_counts.folded_by_model(
            folded.source_tokens,
            folded.tokens,
            facts=folded.facts,
            facts_kept=folded.facts_kept,
        )

    def count_unfold(self) -> None:
        self.fold_counts = self.fold_counts.unfolded()

    async def _folded(self, done: FoldDone) -> str:
        if done.text is not None:
            return done.text
        if done.content is None:
            raise RemoteProtocolError("a fold without a text")
        await self._store.fetch(done.content, self._mesh)
        return (await self._store.read(done.content)).decode(errors="replace")

    async def run_alone(
        self, asked: CellAsked, *, on_output: OnOutput, on_restart: Callable[[str], None]
    ) -> tuple[CellDone, Placed]:
        """One program on the best peer for its language, in a session of its own.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed.
        """

        async def attempt(to: Attempt) -> CellDone:
            return await self.run_cell(
                to.peer, partial(_stamped, asked, to), on_output, _no_sub_calls
            )

        work = Work(
            Need("code", language=asked.language),
            claim=asked.claim,
            content=tuple(one.content for one in asked.inputs),
        )
        return await self.placing.place(
            work, attempt, remaining_s=asked.remaining_s, on_restart=on_restart
        )

    async def run_cell(
        self, peer: PeerId, asked: Request, on_output: OnOutput, on_sub_calls: OnSubCalls
    ) -> CellDone:
        """One cell on one peer. Raises what a conversation raises."""

        async def answer(batch: int, results: Awaitable[tuple[SubCallResult, ...]]) -> None:
            told = await results
            weights = [RESULT_BYTES + len((one.text or "").encode()) for one in told]
            for start, end in spans(weights, bytes_max=RESULTS_BYTES_MAX, count_max=len(told)):
                left = len(told) - end
                await conversation.send(
                    SubCallsAnswered(batch=batch, left=left, results=told[start:end])
                )

        async def until_done() -> CellDone:
            while True:
                message = await conversation.receive()
                match message:
                    case CellOutput(stream=stream, data=data):
                        on_output(stream, data)
                    case SubCallsAsked(batch=batch, calls=calls):
                        nursery.start_soon(answer, batch, on_sub_calls(calls))
                    case CellDone():
                        self._mesh.hear_reply(peer, message.hot)
                        nursery.cancel_scope.cancel()
                        return message
                    case _:
                        raise RemoteProtocolError(f"{message.KIND} in answer to {CellAsked.KIND}")

        is_lost = False
        with interrupted_if(lambda: is_lost):
            async with (
                self._mesh.converse(peer, repl.PROTOCOL, asked) as conversation,
                open_plain_nursery() as nursery,
            ):
                try:
                    return await until_done()
                except PeerUnreachableError:
                    is_lost = True  # run again, the cell asks the same
                    raise


def _cannot_go_on(no: Exception) -> bool:
    return isinstance(no, RequestRefusedError) and no.reason == "unsupported"


def units(prompt_tokens: float, reply_tokens: float) -> float:
    """Of a model call: a token written, or ten read."""
    return max(1.0, prompt_tokens / PROMPT_SPEED + reply_tokens)


def _bytes_of(asked: FoldAsked) -> int:
    if asked.text is not None:
        return len(asked.text)
    return asked.content.bytes_total if asked.content is not None else 0


async def _no_sub_calls(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
    await trio.lowlevel.checkpoint()
    return tuple(SubCallResult(error="a program that is run alone asks nobody") for _ in calls)
