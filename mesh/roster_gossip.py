"""Telling every member who is one no more: when something changes, and once a minute."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from kowalski.mesh.certificate_book import CertificateBook
from kowalski.mesh.gossip_reading import message_of
from kowalski.mesh.transport import Gossip, Transport
from kowalski.protocol import codec
from kowalski.protocol.ids import PeerId, Topic
from kowalski.protocol.limits import GOSSIP_BYTES_MAX
from kowalski.protocol.messages.trust import Roster, SignedRevocation

log = structlog.get_logger(__name__)

ANNOUNCE_S = 60.0


class RosterGossip:
    """`on_revoked` hears of every peer that was found to be revoked, once."""

    def __init__(
        self,
        transport: Transport,
        topic: Topic,
        book: CertificateBook,
        *,
        on_revoked: Callable[[PeerId], None],
    ) -> None:
        self._transport = transport
        self._topic = topic
        self._book = book
        self._on_revoked = on_revoked
        self._changed = trio.Event()

    def hear(self, roster: Roster | None) -> None:
        """Take in what somebody told us; what is news is passed on."""
        before = self._book.roster_version
        revoked = self._book.hear_roster(roster) if roster is not None else ()
        for peer in revoked:
            log.warning("revoked", peer=peer, roster_version=self._book.roster_version)
            self._on_revoked(peer)
        if self._book.roster_version != before:
            self._changed.set()

    def revoke(self, signed: SignedRevocation) -> None:
        """Make our own revocation count, here and everywhere."""
        self.hear(Roster(revocations=(signed,)))

    async def listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        heard = await self._transport.subscribe(self._topic, admits=self._book.admits)
        task_status.started()
        async for gossip in heard:
            self._hear_gossip(gossip)

    def _hear_gossip(self, gossip: Gossip) -> None:
        message = message_of(gossip)
        if isinstance(message, Roster):
            self.hear(message)

    async def announce(self) -> None:
        """Gossip the roster when it changes and every minute, until cancelled."""
        while True:
            self._changed = trio.Event()
            for roster in portions(self._book.roster):
                await self._transport.publish(self._topic, codec.encode(roster))
            with trio.move_on_after(ANNOUNCE_S):
                await self._changed.wait()


def portions(roster: Roster) -> list[Roster]:
    """The roster in messages that fit gossip; none where nobody is revoked."""
    portions: list[Roster] = []
    size = GOSSIP_BYTES_MAX
    for signed in roster.revocations:
        issuer_bytes = len(signed.issuer.frame) + 100 if signed.issuer else 0
        weight = len(signed.frame) + issuer_bytes + 200
        if size + weight > GOSSIP_BYTES_MAX:
            portions.append(Roster())
            size = 0
        size += weight
        portions[-1] = Roster(revocations=(*portions[-1].revocations, signed))
    return portions
