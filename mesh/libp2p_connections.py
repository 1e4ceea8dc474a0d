"""Who is connected, as the one place that knows: py-libp2p's notices turned into our events."""

# py-libp2p annotates interfaces that lack half of what its classes have, and its objects are
# extended here.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import structlog
import trio
from libp2p.abc import INetStream, INetwork, INotifee
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from kowalski.mesh.libp2p_streams import WEATHER
from kowalski.mesh.transport import Connected, ConnectionEvent, Disconnected
from kowalski.protocol.ids import PeerId

log = structlog.get_logger(__name__)

# A reader that falls this far behind delays new connections; no event is ever lost.
EVENTS_MAX = 1024
CLOSE_S = 2.0


class Connections(INotifee):  # type: ignore[misc]
    """Open connections by peer. `nursery` watches each of them for its end.

    `on_fewer` hears of a peer that lost one connection and has another, `on_none` of one that lost
    its last.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        on_fewer: Callable[[ID], None],
        on_none: Callable[[PeerId], None],
    ) -> None:
        self._nursery = nursery
        self._on_fewer = on_fewer
        self._on_none = on_none
        self._open: dict[PeerId, list[SwarmConn]] = {}
        self._send, self.events = trio.open_memory_channel[ConnectionEvent](EVENTS_MAX)

    @property
    def peers(self) -> frozenset[PeerId]:
        return frozenset(self._open)

    def to(self, peer: PeerId) -> SwarmConn | None:
        """The oldest open connection."""
        return self._open[peer][0] if peer in self._open else None

    async def close(self, peer: PeerId) -> None:
        """Close all connections to `peer`; returns when it counts as disconnected."""
        async with trio.open_nursery() as nursery:
            for connection in self._open.get(peer, ()):
                nursery.start_soon(self._close_one, connection)

    async def close_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for peer in self.peers:
                nursery.start_soon(self.close, peer)

    async def _close_one(self, connection: SwarmConn) -> None:
        # A close that is cancelled half way leaves the connection listed for ever, so it goes on
        # in the background when nobody waits for it any more.
        self._nursery.start_soon(_close_quietly, connection)
        with trio.move_on_after(CLOSE_S):
            await connection.muxed_conn.event_shutting_down.wait()

    async def connected(self, network: INetwork, conn: SwarmConn) -> None:  # noqa: ARG002 theirs
        if conn.is_closed or conn.muxed_conn.event_shutting_down.is_set():
            return
        peer = PeerId(str(conn.muxed_conn.peer_id))
        is_first = peer not in self._open
        self._open.setdefault(peer, []).append(conn)
        self._nursery.start_soon(self._watch, peer, conn)
        if is_first:
            await self._send.send(Connected(peer))

    async def _watch(self, peer: PeerId, conn: SwarmConn) -> None:
        # Earlier by the two tenths of a second that py-libp2p takes to tidy up before it says so.
        await conn.muxed_conn.event_shutting_down.wait()
        self._open[peer].remove(conn)
        if self._open[peer]:
            self._on_fewer(conn.muxed_conn.peer_id)
        else:
            del self._open[peer]
            self._on_none(peer)
            await self._send.send(Disconnected(peer))

    async def disconnected(self, network: INetwork, conn: SwarmConn) -> None: ...
    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...


async def _close_quietly(connection: SwarmConn) -> None:
    with suppress(*WEATHER):
        await connection.close()
