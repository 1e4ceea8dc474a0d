"""Keeping the standbys of a task up to date with the journal of its coordinator.

One loop for each standby: what it lacks is offered, and what it says it holds is where the next
offer begins. An offer without entries asks whether it has heard of a higher term: its word lets a
coordinator go on whose submitter is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.fences import TaskKey
from kowalski.node.core.portions import ENTRIES_MAX, portion
from kowalski.node.services.copies import PROTOCOL, CopyRoom
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import copies as wire
from kowalski.protocol.messages.repl import Inputs

log = structlog.get_logger(__name__)

OFFER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    first_s: float = 0.5
    """Tasks that are over by then are not copied."""
    pulse_s: float = 10.0
    """Between two offers without news."""
    anxious_pulse_s: float = 1.0
    """The same while the lease is over."""
    pause_s: float = 2.0
    """After a standby could not be reached."""


@dataclass(frozen=True, slots=True)
class Leading:
    """What replication has to know of the term it serves; it changes while it runs."""

    key: TaskKey
    inputs: Inputs
    term: Callable[[], int]
    is_lease_over: Callable[[], bool]
    on_witness: Callable[[PeerId], None]
    """A standby has answered: it knows of no higher term."""
    on_stale: Callable[[], None]
    """A standby knows of a higher term."""


@dataclass(slots=True)
class _Standby:
    """What we know of one. `held`: entries of our journal; None until it has told."""

    scope: trio.CancelScope
    is_introduced: bool = False
    held: int | None = None
    has_contents: bool = False


class Replication:
    """Made once a coordination. `run` keeps going until cancelled."""

    def __init__(
        self, mesh: Mesh, copies: CopyRoom, leading: Leading, pace: Pace | None = None
    ) -> None:
        self._mesh = mesh
        self._copies = copies
        self._leading = leading
        self._pace = pace or Pace()
        self._standbys: dict[PeerId, _Standby] = {}
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def holders(self) -> tuple[PeerId, ...]:
        """Standbys that hold all that the task refers to."""
        return tuple(peer for peer, one in self._standbys.items() if one.has_contents)

    @property
    def is_complete(self) -> bool:
        """Whether every standby holds the whole journal."""
        copy = self._copies.held(self._leading.key)
        entries = copy.entries if copy else 0
        return all((one.held or 0) >= entries for one in self._standbys.values())

    def stand_by(self, standbys: tuple[PeerId, ...]) -> None:
        """These from now on."""
        for peer in tuple(self._standbys):
            if peer not in standbys:
                self._standbys.pop(peer).scope.cancel()
        for peer in standbys:
            if peer not in self._standbys:
                self._standbys[peer] = _Standby(trio.CancelScope())
                if self._nursery is not None:
                    self._nursery.start_soon(self._serve, peer, self._standbys[peer])

    async def drop(self, *, timeout_s: float) -> None:
        """Tell everybody who holds a copy that nobody needs it any more."""
        submitter, task = self._leading.key
        dropped = wire.CopyDropped(task=task, term=self._leading.term(), submitter=submitter)

        async def tell(peer: PeerId) -> None:
            try:
                await self._mesh.request(
                    peer, PROTOCOL, dropped, wire.CopyDropped, timeout_s=timeout_s
                )
            except Weather as error:
                log.debug("copy-not-dropped", peer=peer, task=task, why=str(error))

        async with trio.open_nursery() as nursery:
            for peer, standby in self._standbys.items():
                if standby.is_introduced:
                    nursery.start_soon(tell, peer)

    def news(self) -> None:
        """The journal has grown, or was written anew."""
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        await trio.sleep(self._pace.first_s)
        async with trio.open_nursery() as self._nursery:
            for peer, standby in self._standbys.items():
                self._nursery.start_soon(self._serve, peer, standby)
            await trio.sleep_forever()

    async def _serve(self, peer: PeerId, standby: _Standby) -> None:
        with standby.scope:
            while True:
                changed = self._changed
                if await self._offer(peer, standby):
                    continue
                is_over = self._leading.is_lease_over()
                pulse_s = self._pace.anxious_pulse_s if is_over else self._pace.pulse_s
                with trio.move_on_after(pulse_s):
                    await changed.wait()

    async def _offer(self, peer: PeerId, standby: _Standby) -> bool:
        """Offer what it lacks, as much as fits; whether there is more to be offered at once."""
        offered = self._next_offer(standby)
        if offered is None:
            return False
        try:
            held = await self._mesh.request(
                peer, PROTOCOL, offered, wire.CopyHeld, timeout_s=OFFER_TIMEOUT_S
            )
        except Weather as error:
            if isinstance(error, RequestRefusedError) and error.reason == "stale":
                self._leading.on_stale()
            log.debug("copy-not-taken", peer=peer, task=offered.task, why=str(error))
            await trio.sleep(self._pace.pause_s)
            return False
        self._leading.on_witness(peer)
        standby.has_contents = held.has_contents
        if not standby.is_introduced:
            standby.is_introduced = True
            return True
        standby.held = held.entries
        copy = self._copies.held(self._leading.key)
        return copy is not None and held.entries < copy.entries

    def _next_offer(self, standby: _Standby) -> wire.CopyOffered | None:
        """None: we hold no copy ourselves."""
        leading = self._leading
        copy = self._copies.held(leading.key)
        if copy is None:
            return None
        submitter, task = leading.key
        if not standby.is_introduced:
            # Inputs may be as heavy as a frame allows: they travel alone.
            start, inputs = 0, leading.inputs
        else:
            # At first we do not know what it has: perhaps all of it, from an earlier term.
            start, inputs = copy.entries if standby.held is None else standby.held, ()
        parent = copy.digest_before(start)
        if parent is None:
            standby.held = None  # our own journal was cut since
            return self._next_offer(standby)
        following = (
            self._copies.following(leading.key, start, parent, limit=ENTRIES_MAX)
            if standby.is_introduced
            else []
        )
        return wire.CopyOffered(
            task=task,
            term=leading.term(),
            submitter=submitter,
            start=start,
            parent=parent,
            entries=portion(following),
            inputs=inputs,
        )
