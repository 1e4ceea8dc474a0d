"""Dialling, proving and hanging up as `core.connectivity` says: the shell around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

from kowalski.mesh.admission import MEMBERSHIP_PROTOCOL, MembershipError
from kowalski.mesh.conversation import Asker
from kowalski.mesh.core import connectivity
from kowalski.mesh.core.connectivity import (
    Connectivity,
    MemberConnected,
    MemberDisconnected,
    Peer,
)
from kowalski.mesh.core.nearness import nearest_first
from kowalski.mesh.driver import Driver
from kowalski.mesh.interfaces import own_networks
from kowalski.mesh.transport import Connected, Transport
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import Address, MeshId, PeerId
from kowalski.protocol.messages.membership import RoundTrip

log = structlog.get_logger(__name__)

DIALS_AT_A_TIME = 8
HEARSAY_DIALS_AT_A_TIME = 4
"""Beside those, to peers that were merely announced: there may be hundreds that nobody is, and each
takes as long to find that out as is waited for an answer."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    dial_s: float = 3.0
    membership_s: float = 5.0
    telemetry_tick_s: float = 0.5


class Connections:
    """`ask` has a peer prove its membership; it raises as `Admission.ask` does.

    `patience_s`: how long whoever others suspect has to answer us, as a probe would have now.
    """

    def __init__(
        self,
        transport: Transport,
        mesh: MeshId,
        *,
        ask: Callable[[PeerId, float], Awaitable[None]],
        tell: Callable[[MemberConnected | MemberDisconnected], None],
        asker: Asker,
        nursery: trio.Nursery,
        params: connectivity.Params,
        timeouts: Timeouts,
        patience_s: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._ask = ask
        self._tell = tell
        self._asker = asker
        self._nursery = nursery
        self._timeouts = timeouts
        self._patience_s = patience_s
        self._dials = trio.CapacityLimiter(DIALS_AT_A_TIME)
        self._hearsay_dials = trio.CapacityLimiter(HEARSAY_DIALS_AT_A_TIME)
        self._silent: frozenset[PeerId] = frozenset()
        self._heeded: Connectivity | None = None
        """The state of which `_silent` is."""
        self._driver: Driver[Connectivity, connectivity.Event, connectivity.Effect] = Driver(
            Connectivity(transport.peer, mesh, params),
            step=connectivity.step,
            wake_at=connectivity.wake_at,
            time_passed=connectivity.TimePassed(),
            perform=self._perform,
        )

    @property
    def state(self) -> Connectivity:
        return self._driver.state

    @property
    def members(self) -> dict[PeerId, tuple[Address, ...]]:
        """Those that are here, and where."""
        return {peer: self.state.peers[peer].addresses for peer in self.state.members}

    def peer(self, peer: PeerId) -> Peer:
        """What we know of it; of one that was forgotten, that it is absent."""
        return self.state.peers.get(peer) or Peer(peer)

    def handle(self, event: connectivity.Event) -> None:
        """Tell the machine what happened."""
        self._driver.handle(event)
        self._note_silence()

    def hear(self, sign: connectivity.Answered | connectivity.Spoke) -> None:
        """Tell the machine of a sign of life that it waits for; there is one for every message."""
        if self.peer(sign.peer).is_waited_for:
            self.handle(sign)

    def _note_silence(self) -> None:
        """Say of whom it is connected to that it sends nothing there, and that it does again."""
        state = self.state
        if state is self._heeded:
            return
        self._heeded, silent = state, state.silent
        for peer in silent - self._silent:
            log.info("unroutable", peer=peer, why=state.peers[peer].why_not)
        for peer in self._silent - silent:
            if state.is_routable(peer):
                log.info("routable", peer=peer)
        self._silent = silent

    async def run(self) -> None:
        """Keep the machine's time, and follow the transport, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._driver.run)
            nursery.start_soon(self._follow)
            for peer in self._transport.connections:
                self.handle(connectivity.ConnectionOpened(peer))

    async def _follow(self) -> None:
        async for event in self._transport.connection_events:
            if isinstance(event, Connected):
                self.handle(connectivity.ConnectionOpened(event.peer))
            else:
                self.handle(connectivity.ConnectionClosed(event.peer))

    # --- performing what the machine decides ----------------------------------------------------

    def _perform(self, effect: connectivity.Effect) -> None:
        match effect:
            case connectivity.Dial():
                self._nursery.start_soon(self._dial, effect)
            case connectivity.AskMembership(peer=peer):
                self._nursery.start_soon(self.ask_membership, peer)
            case connectivity.Verify(peer=peer):
                self._nursery.start_soon(self._verify, peer)
            case connectivity.HangUp(peer=peer, why=why):
                log.info("hang-up", peer=peer, why=why)
                self._nursery.start_soon(self._transport.disconnect, peer)
            case MemberConnected(peer=peer):
                self._transport.admit(peer)
                log.info("member-connected", peer=peer)
                self._tell(effect)
            case MemberDisconnected(peer=peer):
                self._transport.dismiss(peer)
                log.info("member-disconnected", peer=peer)
                self._tell(effect)

    async def _dial(self, dial: connectivity.Dial) -> None:
        complaint = "no address"
        # One alone needs no choice, and looking at the interfaces takes a millisecond.
        networks = own_networks() if len(dial.addresses) > 1 else ()
        turns = self._dials if dial.is_vouched else self._hearsay_dials
        for address in nearest_first(dial.addresses, networks):
            try:
                async with turns:
                    await self._transport.connect(
                        dial.peer, address, timeout_s=self._timeouts.dial_s
                    )
            except PeerUnreachableError as error:
                told = str(error)
                complaint = told if address in told else f"{address}: {told}"
            else:
                # Unless it was lost again, and told of, before this task came to run.
                if dial.peer in self._transport.connections:
                    self.handle(connectivity.Reached(dial.peer, address))
                    self.handle(connectivity.ConnectionOpened(dial.peer))
                    return
                complaint = f"{address}: it hung up"
        self.handle(connectivity.DialFailed(dial.peer, complaint))

    async def ask_membership(self, peer: PeerId) -> None:
        """Have a connected peer prove itself, and take what comes of it for an event."""
        timeout_s = self._timeouts.membership_s
        try:
            with trio.move_on_after(timeout_s) as patience:
                await self._ask(peer, timeout_s)
            if patience.cancelled_caught:
                self.handle(connectivity.AskingFailed(peer, "it did not answer"))
        except MembershipError as no:
            self.handle(connectivity.MembershipRefused(peer, str(no)))
        except (PeerUnreachableError, RemoteProtocolError, RequestFailedError) as weather:
            self.handle(connectivity.AskingFailed(peer, str(weather)))

    async def _verify(self, peer: PeerId) -> None:
        try:
            await self._asker.request(
                peer,
                MEMBERSHIP_PROTOCOL,
                RoundTrip(),
                RoundTrip,
                timeout_s=self._patience_s(),
            )
        except (
            PeerUnreachableError,
            RemoteProtocolError,
            RequestFailedError,
            RequestRefusedError,
        ) as missed:
            log.debug("not-verified", peer=peer, why=str(missed))
            self.handle(connectivity.Missed(peer))
        else:
            self.handle(connectivity.Answered(peer))
