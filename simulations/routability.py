"""Whom nodes send something, which each decides for itself, beside what the mesh thinks.

To each node of `Detectors` belongs the machine of its connections here, which asks for itself
whoever others suspect or the mesh has given up. Nobody dials or hangs up: members stay connected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from math import inf

from kowalski.mesh.core import connectivity
from kowalski.mesh.core.connectivity import Connectivity, Peer, Standing
from kowalski.mesh.core.failure_detector_state import timeout_s
from kowalski.mesh.mesh import CONNECTIONS_HEAR
from kowalski.protocol.ids import MeshId
from simulations.detectors import Change, Detectors


@dataclass(frozen=True, slots=True)
class Turn:
    """From when on `observer` sends `about` something, or nothing any more."""

    at: float
    observer: int
    about: int
    is_routable: bool


class Routability:
    """Looks on while `world` runs, which is the same without it. `turns` is what it saw."""

    def __init__(self, world: Detectors) -> None:
        self.turns: list[Turn] = []
        self._world = world
        self._numbers = {peer: number for number, peer in enumerate(world.peers)}
        members = {name: Peer(name, standing=Standing.MEMBER) for name in world.peers}
        self._states = [
            Connectivity(
                me, MeshId("mesh"), peers={name: one for name, one in members.items() if name != me}
            )
            for me in world.peers
        ]
        self._waking: set[int] = set()
        world.on_change = self._changed
        world.onlooker = self

    def answered(self, observer: int, about: int) -> None:
        self._handle(observer, connectivity.Answered(self._world.peers[about]))

    def missed(self, observer: int, about: int) -> None:
        self._handle(observer, connectivity.Missed(self._world.peers[about]))

    def spoken_to(self, observer: int, by: int) -> None:
        self._handle(observer, connectivity.Spoke(self._world.peers[by]))

    def _changed(self, change: Change) -> None:
        if hears := CONNECTIONS_HEAR.get(change.state):
            self._handle(change.observer, hears(self._world.peers[change.about]))

    def _handle(self, observer: int, event: connectivity.EventOfKnown) -> None:
        before = self._states[observer]
        after, effects = connectivity.step(before, event, self._world.now)
        self._states[observer] = after
        about = self._numbers[event.peer]
        if (is_routable := after.is_routable(event.peer)) != before.is_routable(event.peer):
            self.turns.append(Turn(self._world.now, observer, about, is_routable))
        self._perform(observer, effects)
        if isinstance(event, connectivity.GivenUp):
            self._wake_in_time(observer)

    def _wake_in_time(self, observer: int) -> None:
        """Something is due of those that are given up alone, and never sooner than of the first."""
        at = connectivity.wake_at(self._states[observer])
        if at < inf and observer not in self._waking:
            self._waking.add(observer)
            self._world.after(at - self._world.now, partial(self._wake, observer))

    def _wake(self, observer: int) -> None:
        self._waking.remove(observer)
        state, effects = connectivity.step(
            self._states[observer], connectivity.TimePassed(), self._world.now
        )
        self._states[observer] = state
        self._perform(observer, effects)
        self._wake_in_time(observer)

    def _perform(self, observer: int, effects: Iterable[connectivity.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, connectivity.Verify):
                _Question(self, self._world, observer, self._numbers[effect.peer]).ask()


@dataclass(slots=True)
class _Question:
    """To one whom others suspect; its answer or its deadline counts, whichever comes first."""

    routability: Routability
    world: Detectors
    observer: int
    about: int
    is_open: bool = True

    def ask(self) -> None:
        patience_s = timeout_s(self.world.nodes[self.observer].state)
        self.world.ask_aside(self.observer, self.about, self._answered)
        self.world.after(patience_s, self._silence)

    def _answered(self) -> None:
        if self.is_open:
            self.is_open = False
            self.routability.answered(self.observer, self.about)

    def _silence(self) -> None:
        if self.is_open:
            self.is_open = False
            self.routability.missed(self.observer, self.about)
