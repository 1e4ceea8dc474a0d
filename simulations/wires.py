"""Wires that do to a network what weather, walls and routers do: all of it can change at any time.

A stream is reliable and ordered until it is reset, so a lost packet is a delay (TCP sends it again
after 0.2 s, 0.4 s, ...), and what is sent into silence waits there. Only gossip is lost, doubled
and turned round. Every wire has two directions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import inf

from kowalski.mesh.loopback_wires import Link, Weather, Wires
from kowalski.protocol.ids import PeerId
from simulations.virtual_time import JumpingClock, NodeTime

RETRANSMIT_S = 0.2
RETRANSMITS_MAX = 8

Pair = tuple[PeerId, PeerId]


@dataclass(frozen=True, slots=True)
class Gossiping:
    """What may happen to one message on its way to one peer, as chances between 0 and 1."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_s_max: float = 5.0
    replayed: float = 0.0
    replayed_s: float = 150.0
    """Later than gossipsub remembers what it has seen (120 s)."""


CALM = Gossiping()


@dataclass(slots=True)
class Storm:
    """What is wrong now. Counts, where several faults may overlap."""

    silent: dict[Pair, int] = field(default_factory=lambda: defaultdict(int))
    closed: dict[Pair, int] = field(default_factory=lambda: defaultdict(int))
    slow_s: dict[Pair, float] = field(default_factory=lambda: defaultdict(float))
    packet_loss: float = 0.0
    bytes_per_s: float = inf
    gossip: Gossiping = CALM
    usual_gossip: Gossiping = CALM
    """To which it returns after a fault."""


class StormyWires(Wires):
    """`grain_s`: arrivals are rounded up to it, so that many tasks wake at once: less work."""

    def __init__(
        self,
        clock: JumpingClock,
        *,
        seed: int = 0,
        weather: Weather | None = None,
        grain_s: float = 0,
    ) -> None:
        super().__init__(seed, weather)
        self.storm = Storm()
        self.times: dict[PeerId, NodeTime] = {}
        self._clock = clock
        self.alarm = clock.alarm
        self._grain_s = grain_s
        self._busy_until: dict[Pair, float] = {}

    def now(self) -> float:
        return self._clock.world_time

    def link(self, sender: PeerId, receiver: PeerId) -> Link:
        storm, pair = self.storm, (sender, receiver)
        if storm.silent and pair in storm.silent:
            return Link.SILENT
        if storm.closed and pair in storm.closed:
            return Link.CLOSED
        return super().link(sender, receiver)

    def travel_s(self, sender: PeerId, receiver: PeerId, size_bytes: int) -> float:
        storm, pair, now = self.storm, (sender, receiver), self._clock.world_time
        travel_s = super().travel_s(sender, receiver, size_bytes)
        if storm.slow_s:
            travel_s += storm.slow_s.get(pair, 0.0)
        if storm.packet_loss:
            travel_s += self._retransmits_s(storm.packet_loss)
        if storm.bytes_per_s < inf:
            free_at = max(now, self._busy_until.get(pair, 0.0)) + size_bytes / storm.bytes_per_s
            self._busy_until[pair] = free_at
            travel_s += free_at - now
        if self._grain_s:
            grains = -int(-(now + travel_s) // self._grain_s)
            travel_s = max(grains * self._grain_s - now, 0.0)
        return travel_s

    def _retransmits_s(self, loss: float) -> float:
        waited_s, wait_s = 0.0, RETRANSMIT_S
        for _ in range(RETRANSMITS_MAX):
            if self.random.random() >= loss:
                break
            waited_s += wait_s
            wait_s *= 2
        return waited_s

    def gossip_delays_s(self, receiver: PeerId) -> tuple[float, ...]:
        del receiver
        gossip, dice = self.storm.gossip, self.random.random
        if gossip == CALM:
            return (0.0,)
        if dice() < gossip.lost:
            return ()
        delays_s = [dice() * gossip.late_s_max if dice() < gossip.late else 0.0]
        if dice() < gossip.doubled:
            delays_s.append(dice() * 0.1)
        if dice() < gossip.replayed:
            delays_s.append(gossip.replayed_s * (1.0 + dice()))
        return tuple(delays_s)

    def awake_at(self, receiver: PeerId) -> float:
        time = self.times.get(receiver)
        return self._clock.world_time if time is None else time.frozen_until
