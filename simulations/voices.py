"""How a node's words differ from what its code says: lies, silence, words of a later version.

Laid around its transport. What a voice does is done to frames that are well formed, by a peer that
is a member: nobody can tell from the envelope.
"""

from __future__ import annotations

import random
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
from simulations.frames import Alter, altered, kind_of
from simulations.nowhere import lead_nowhere

Lie = Callable[[dict[str, Any]], dict[str, Any]]
"""What becomes of the values that a node gossips of itself."""

HOT_KINDS = frozenset({"telemetry/hot", "telemetry/profile"})
LEADING_PROTOCOL = "/kowalski/task/1"


@dataclass(slots=True)
class Voice:
    """Of one node, now. `lies` change what it gossips of itself."""

    is_newer: bool = False
    is_quiet: int = 0
    lies: list[Lie] = field(default_factory=list)
    disorder: Disorder | None = None
    misled: int = 0
    """Dials that are under way to where nobody is."""

    def gossip(self, data: bytes) -> bytes | None:
        if self.is_quiet:
            return None
        for lie in self.lies:
            data = altered(data, _hot(lie))
        return altered(data, _with_news) if self.is_newer else data

    def frames(self, frame: bytes, held: list[bytes]) -> list[bytes]:
        """What is said in place of a frame; `held` is kept for the same stream's next."""
        frame = altered(frame, _with_news) if self.is_newer else frame
        return [frame] if self.disorder is None else self.disorder.frames(frame, held)

    @property
    def is_plain(self) -> bool:
        """Whether it says on streams what the code says."""
        return not self.is_newer and self.disorder is None


class Disorder:
    """What a coordinator with a bug makes of the entries that it offers.

    Some twice, some late or never, some first as of a term that is not this one.
    """

    def __init__(self, seed: str) -> None:
        self._dice = random.Random(seed)

    def frames(self, frame: bytes, held: list[bytes]) -> list[bytes]:
        if kind_of(frame) != "task/entry":
            return [frame]
        late, held[:] = held[:], []
        match self._dice.choice(("as it is", "twice", "late", "never", "wrong term", "wrong term")):
            case "twice":
                return [frame, *late, frame]
            case "late":
                held.append(frame)
                return late
            case "never":
                return late
            case "wrong term":
                return [altered(frame, _of_another_term), frame, *late]
            case _:
                return [frame, *late]


def _of_another_term(_kind: str, body: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = body["entry"]
    term = entry["term"]
    return {**body, "entry": {**entry, "term": term - 1 if term > 1 else term + 1}}


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
        if address.startswith("/memory/"):
            await self._transport.connect(peer, address, timeout_s=timeout_s)
            return
        self._voice.misled += 1
        try:
            await lead_nowhere(address, timeout_s=timeout_s)
        finally:
            self._voice.misled -= 1

    async def finds(self, peer: PeerId, address: Address, *, timeout_s: float) -> bool:
        return await self._transport.finds(peer, address, timeout_s=timeout_s)

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

        may_differ = self._voice.is_newer or protocol == LEADING_PROTOCOL
        served = spoken if may_differ else handler
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
        self._held: list[bytes] = []

    @property
    def peer(self) -> PeerId:
        return self._stream.peer

    async def send(self, data: bytes) -> None:
        if not self._voice.is_plain:
            with suppress(RemoteProtocolError):
                data = b"".join(
                    codec.seal(replace(one, frame=frame))
                    for one in self._reader.feed(data)
                    for frame in self._voice.frames(one.frame, self._held)
                )
        if data:
            await self._stream.send(data)
        else:
            await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        return await self._stream.receive()

    async def finish(self) -> None:
        await self._stream.finish()

    async def reset(self) -> None:
        await self._stream.reset()
