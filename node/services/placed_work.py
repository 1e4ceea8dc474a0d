"""Work sent to the peer best placed for it, and to the next when that one fails.

The caller says what is needed; which peer is decided by `mesh.core.placement`, how often to try by
the rules at the top of this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.placement import Choice, Need
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.services import folding, inference, repl
from kowalski.node.services.model_replies import Reply, WholeReply
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from kowalski.protocol.messages.inference import (
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
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

log = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")

ANY_MODEL = "*"
"""In place of a model's name: whichever the best peer prefers."""

ATTEMPTS_MAX = 3
"""Peers that may fail at one request. One that is busy did not fail."""

BUSY_WAIT_S = 0.1
BUSY_WAIT_S_MAX = 1.0

NOT_ELSEWHERE = frozenset({"bad_request", "timeout", "cut_short"})
"""Failures that another peer would only repeat."""

OnOutput = Callable[[Literal["stdout", "stderr"], bytes], None]
OnSubCalls = Callable[[tuple[SubCall, ...]], Awaitable[tuple[SubCallResult, ...]]]

Weather = (PeerUnreachableError, RequestRefusedError, RequestFailedError, RemoteProtocolError)
"""What a request to a peer may raise."""


def is_worth_another_peer(error: Exception) -> bool:
    return not (isinstance(error, RequestFailedError) and error.code in NOT_ELSEWHERE)


def is_busy(error: Exception) -> bool:
    """Full, not broken."""
    return isinstance(error, RequestRefusedError) and error.reason == "busy"


@dataclass(slots=True)
class Tries:
    """Who was tried for one piece of work. Full is not broken: the busy are asked again."""

    failed: dict[PeerId, Exception] = field(default_factory=dict)
    busy: set[PeerId] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    """What those who failed said; `complaint` is what anybody said last."""
    complaint: str = ""
    is_full: bool = False
    """Whether that was that it is busy."""
    _wait_s: float = BUSY_WAIT_S

    @property
    def excluded(self) -> frozenset[PeerId]:
        return frozenset({*self.failed, *self.busy})

    @property
    def are_too_many(self) -> bool:
        return len(self.failed) >= ATTEMPTS_MAX

    @property
    def may_wait(self) -> bool:
        return bool(self.busy) and not self.are_too_many

    @property
    def number(self) -> int:
        """Of the attempt that is next, or was the last to be made."""
        return len(self.failed) + 1

    def add(self, peer: PeerId, name: str, error: Exception) -> None:
        self.complaint = f"{name}: {error}"
        self.is_full = is_busy(error)
        if self.is_full:
            self.busy.add(peer)
        else:
            self.failed[peer] = error
            self.complaints.append(self.complaint)

    def wait_s(self) -> float:
        """How long to wait before the busy are asked again: longer every time."""
        self.busy.clear()
        wait_s, self._wait_s = self._wait_s, min(BUSY_WAIT_S_MAX, 2 * self._wait_s)
        return wait_s

    def outcome(self, nobody: str) -> RequestRefusedError | RequestFailedError:
        """What to tell who asked, once there is nobody left to try."""
        if not self.failed:
            return RequestRefusedError("no_peer", nobody)
        last, words = list(self.failed.values())[-1], "; ".join(self.complaints)
        if isinstance(last, RequestRefusedError):
            return RequestRefusedError(last.reason, words, last.retry_after_s)
        return RequestFailedError("peers_failed", words)


@dataclass(frozen=True, slots=True)
class Placed:
    """Who did it, why that one, and after how many tries."""

    peer: PeerId
    name: str
    why: str
    attempts: int


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
    await trio.lowlevel.checkpoint()
    return request


class PlacedWork:
    def __init__(self, mesh: Mesh, store: ContentStore) -> None:
        self._mesh = mesh
        self._store = store

    async def complete(
        self,
        asked: CompletionAsked,
        *,
        on_delta: Callable[[str], None] = _ignore,
        on_piece: Callable[[CompletionDelta], None] = _ignore,
        on_restart: Callable[[str], None] = _ignore,
        may_begin_anew: bool = True,
        as_of_now: Callable[[CompletionAsked], Awaitable[CompletionAsked]] = _as_it_is,
    ) -> Completion:
        """One model call on the best peer that has the model; an empty model leaves the choice.

        `on_delta` hears the text, `on_piece` everything. Where a peer is lost in the middle,
        another goes on from there. One that cannot begins anew, which `on_restart` tells, unless
        that may not be (`may_begin_anew`): then the answer ends. `on_restart` is also told where a
        peer was lost that had said nothing. Each peer is asked what `as_of_now` makes of the
        request, once that has returned: time passes between one and the next.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed; `cut_short`.
        """
        whole = WholeReply(asked, may_begin_anew=may_begin_anew, on_restart=on_restart)

        def hear(delta: CompletionDelta) -> None:
            whole.reply.add(delta)
            on_piece(delta)
            if delta.text:
                on_delta(delta.text)

        async def attempt(choice: Choice) -> CompletionDone:
            request = await as_of_now(whole.next_request())
            if asked.model == ANY_MODEL:
                request = request.model_copy(update={"model": self._preferred_model(choice.peer)})
            try:
                done = await self._complete_on(choice.peer, request, hear)
            except RequestRefusedError as no:
                if no.reason != "unsupported" or not whole.is_going_on(request):
                    raise
                whole.begin_anew(f"{choice.name} cannot go on with an answer")
                anew = await as_of_now(asked)
                request = anew.model_copy(update={"model": request.model})
                done = await self._complete_on(choice.peer, request, hear)
            except RequestFailedError as failed:
                if failed.code == "too_long":
                    whole.overflowed(failed)
                raise
            return whole.done(done, request)

        model = None if asked.model == ANY_MODEL else asked.model
        need = Need("inference", model=model)
        done, placed = await self._place(need, attempt, asked.remaining_s, whole.failed)
        return Completion(whole.reply.text, done, placed, whole.reply)

    def _preferred_model(self, peer: PeerId) -> str:
        profile = self._mesh.facts_of(peer).profile
        if profile is None or not profile.models:
            raise RequestRefusedError("unsupported", "its models have just gone")
        able = [one for one in profile.models if "chat" in (one.capabilities or ("chat",))]
        return (able or profile.models)[0].name

    async def embed(self, asked: EmbeddingsAsked) -> Embeddings:
        """Vectors of texts, by the best peer that has the model.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed.
        """

        async def attempt(choice: Choice) -> tuple[tuple[bytes, ...], EmbeddingsDone]:
            return await self._embed_on(choice.peer, asked)

        need = Need("inference", model=asked.model)
        (vectors, done), placed = await self._place(need, attempt, asked.remaining_s, _ignore)
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
        self, peer: PeerId, asked: CompletionAsked, hear: Callable[[CompletionDelta], None]
    ) -> CompletionDone:
        async with self._mesh.converse(peer, inference.PROTOCOL, asked) as conversation:
            while True:
                message = await conversation.receive()
                match message:
                    case CompletionDelta():
                        hear(message)
                    case CompletionDone():
                        self._mesh.hear_reply(peer, message.hot)
                        return message
                    case _:
                        raise RemoteProtocolError(f"{message.KIND} in answer to {asked.KIND}")

    async def fold(
        self,
        asked: FoldAsked,
        *,
        as_of_now: Callable[[FoldAsked], Awaitable[FoldAsked]] = _as_it_is,
    ) -> Fold:
        """Fold on the nearest peer. `as_of_now` as in `complete`.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed.
        """

        async def attempt(choice: Choice) -> tuple[str, FoldDone]:
            request = await as_of_now(asked)
            done = await self._mesh.request(
                choice.peer, folding.PROTOCOL, request, FoldDone, timeout_s=request.remaining_s
            )
            self._mesh.hear_reply(choice.peer, done.hot)
            return await self._folded(done), done

        need = Need("folding")
        (text, done), placed = await self._place(need, attempt, asked.remaining_s, _ignore)
        return Fold(text, done, placed)

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

        async def attempt(choice: Choice) -> CellDone:
            return await self.run_cell(choice.peer, asked, on_output, _no_sub_calls)

        need = Need("code", language=asked.language)
        return await self._place(need, attempt, asked.remaining_s, on_restart)

    async def run_cell(
        self, peer: PeerId, asked: CellAsked, on_output: OnOutput, on_sub_calls: OnSubCalls
    ) -> CellDone:
        """One cell on one peer. Raises what a conversation raises."""

        async def answer(batch: int, results: Awaitable[tuple[SubCallResult, ...]]) -> None:
            answered = SubCallsAnswered(batch=batch, results=await results)
            await conversation.send(answered)

        async with (
            self._mesh.converse(peer, repl.PROTOCOL, asked) as conversation,
            open_plain_nursery() as nursery,
        ):
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
                        raise RemoteProtocolError(f"{message.KIND} in answer to {asked.KIND}")

    async def _place(
        self,
        need: Need,
        attempt: Callable[[Choice], Awaitable[T]],
        timeout_s: float,
        on_restart: Callable[[str], None],
    ) -> tuple[T, Placed]:
        """Try the best peer, then the next best; where all are busy, wait for a turn."""
        tries = Tries()
        with trio.move_on_after(timeout_s):
            while True:
                ranking = self._mesh.rank(need, excluding=tries.excluded)
                choice = ranking.best
                if choice is None or tries.are_too_many:
                    if not tries.may_wait:
                        raise tries.outcome(_nobody(need, ranking.explain()))
                    await trio.sleep(tries.wait_s())
                    continue
                try:
                    with self._mesh.sending(choice.peer, need.kind):
                        result = await attempt(choice)
                except Weather as error:
                    if not is_worth_another_peer(error):
                        raise
                    tries.add(choice.peer, choice.name, error)
                    if not is_busy(error):
                        log.info("placed-elsewhere", peer=choice.peer, kind=need.kind, why=error)
                        on_restart(tries.complaint)
                else:
                    return result, Placed(choice.peer, choice.name, choice.why, tries.number)
        if tries.is_full:
            raise RequestRefusedError("busy", f"for {timeout_s:.3g} s; {tries.complaint}")
        raise RequestFailedError("timeout", f"no answer within {timeout_s:.3g} s")


def _nobody(need: Need, why: str) -> str:
    match need.kind:
        case "code":
            return f"no peer runs {need.language} ({why})"
        case "inference" if need.model:
            return f"no peer has model {need.model} ({why})"
        case "inference":
            return f"no peer has a model ({why})"
        case "folding":
            return f"no peer folds ({why})"


async def _no_sub_calls(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
    await trio.lowlevel.checkpoint()
    return tuple(SubCallResult(error="a program that is run alone asks nobody") for _ in calls)
