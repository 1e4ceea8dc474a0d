"""Asking for offers: the shell of `mesh.core.offers`, which holds places and gives them back."""

from __future__ import annotations

from contextlib import suppress

import trio

from kowalski.mesh.core import offers
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.node.services.placement import PROTOCOL
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.placement import Offer, OfferAsked

EVENTS_MAX = 16
"""More than are ever asked for one piece of work."""


class AskingOffers:
    """For one piece of work. A place is held as long as its conversation lasts, in `nursery`."""

    def __init__(self, mesh: Mesh, nursery: trio.Nursery, asked: OfferAsked) -> None:
        self._mesh = mesh
        self._nursery = nursery
        self._asked = asked
        self._holds: dict[PeerId, trio.CancelScope] = {}
        self._heard_in, self._heard = trio.open_memory_channel[offers.Event](EVENTS_MAX)

    async def until_decided(
        self, begun: tuple[offers.Choosing, tuple[offers.Effect, ...]]
    ) -> tuple[offers.Choosing, offers.Take | offers.NobodyFree]:
        """Only the place that is taken is held afterwards: until `give_back`, or for its time."""
        taken: PeerId | None = None
        state, effects = begun
        try:
            while True:
                for effect in effects:
                    match effect:
                        case offers.AskOffers(peers=peers):
                            self._ask(peers)
                        case offers.GiveBack(peers=peers):
                            self.give_back(*peers)
                        case offers.Take(choice=choice):
                            taken = choice.peer
                            return state, effect
                        case offers.NobodyFree():
                            return state, effect
                event: offers.Event = offers.TimePassed()
                with trio.move_on_at(offers.wake_at(state)):
                    event = await self._heard.receive()
                state, effects = offers.step(state, event, trio.current_time())
        finally:
            self.give_back(*(peer for peer in self._holds if peer != taken))

    def give_back(self, *peers: PeerId) -> None:
        """Hold no place there any more."""
        for peer in peers:
            self._holds[peer].cancel()

    def _ask(self, peers: tuple[PeerId, ...]) -> None:
        for peer in peers:
            scope = self._holds[peer] = trio.CancelScope()
            self._nursery.start_soon(self._ask_one, peer, scope)

    async def _ask_one(self, peer: PeerId, scope: trio.CancelScope) -> None:
        """Ask, tell what came, and stay while the place is to be held."""
        with scope:
            try:
                async with self._mesh.converse(
                    peer, PROTOCOL, self._asked, open_timeout_s=offers.SILENCE_S_MAX
                ) as asking:
                    offer = await asking.receive()
                    if not isinstance(offer, Offer):
                        raise RemoteProtocolError(f"{offer.KIND} in answer to {OfferAsked.KIND}")
                    self._mesh.hear_reply(peer, offer.hot)
                    self._tell(offers.OfferHeard(peer, offer))
                    await trio.sleep(self._asked.reserve_s)
            except Weather as error:
                retry_after_s = (
                    error.retry_after_s if isinstance(error, RequestRefusedError) else None
                )
                refusal = offers.Refusal(str(error), retry_after_s)
                self._tell(offers.OfferRefused(peer, refusal))

    def _tell(self, event: offers.Event) -> None:
        with suppress(trio.WouldBlock, trio.BrokenResourceError):
            self._heard_in.send_nowait(event)
