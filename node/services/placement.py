"""The room that tells other peers what this device would do for them, and when."""

from __future__ import annotations

from collections.abc import Callable

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Conversation
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.job import Job, job_of
from kowalski.node.services.gate import Gate, Resources
from kowalski.node.services.own_capacity import OwnCapacity
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.placement import Offer, OfferAsked
from kowalski.protocol.messages.telemetry import Hot
from kowalski.protocol.messages.trust import Role

PROTOCOL = "/kowalski/placement/1"
RESERVE_S_MAX = 5.0


def open_gate(
    own: OwnCapacity,
    mesh: Mesh,
    store: ContentStore,
    nursery: trio.Nursery,
    *,
    hot: Callable[[], Hot],
    askers: frozenset[Role],
    elsewhere: Callable[[Job], bool],
) -> Gate:
    """The door that all work of this device passes, and the room that says when it would."""
    gate = Gate(mesh.me, Resources(own.slots, own.speeds, elsewhere))
    nursery.start_soon(gate.run)
    offers = PlacementRoom(gate, store, why_not=own.why_not, hot=hot)
    mesh.serve(PROTOCOL, offers.answer, askers=askers)
    return gate


class PlacementRoom:
    """Serves `/kowalski/placement/1`. `why_not` says why a job cannot be done here at all."""

    def __init__(
        self,
        gate: Gate,
        store: ContentStore,
        *,
        why_not: Callable[[Job], str],
        hot: Callable[[], Hot],
    ) -> None:
        self._gate = gate
        self._store = store
        self._why_not = why_not
        self._hot = hot

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        if not isinstance(request, OfferAsked):
            raise RemoteProtocolError(f"{request.KIND} in a placement conversation")
        job = job_of(request)
        why_not = f"no work is called {request.kind}" if job is None else self._why_not(job)
        if job is None or why_not:
            raise RequestRefusedError("unsupported", why_not)
        reserve_s = min(request.reserve_s, RESERVE_S_MAX)
        promised = self._gate.offer(
            conversation.peer,
            job,
            request.claim,
            remaining_s=request.remaining_s,
            reserve_s=reserve_s,
        )
        held = tuple(
            at for at, name in enumerate(request.content) if self._store.path(name) is not None
        )
        hot = self._hot()
        offer = Offer(
            reservation=promised.reservation if reserve_s else None,
            wait_s=promised.wait_s,
            service_s=promised.cost.seconds,
            saved_s=promised.cost.saved_s,
            running=promised.occupancy.running,
            queued=promised.occupancy.queued,
            slots=promised.occupancy.slots,
            memory_used=hot.memory_used,
            tokens_per_s=hot.tokens_per_s.get(job.model) if job.model else None,
            cached_tokens=promised.cached_tokens,
            held=held,
            hot=hot,
        )
        if not reserve_s:
            return offer
        try:
            await conversation.send(offer)
            await trio.sleep(reserve_s)
        finally:
            self._gate.give_back(promised.reservation)
        return offer.model_copy(update={"reservation": None})
