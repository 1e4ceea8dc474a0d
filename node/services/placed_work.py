"""Work sent to the peer best placed for it, and to the next when that one fails.

The caller says what is needed; which peer is decided by `mesh.core.placement`, how often to try by
the rules at the top of this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core.placement import Choice, Need
from kowalski.mesh.mesh import Mesh
from kowalski.node.services import folding, inference, repl
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from kowalski.protocol.messages.inference import (
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
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

ANY_MODEL = "*"
"""In place of a model's name: whichever the best peer prefers."""

ATTEMPTS_MAX = 3
"""Peers tried for one request, the first included."""

NOT_ELSEWHERE = frozenset({"bad_request", "timeout"})
"""Failures that another peer would only repeat."""

OnOutput = Callable[[Literal["stdout", "stderr"], bytes], None]
OnSubCalls = Callable[[tuple[SubCall, ...]], Awaitable[tuple[SubCallResult, ...]]]

Weather = (PeerUnreachableError, RequestRefusedError, RequestFailedError, RemoteProtocolError)
"""What a request to a peer may raise."""


def is_worth_another_peer(error: Exception) -> bool:
    return not (isinstance(error, RequestFailedError) and error.code in NOT_ELSEWHERE)


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


@dataclass(frozen=True, slots=True)
class Fold:
    text: str
    done: FoldDone
    placed: Placed


def _ignore(_text: str) -> None:
    pass


class PlacedWork:
    def __init__(self, mesh: Mesh, store: ContentStore) -> None:
        self._mesh = mesh
        self._store = store

    async def complete(
        self,
        asked: CompletionAsked,
        *,
        on_delta: Callable[[str], None] = _ignore,
        on_restart: Callable[[str], None] = _ignore,
    ) -> Completion:
        """One model call on the best peer that has the model; an empty model leaves the choice.

        `on_restart` says why when another peer starts the answer anew.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed.
        """

        async def attempt(choice: Choice) -> tuple[str, CompletionDone]:
            request = asked
            if asked.model == ANY_MODEL:
                request = asked.model_copy(update={"model": self._preferred_model(choice.peer)})
            return await self._complete_on(choice.peer, request, on_delta)

        model = None if asked.model == ANY_MODEL else asked.model
        need = Need("inference", model=model)
        (text, done), placed = await self._place(need, attempt, asked.remaining_s, on_restart)
        return Completion(text, done, placed)

    def _preferred_model(self, peer: PeerId) -> str:
        profile = self._mesh.facts_of(peer).profile
        if profile is None or not profile.models:
            raise RequestRefusedError("unsupported", "its models have just gone")
        return profile.models[0].name

    async def _complete_on(
        self, peer: PeerId, asked: CompletionAsked, on_delta: Callable[[str], None]
    ) -> tuple[str, CompletionDone]:
        pieces: list[str] = []
        size = 0
        async with self._mesh.converse(peer, inference.PROTOCOL, asked) as conversation:
            while True:
                message = await conversation.receive()
                match message:
                    case CompletionDelta(text=text):
                        pieces.append(text)
                        size += len(text.encode())
                        if size > TEXT_BYTES_MAX:
                            raise RequestFailedError("too_long", f"a reply of over {size} bytes")
                        on_delta(text)
                    case CompletionDone():
                        self._mesh.hear_reply(peer, message.hot)
                        return "".join(pieces), message
                    case _:
                        raise RemoteProtocolError(f"{message.KIND} in answer to {asked.KIND}")

    async def fold(self, asked: FoldAsked) -> Fold:
        """Fold on the nearest peer.

        Raises:
            RequestRefusedError: `no_peer`.
            RequestFailedError: every peer that was tried failed.
        """

        async def attempt(choice: Choice) -> FoldDone:
            return await self._mesh.request(
                choice.peer, folding.PROTOCOL, asked, FoldDone, timeout_s=asked.remaining_s
            )

        done, placed = await self._place(Need("folding"), attempt, asked.remaining_s, _ignore)
        self._mesh.hear_reply(placed.peer, done.hot)
        if done.content is None:
            return Fold(done.text or "", done, placed)
        await self._store.fetch(done.content, self._mesh)
        text = (await self._store.read(done.content)).decode(errors="replace")
        return Fold(text, done, placed)

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
        async with self._mesh.converse(peer, repl.PROTOCOL, asked) as conversation:
            while True:
                message = await conversation.receive()
                match message:
                    case CellOutput(stream=stream, data=data):
                        on_output(stream, data)
                    case SubCallsAsked(batch=batch, calls=calls):
                        results = await on_sub_calls(calls)
                        await conversation.send(SubCallsAnswered(batch=batch, results=results))
                    case CellDone():
                        self._mesh.hear_reply(peer, message.hot)
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
        """Try the best peer, then the next best of those that were not tried."""
        tried: dict[PeerId, str] = {}
        last: Exception = RequestRefusedError("no_peer")
        with trio.move_on_after(timeout_s):
            while len(tried) < ATTEMPTS_MAX:
                ranking = self._mesh.rank(need, excluding=frozenset(tried))
                choice = ranking.best
                if choice is None:
                    if not tried:
                        raise RequestRefusedError("no_peer", _nobody(need, ranking.explain()))
                    break
                try:
                    with self._mesh.sending(choice.peer, need.kind):
                        result = await attempt(choice)
                except Weather as error:
                    if not is_worth_another_peer(error):
                        raise
                    last = error
                    tried[choice.peer] = f"{choice.name}: {error}"
                    log.info("placed-elsewhere", peer=choice.peer, kind=need.kind, why=str(error))
                    on_restart(tried[choice.peer])
                else:
                    return result, Placed(choice.peer, choice.name, choice.why, len(tried) + 1)
            if isinstance(last, RequestRefusedError):
                raise RequestRefusedError(
                    last.reason, "; ".join(tried.values()), last.retry_after_s
                )
            raise RequestFailedError("peers_failed", "; ".join(tried.values())) from last
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
