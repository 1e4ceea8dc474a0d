"""Asking peers about models: what each has or could have, and having one fetched, loaded, removed.

Which peer is asked first is told by `order`; a peer that refuses is passed over for the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import structlog
import trio

from kowalski.mesh.core.blame import Weather
from kowalski.mesh.core.placement import Need
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.services import inference
from kowalski.protocol.errors import RemoteProtocolError, RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import (
    CatalogueAsked,
    CatalogueTold,
    LoadAsked,
    ModelGone,
    ModelProgress,
    ModelReady,
    Previews,
    PreviewsAsked,
    PullAsked,
    UnloadAsked,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")

Changes = PullAsked | LoadAsked | UnloadAsked
OnProgress = Callable[[str, ModelProgress], None]
"""Hears the name of the peer and how far it is."""

_DOES = {
    PullAsked.KIND: "fetches it",
    LoadAsked.KIND: "loads it",
    UnloadAsked.KIND: "unloads it",
    PreviewsAsked.KIND: "splits it",
}

TELLING_S = 5.0
NEWS_S = 5.0
NEWS_LOOKS = 50
RETRY_AFTER_S = 1.0
PASSED_OVER = frozenset({"unsupported", "not_allowed", "unknown", "draining"})


@dataclass(frozen=True, slots=True)
class Told:
    """What one peer has; `models` None where it did not say, and `why_not` why."""

    peer: PeerId
    name: str
    models: CatalogueTold | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    peer: PeerId
    name: str
    reply: ModelReady | ModelGone


def order(facts: Iterable[PeerFacts]) -> tuple[PeerFacts, ...]:
    """Who may be asked for a change of models: this device first, then by free memory."""

    def free_bytes(one: PeerFacts) -> float:
        hot = one.hot or (one.profile.hot if one.profile else None)
        size = one.profile.memory_bytes if one.profile else 0
        return size * (1.0 - hot.memory_used) if hot else 0.0

    able = [one for one in facts if one.is_routable and "infer" in one.roles]
    return tuple(sorted(able, key=lambda one: (not one.is_self, -free_bytes(one), one.peer)))


class ModelWork:
    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def tell(self, query: str = "") -> tuple[Told, ...]:
        """What every peer has or could load, all asked at once."""
        told: dict[PeerId, Told] = {}
        peers = order(self._mesh.facts())

        async def ask(one: PeerFacts) -> None:
            request = CatalogueAsked(query=query[:256], remaining_s=TELLING_S)
            try:
                models = await self._mesh.request(
                    one.peer, inference.PROTOCOL, request, CatalogueTold, timeout_s=TELLING_S
                )
            except Weather as error:
                told[one.peer] = Told(one.peer, one.name, None, str(error))
            else:
                told[one.peer] = Told(one.peer, one.name, models)

        async with trio.open_nursery() as nursery:
            for one in peers:
                nursery.start_soon(ask, one)
        return tuple(told[one.peer] for one in peers)

    async def preview(self, asked: PreviewsAsked, *, on: PeerId | None) -> tuple[str, Previews]:
        """In which ways a model could be split, and on whose word.

        Raises:
            RequestRefusedError: `no_peer`, nobody splits models; or what the peer `on` said.
            RequestFailedError, PeerUnreachableError: as a request.
        """

        async def ask(one: PeerFacts) -> Previews:
            return await self._mesh.request(
                one.peer, inference.PROTOCOL, asked, Previews, timeout_s=asked.remaining_s
            )

        one, reply = await self._first(on, asked, ask)
        return one.name, reply

    async def change(
        self, asked: Changes, *, on: PeerId | None, on_progress: OnProgress
    ) -> Changed:
        """Have a model fetched, loaded or removed, by the peer `on` or the first that will.

        Raises:
            RequestRefusedError: `no_peer`, all refused; or what the peer `on` said.
            RequestFailedError: it went wrong; `timeout`.
            PeerUnreachableError: the peer was lost meanwhile.
        """

        async def ask(one: PeerFacts) -> ModelReady | ModelGone:
            return await self._change_on(one, asked, on_progress)

        with trio.move_on_after(asked.remaining_s):
            one, reply = await self._first(on, asked, ask)
            return Changed(one.peer, one.name, reply)
        raise RequestFailedError("timeout", f"not done within {asked.remaining_s:.0f} s")

    async def fetch_on_demand(
        self, model: str, remaining_s: float, on_note: Callable[[str], None]
    ) -> bool:
        """Whether a peer whose owner allows that has fetched a model which nobody had."""
        told = False

        def on_progress(name: str, _step: ModelProgress) -> None:
            nonlocal told
            if not told:
                told = True
                on_note(f"no peer has {model}; {name} fetches it")

        with trio.move_on_after(remaining_s):
            while not self._is_known(model):
                pull = PullAsked(model=model, is_on_demand=True, remaining_s=remaining_s)
                try:
                    await self.change(pull, on=None, on_progress=on_progress)
                except Weather as error:
                    if not (isinstance(error, RequestRefusedError) and error.reason == "busy"):
                        log.info("not-fetched", model=model, why=str(error))
                        return False
                    # Somebody else's wish for it is being fulfilled.
                    await trio.sleep(error.retry_after_s or RETRY_AFTER_S)
                else:
                    return await self._becomes_known(model)
            return True
        return False

    async def _becomes_known(self, model: str) -> bool:
        """News of what a peer has may come after its word that it has it."""
        for _ in range(NEWS_LOOKS):
            if self._is_known(model):
                return True
            await trio.sleep(NEWS_S / NEWS_LOOKS)
        return False

    def _is_known(self, model: str) -> bool:
        return self._mesh.rank(Need("inference", model=model)).best is not None

    async def _change_on(
        self, one: PeerFacts, asked: Changes, on_progress: OnProgress
    ) -> ModelReady | ModelGone:
        async with self._mesh.converse(one.peer, inference.PROTOCOL, asked) as conversation:
            while True:
                match message := await conversation.receive():
                    case ModelProgress():
                        on_progress(one.name, message)
                    case ModelReady() | ModelGone():
                        return message
                    case _:
                        raise RemoteProtocolError(f"{message.KIND} in answer to {asked.KIND}")

    async def _first(
        self, on: PeerId | None, asked: Message, ask: Callable[[PeerFacts], Awaitable[T]]
    ) -> tuple[PeerFacts, T]:
        if on is not None:
            one = self._mesh.facts_of(on)
            return one, await ask(one)
        complaints: list[str] = []
        for one in order(self._mesh.facts()):
            try:
                return one, await ask(one)
            except RequestRefusedError as no:
                if no.reason not in PASSED_OVER:
                    raise
                complaints.append(f"{one.name}: {no.detail or no.reason}")
        what = "; ".join(complaints) or "no peer runs models"
        raise RequestRefusedError("no_peer", f"no peer {_DOES[asked.KIND]}: {what}")
