"""The seam between the mesh and the network: streams, gossip, connection events.

Two implementations: `libp2p_transport` for real networks, `loopback_transport` for virtual time.
A transport moves bytes and knows which peer, proven by its key, is at the other end. Everybody can
make a key: a peer is a stranger until somebody above says that it is admitted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import trio

from kowalski.protocol import codec
from kowalski.protocol.ids import Address, PeerId, Topic
from kowalski.protocol.messages.base import Message


@dataclass(frozen=True, slots=True)
class Connected:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Disconnected:
    peer: PeerId


ConnectionEvent = Connected | Disconnected


@dataclass(frozen=True)  # no slots: `message` is kept
class Gossip:
    """One message heard on a topic; the transport has verified that `origin` signed it."""

    origin: PeerId
    data: bytes

    @cached_property
    def message(self) -> Message:
        """What it says, decoded once however many read it. Raises RemoteProtocolError."""
        return codec.decode(self.data)


class Stream(Protocol):
    """An ordered, reliable byte stream to one peer, until either side resets it."""

    @property
    def peer(self) -> PeerId: ...

    async def send(self, data: bytes) -> None:
        """Write all of `data`. Safe to cancel: the connection stays usable for other streams.

        One task at a time may send.

        Raises:
            PeerUnreachableError: the stream or the connection is gone, or the peer stopped reading
                for longer than the transport's write timeout.
        """
        ...

    async def receive(self) -> bytes:
        """Some bytes, as they come, at most 64 KiB; `b""` when the peer finished its side.

        Raises:
            PeerUnreachableError: the stream was reset or the connection is gone.
        """
        ...

    async def finish(self) -> None:
        """Say that nothing more will be sent; receiving goes on. Never raises."""
        ...

    async def reset(self) -> None:
        """Drop the stream both ways, at once. Never raises, and may be called twice."""
        ...


StreamHandler = Callable[[Stream], Awaitable[None]]
"""Serves one inbound stream. When it returns the stream is closed; when it raises, it is reset."""


class Transport(Protocol):
    @property
    def peer(self) -> PeerId:
        """Who we are."""
        ...

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others on the same network can dial us; concrete, never 0.0.0.0."""
        ...

    @property
    def connections(self) -> frozenset[PeerId]:
        """Peers with at least one open connection, now."""
        ...

    @property
    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        """Every opening of a peer's first connection and closing of its last, in order."""
        ...

    async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
        """Dial `peer` at one address; returns at once if a connection is open already.

        Raises:
            PeerUnreachableError: nobody there, or somebody whose key is not `peer`'s.
        """
        ...

    async def finds(self, peer: PeerId, address: Address, *, timeout_s: float) -> bool:
        """Whether `peer` proves at `address` to be there; connected to it or not, nothing changes.

        A connection of its own, ended after the handshake. Never raises.
        """
        ...

    async def disconnect(self, peer: PeerId) -> None:
        """Close every connection to `peer`. Never raises."""
        ...

    async def open_stream(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Stream:
        """Open a stream on an existing connection.

        Raises:
            PeerUnreachableError: no connection, no answer in time, or the peer does not speak
                `protocol`.
        """
        ...

    def admit(self, peer: PeerId) -> None:
        """Gossip with `peer` and serve it all protocols, until it is dismissed or disconnected.

        Until then gossip goes neither to it nor comes from it, and it can open streams of those
        protocols alone that are served to strangers; others look unknown. A stream that it asks
        for a little early waits for its admission: of two peers one admits the other first.
        """
        ...

    def dismiss(self, peer: PeerId) -> None:
        """Take back `admit`. What it has open beyond what strangers may have is reset."""
        ...

    def serve(self, protocol: str, handler: StreamHandler, *, to_strangers: bool = False) -> None:
        """Answer inbound streams of `protocol` with `handler` from now on, one task each."""
        ...

    async def subscribe(
        self, topic: Topic, *, admits: Callable[[PeerId], bool]
    ) -> trio.MemoryReceiveChannel[Gossip]:
        """Hear a topic. A message whose origin is not admitted is neither decoded nor forwarded.

        The channel is bounded; when its reader is slow the oldest message is dropped.
        Our own messages are not heard.
        """
        ...

    async def publish(self, topic: Topic, data: bytes) -> None:
        """Gossip `data`, at most 32 KiB, signed with our key. Best effort: loss is no error."""
        ...
