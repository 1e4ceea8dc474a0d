"""Brings what is sent over a loopback network to where it goes, in the time that its wires take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf

import trio

from kowalski.mesh.loopback_wires import Link, Wires
from kowalski.protocol.ids import PeerId

Deliver = Callable[[], None]


class Carrier:
    """Keeps order in each direction between two peers. `on_held`: a link has fallen silent."""

    def __init__(self, wires: Wires, on_held: Callable[[PeerId, PeerId], None]) -> None:
        self.wires = wires
        self._on_held = on_held
        self._order = count()
        self._coming: list[tuple[float, int, PeerId, Deliver]] = []
        """When it arrives, where, and what it does there."""
        self._latest: dict[tuple[PeerId, PeerId], float] = {}
        self._held: dict[tuple[PeerId, PeerId], deque[Deliver]] = {}
        """By sender and receiver: what waits for their link to open again."""
        self._wakes_at = inf
        self._has_news = trio.Event()

    def post(self, sender: PeerId, receiver: PeerId, size_bytes: int, deliver: Deliver) -> None:
        """Carry so many bytes; `deliver` is called when they are there."""
        pair = (sender, receiver)
        if pair in self._held:
            self._held[pair].append(deliver)
            return
        if self.wires.link(sender, receiver) is Link.SILENT:
            self._held[pair] = deque([deliver])
            self._on_held(sender, receiver)
            return
        arrival = self.wires.now() + self.wires.travel_s(sender, receiver, size_bytes)
        # One connection carries all streams: what overtakes waits for what was sent before it.
        arrival = self._latest[pair] = max(arrival, self._latest.get(pair, -inf))
        self.schedule(arrival, receiver, deliver)

    def release(self, one: PeerId, other: PeerId) -> None:
        """Send what waits for the link between two peers, where it is silent no more."""
        for pair in ((one, other), (other, one)):
            if pair in self._held and self.wires.link(*pair) is not Link.SILENT:
                for deliver in self._held.pop(pair):
                    self.post(*pair, 0, deliver)

    def schedule(self, at: float, receiver: PeerId, deliver: Deliver) -> None:
        """Call `deliver` at a time of the wires, or later if the receiver stands still then."""
        heappush(self._coming, (at, next(self._order), receiver, deliver))
        if at < self._wakes_at:
            self._has_news.set()
            self._set_alarm(at)

    async def carry(self) -> None:
        """Let everything arrive, until cancelled."""
        if self.wires.alarm is not None:
            await trio.sleep_forever()
        while True:
            self._deliver_due()
            self._has_news = trio.Event()
            self._wakes_at = self._coming[0][0] if self._coming else inf
            with trio.move_on_at(self._wakes_at):
                await self._has_news.wait()
            self._wakes_at = -inf

    def _deliver_due(self) -> None:
        wires = self.wires
        while self._coming and self._coming[0][0] <= wires.now():
            _, order, receiver, deliver = heappop(self._coming)
            awake_at = wires.awake_at(receiver)
            if awake_at > wires.now():
                heappush(self._coming, (awake_at, order, receiver, deliver))
            else:
                deliver()

    def _set_alarm(self, at: float) -> None:
        if self.wires.alarm is not None:
            self._wakes_at = at
            self.wires.alarm(at, self._on_alarm)

    def _on_alarm(self) -> None:
        if self.wires.now() < self._wakes_at:
            return  # an earlier one came between
        self._wakes_at = -inf
        self._deliver_due()
        self._wakes_at = inf
        if self._coming:
            self._set_alarm(self._coming[0][0])
