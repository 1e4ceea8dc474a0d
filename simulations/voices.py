"""How a node's words differ from what its code says: lies, silence, words of a later version.

Laid around its transport. What a voice does is done to frames that are well formed, by a peer that
is a member: nobody can tell from the envelope.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from kowalski.mesh.loopback_peer import LoopbackTransport
from kowalski.mesh.transport import ConnectionEvent, Gossip, Stream, StreamHandler
from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import Address, PeerId, Topic
from simulations.frames import Alter, altered

Lie = Callable[[dict[str, Any]], dict[str, Any]]
"""What becomes of the values that a node gossips of itself."""

HOT_KINDS = frozenset({"telemetry/hot", "telemetry/profile"})


@dataclass(slots=True)
class Voice:
    """Of one node, now. `lies` change what it gossips of itself."""

    is_newer: bool = False
    is_quiet: int = 0
    lies: list[Lie] = field(default_factory=list)

    def gossip(self, data: bytes) -> bytes | None:
        if self.is_quiet:
            return None
        for lie in self.lies:
            data = altered(data, _hot(lie))
        return altered(data, _with_news) if self.is_newer else data

    def frame(self, frame: bytes) -> bytes:
        return altered(frame, _with_news) if self.is_newer else frame


def _with_news(_kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """Optional fields of a version to come."""
    return {**body, "x_newer": {"depth": [1, 2.5, "three"], "since": 2}}


def _hot(lie: Lie) -> Alter:
    def alter(kind: str, body: dict[str, Any]) -> dict[str, Any]:
        if kind not in HOT_KINDS:
            return body
        return {**body, "hot": lie(body.get("hot", {}))}

    return alter


# --- lies ---------------------------------------------------------------------------------------


def idle(hot: dict[str, Any]) -> dict[str, Any]:
    return {**hot, **_occupied(0, 64), "memory_used": 0.0, "cpu_used": 0.0}


def busy(hot: dict[str, Any]) -> dict[str, Any]:
    return {**hot, **_occupied(64, 1), "memory_used": 1.0, "cpu_used": 1.0}


def fast(hot: dict[str, Any]) -> dict[str, Any]:
    return {**hot, "tokens_per_s": {"m": 99_999.0}}


def odd(hot: dict[str, Any]) -> dict[str, Any]:
    return {
        **hot,
        "memory_used": float("nan"),
        "cpu_used": float("-inf"),
        "tokens_per_s": {"m": 1e300},
    }


def _occupied(running: int, slots: int) -> dict[str, Any]:
    at = {"running": running, "queued": 0, "slots": slots}
    return {"repl": at, "inference": at, "folding": at}


# --- around a transport -------------------------------------------------------------------------


class Speaking:
    """A `Transport` whose words go through a voice."""

    def __init__(self, transport: LoopbackTransport, voice: Voice) -> None:
        self._transport = transport
        self._voice = voice

    @property
    def peer(self) -> PeerId:
        return self._transport.peer

    @property
    def addresses(self) -> tuple[Address, ...]:
        return self._transport.addresses

    @property
    def connections(self) -> frozenset[PeerId]:
        return self._transport.connections

    @property
    def connection_events(self) -> trio.MemoryReceiveChannel[ConnectionEvent]:
        return self._transport.connection_events

    async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
        await self._transport.connect(peer, address, timeout_s=timeout_s)

    async def disconnect(self, peer: PeerId) -> None:
        await self._transport.disconnect(peer)

    async def open_stream(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Stream:
        stream = await self._transport.open_stream(peer, protocol, timeout_s=timeout_s)
        return _SpokenStream(stream, self._voice) if self._voice.is_newer else stream

    def admit(self, peer: PeerId) -> None:
        self._transport.admit(peer)

    def dismiss(self, peer: PeerId) -> None:
        self._transport.dismiss(peer)

    def serve(self, protocol: str, handler: StreamHandler, *, to_strangers: bool = False) -> None:
        async def spoken(stream: Stream) -> None:
            await handler(_SpokenStream(stream, self._voice))

        served = spoken if self._voice.is_newer else handler
        self._transport.serve(protocol, served, to_strangers=to_strangers)

    async def subscribe(
        self, topic: Topic, *, admits: Callable[[PeerId], bool]
    ) -> trio.MemoryReceiveChannel[Gossip]:
        return await self._transport.subscribe(topic, admits=admits)

    async def publish(self, topic: Topic, data: bytes) -> None:
        said = self._voice.gossip(data)
        if said is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._transport.publish(topic, said)


class _SpokenStream:
    """A stream whose frames are altered on their way out; what is no envelope goes as it is."""

    def __init__(self, stream: Stream, voice: Voice) -> None:
        self._stream = stream
        self._voice = voice
        self._reader = codec.EnvelopeReader()

    @property
    def peer(self) -> PeerId:
        return self._stream.peer

    async def send(self, data: bytes) -> None:
        with suppress(RemoteProtocolError):
            envelopes = self._reader.feed(data)
            data = b"".join(
                codec.seal(replace(one, frame=self._voice.frame(one.frame))) for one in envelopes
            )
        await self._stream.send(data)

    async def receive(self) -> bytes:
        return await self._stream.receive()

    async def finish(self) -> None:
        await self._stream.finish()

    async def reset(self) -> None:
        await self._stream.reset()
