"""Telling people that two machines use one identity. What shows it is decided in `core.twins`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from kowalski.mesh.core import twins
from kowalski.protocol.ids import Address, PeerId

log = structlog.get_logger(__name__)

ROTATE = "stop that node and run `kowalski-node identity rotate` there"


class TwinWatch:
    """`addresses` are ours, as they are now. `ask` has a peer prove itself again, see `met`."""

    def __init__(
        self,
        me: PeerId,
        addresses: Callable[[], tuple[Address, ...]],
        *,
        ask: Callable[[PeerId], Awaitable[None]],
        nursery: trio.Nursery,
        params: twins.Params | None = None,
    ) -> None:
        self._me = me
        self._addresses = addresses
        self._ask = ask
        self._nursery = nursery
        self._params = params or twins.Params()
        self._state = twins.Twins(me, trio.current_time(), self._params)
        self._told: set[PeerId] = set()
        self._asking: set[PeerId] = set()

    def announced(self, addresses: tuple[Address, ...]) -> None:
        """Somebody announces our peer id under another name than ours."""
        if set(addresses) & set(self._addresses()):
            return  # ourselves, from before a restart
        self._hear(self._me, twins.Announced(addresses))

    def met(self, peer: PeerId, boot: str, addresses: tuple[Address, ...]) -> None:
        """It has proven itself on a connection.

        Asked again somewhat later, a peer that was restarted names the same boot, on a connection
        that is the only one. Of twins the first one answers, on the connection that is older.
        """
        now = self._hear(peer, twins.BootHeard(peer, boot, None, addresses))
        if twins.has_another_boot(self._state, peer, now) and peer not in self._asking:
            self._asking.add(peer)
            self._nursery.start_soon(self._ask_again, peer)

    async def _ask_again(self, peer: PeerId) -> None:
        await trio.sleep(self._params.straggler_s + 1.0)
        self._asking.discard(peer)
        await self._ask(peer)

    def heard(self, peer: PeerId, boot: str, sequence: int) -> None:
        """It has signed a message that we heard, from whomever."""
        self._hear(peer, twins.BootHeard(peer, boot, sequence))

    def _hear(self, peer: PeerId, event: twins.Event) -> float:
        now = trio.current_time()
        twins.step(self._state, event, now)
        if not self._is_used_twice(peer, now):
            self._told.discard(peer)
        elif peer not in self._told:
            self._told.add(peer)
            log.error("identity-used-twice", peer=peer, warning=self.warning(peer))
        return now

    def _is_used_twice(self, peer: PeerId, now: float) -> bool:
        if peer == self._me:
            return twins.own_twin(self._state, now) is not None
        return twins.twin_peers(self._state, peer, now) is not None

    def warning(self, peer: PeerId) -> str:
        """In words for people; empty where all is well."""
        now = trio.current_time()
        if peer != self._me:
            found = twins.twin_peers(self._state, peer, now)
            where = f" (probably at {_at(found.later)})" if found and found.later else ""
            return f"two machines use its identity; find the copy{where}: {ROTATE}" if found else ""
        ours = twins.own_twin(self._state, now)
        if ours is None:
            return ""
        which = (
            "this one started later, so it is probably the copy: stop it and run "
            "`kowalski-node identity rotate` here"
            if ours.are_we_later
            else f"the other started later, so it is probably the copy: {ROTATE}"
        )
        return f"another machine at {_at(ours.addresses)} uses the identity of this node; {which}"

    def warnings(self) -> dict[PeerId, str]:
        """By whose identity it is: ours first."""
        found = {peer: self.warning(peer) for peer in (self._me, *self._state.peers)}
        return {peer: warning for peer, warning in found.items() if warning}


def _at(addresses: tuple[Address, ...]) -> str:
    """The hosts, without the ports."""
    return " or ".join(dict.fromkeys(address.split("/")[2] for address in addresses))
