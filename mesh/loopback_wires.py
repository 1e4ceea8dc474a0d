"""What lies between the peers of a loopback network: how long things take, and what breaks.

`Wires` are quiet: one latency for all, gossip that may get lost, links that can be cut. A simulator
has worse ones. Whoever changes a wire says nothing to its users: they notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import trio

from kowalski.protocol.ids import PeerId

HALF_OPEN_S = 45.0
"""How long py-libp2p holds on to a connection over which nothing comes any more (measured)."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network does to everybody. Drawn from the network's seed."""

    latency_s: float = 0.001
    jitter_s: float = 0.0
    gossip_loss: float = 0.0


class Link(Enum):
    """One direction between two peers."""

    OPEN = auto()
    CLOSED = auto()
    """Whoever tries is told at once, as by a router that rejects."""
    SILENT = auto()
    """What is sent is kept, and comes when the link opens; nobody is told."""


Alarm = Callable[[float, Callable[[], None]], None]
"""Calls something at a time of the wires, from outside of all tasks."""


class Wires:
    """All wires of a network."""

    alarm: Alarm | None = None
    """What a clock offers that is the wires' own: without it a task waits for what arrives."""

    def __init__(self, seed: int = 0, weather: Weather | None = None) -> None:
        self.weather = weather or Weather()
        self.random = random.Random(seed)  # noqa: S311 weather, not secrets
        self._closed: set[frozenset[PeerId]] = set()

    def now(self) -> float:
        """The network's own time, whoever asks."""
        return trio.current_time()

    def link(self, sender: PeerId, receiver: PeerId) -> Link:
        is_closed = frozenset((sender, receiver)) in self._closed
        return Link.CLOSED if is_closed else Link.OPEN

    def close(self, one: PeerId, other: PeerId) -> None:
        self._closed.add(frozenset((one, other)))

    def open(self, one: PeerId, other: PeerId) -> None:
        self._closed.discard(frozenset((one, other)))

    def travel_s(self, sender: PeerId, receiver: PeerId, size_bytes: int) -> float:
        """Seconds from one peer to the other; what overtakes waits for what was sent before."""
        del sender, receiver, size_bytes
        return self.weather.latency_s + self.random.random() * self.weather.jitter_s

    def is_gossip_lost(self, sender: PeerId, receiver: PeerId) -> bool:
        """Whether one neighbour fails to pass one message on to the other."""
        del sender, receiver
        return self.random.random() < self.weather.gossip_loss

    def gossip_delays_s(self, receiver: PeerId) -> tuple[float, ...]:
        """How much later than it could each copy of one message is heard; usually one, at once."""
        del receiver
        return (0.0,)

    def awake_at(self, receiver: PeerId) -> float:
        """When the peer can hear something next; later than now where it stands still."""
        del receiver
        return self.now()
