"""Does to a world what a fault says, for as long as it lasts, and undoes it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf

import trio

from kowalski.node.backends.seam import BackendError
from simulations import hearsay, rogue, strangers, voices
from simulations.menu import MENU, Fault
from simulations.wires import Gossiping, Pair
from simulations.world import World

STALLED_S = 1e6
"""A token of a model that stalls takes so long."""


@dataclass
class Injection:
    """Faults at work in one world. `fired` counts those that had something to break."""

    world: World
    fired: dict[str, int] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    """Nodes that will not be back."""

    async def inject(self, fault: Fault) -> None:
        """Let a fault happen, from beginning to end; cancelled, it ends at once."""
        _ = MENU[fault.kind]
        own = getattr(self, f"_{fault.kind.replace('-', '_')}", self._malice)
        await own(fault)

    def _fire(self, fault: Fault) -> None:
        self.fired[fault.kind] = self.fired.get(fault.kind, 0) + 1
        self.world.witness.note(f"fault {fault}")

    @contextmanager
    def _lasting(self, fault: Fault) -> Iterator[None]:
        self._fire(fault)
        try:
            yield
        finally:
            self.world.witness.note(f"end of {fault.kind} {fault.nodes}")

    def _can_fall(self, number: int) -> bool:
        """Somebody has to stay up: a mesh that is off makes a short story."""
        up = [place for place in self.world.places if place.node is not None]
        return self.world.is_up(number) and len(up) > 1

    async def _back(self, number: int) -> None:
        if not self.world.is_up(number) and number not in self.lost:
            await self.world.places[number].ended.wait()
            await self.world.start(number)

    # --- processes ------------------------------------------------------------------------------

    async def _crash(self, fault: Fault, *, is_silent: bool = False) -> None:
        (number,) = fault.nodes
        if not self._can_fall(number):
            return
        with self._lasting(fault):
            await self.world.kill(number, is_silent=is_silent)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                with trio.CancelScope(shield=True):
                    await self._back(number)

    async def _power_cut(self, fault: Fault) -> None:
        await self._crash(fault, is_silent=True)

    async def _restart(self, fault: Fault) -> None:
        await self._crash(replace(fault, lasts_s=0.0))

    async def _slow_restart(self, fault: Fault) -> None:
        await self._crash(replace(fault, lasts_s=fault.amount))

    async def _crash_loop(self, fault: Fault) -> None:
        until = self.world.wires.now() + fault.lasts_s
        while self.world.wires.now() < until:
            await self._crash(replace(fault, lasts_s=0.2))
            await trio.sleep(0.5 + 2 * fault.amount)

    async def _crash_in_write(self, fault: Fault) -> None:
        (number,) = fault.nodes
        if not self._can_fall(number):
            return
        disk = self.world.places[number].disk
        # One in two dies before what it writes is there, the other just after.
        disk.writes_left = int(fault.amount * 8) / 2 + 0.5
        with self._lasting(fault):
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                disk.writes_left = inf
                with trio.CancelScope(shield=True):
                    await self._back(number)

    async def _lost(self, fault: Fault) -> None:
        (number,) = fault.nodes
        if self._can_fall(number):
            self.lost.add(number)
            self._fire(fault)
            await self.world.kill(number, is_silent=fault.amount < 0.5)

    async def _freeze(self, fault: Fault) -> None:
        (number,) = fault.nodes
        if self.world.is_up(number):
            self._fire(fault)
            self.world.freeze(number, fault.amount)
            await trio.sleep(fault.amount)

    async def _sleep(self, fault: Fault) -> None:
        (number,) = fault.nodes
        if self.world.is_up(number):
            with self._lasting(fault), self._silent(self._around(number)):
                self.world.sleep(number, 3 * fault.lasts_s)
                with trio.CancelScope(shield=True):
                    await trio.sleep(3 * fault.lasts_s)

    # --- links ----------------------------------------------------------------------------------

    def _pairs(self, numbers: tuple[int, ...]) -> tuple[Pair, ...]:
        one, other = (self.world.peer(number) for number in numbers)
        return ((one, other), (other, one))

    def _around(self, number: int) -> tuple[Pair, ...]:
        others = (other for other in range(len(self.world.places)) if other != number)
        return tuple(pair for other in others for pair in self._pairs((number, other)))

    def _across(
        self, order: tuple[int, ...], cut: int, *, but: int | None = None
    ) -> tuple[Pair, ...]:
        """All links between the first `cut` of the nodes and the others, without those of `but`."""
        sides = [[n for n in side if n != but] for side in (order[:cut], order[cut:])]
        return tuple(
            pair for one in sides[0] for other in sides[1] for pair in self._pairs((one, other))
        )

    @contextmanager
    def _silent(self, pairs: tuple[Pair, ...]) -> Iterator[None]:
        silent = self.world.wires.storm.silent
        for pair in pairs:
            silent[pair] += 1
        try:
            yield
        finally:
            for pair in pairs:
                silent[pair] -= 1
                if not silent[pair]:
                    del silent[pair]
            for pair in pairs:
                self.world.network.release(*pair)

    async def _silence_of(self, fault: Fault, pairs: tuple[Pair, ...]) -> None:
        with self._lasting(fault), self._silent(pairs):
            await trio.sleep(fault.lasts_s)

    async def _silence(self, fault: Fault) -> None:
        await self._silence_of(fault, self._pairs(fault.nodes))

    async def _one_way(self, fault: Fault) -> None:
        await self._silence_of(fault, self._pairs(fault.nodes)[:1])

    async def _isolate(self, fault: Fault) -> None:
        await self._silence_of(fault, self._around(*fault.nodes))

    async def _halves(self, fault: Fault) -> None:
        await self._silence_of(fault, self._across(fault.nodes, int(fault.amount)))

    async def _bridge(self, fault: Fault) -> None:
        order = fault.nodes
        await self._silence_of(fault, self._across(order, int(fault.amount), but=order[-1]))

    async def _flap(self, fault: Fault) -> None:
        with self._lasting(fault), trio.move_on_after(fault.lasts_s):
            while True:
                with self._silent(self._pairs(fault.nodes)):
                    await trio.sleep(0.3 + 2 * fault.amount)
                await trio.sleep(0.2 + fault.amount)

    async def _reject(self, fault: Fault) -> None:
        closed, pairs = self.world.wires.storm.closed, self._pairs(fault.nodes)
        with self._lasting(fault):
            for pair in pairs:
                closed[pair] += 1
            self._break_connection(*fault.nodes)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                for pair in pairs:
                    closed[pair] -= 1
                    if not closed[pair]:
                        del closed[pair]

    def _break_connection(self, one: int, other: int) -> None:
        transport = self.world.places[one].transport
        if transport is not None:
            self.world.network.drop(transport, self.world.peer(other))

    async def _slow_link(self, fault: Fault) -> None:
        slow_s, pairs = self.world.wires.storm.slow_s, self._pairs(fault.nodes)
        with self._lasting(fault):
            for pair in pairs:
                slow_s[pair] += fault.amount
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                for pair in pairs:
                    slow_s[pair] = max(0.0, slow_s[pair] - fault.amount)

    async def _packet_loss(self, fault: Fault) -> None:
        storm = self.world.wires.storm
        with self._lasting(fault):
            before, storm.packet_loss = storm.packet_loss, max(storm.packet_loss, fault.amount)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                storm.packet_loss = before

    async def _narrow(self, fault: Fault) -> None:
        storm = self.world.wires.storm
        with self._lasting(fault):
            before, storm.bytes_per_s = storm.bytes_per_s, min(storm.bytes_per_s, fault.amount)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                storm.bytes_per_s = before

    async def _reset(self, fault: Fault) -> None:
        one, other = fault.nodes
        transport = self.world.places[one].transport
        streams = transport.streams(self.world.peer(other)) if transport is not None else ()
        if streams:
            self._fire(fault)
            assert transport is not None
            for stream in streams:
                self.world.network.reset(transport, stream)
        await trio.lowlevel.checkpoint()

    async def _tear(self, fault: Fault) -> None:
        """The first bytes of an envelope, and then no more."""
        one, other = fault.nodes
        transport = self.world.places[one].transport
        streams = transport.streams(self.world.peer(other)) if transport is not None else ()
        if streams:
            self._fire(fault)
            assert transport is not None
            torn = b"\x00\x00\x00\x40\x00\x00\x00\x01\x83\x01"[: 1 + int(9 * fault.amount)]
            for stream in streams:
                self.world.network.reset(transport, stream, after=torn)
        await trio.lowlevel.checkpoint()

    # --- gossip ---------------------------------------------------------------------------------

    async def _gossip(self, fault: Fault, change: Callable[[Gossiping], Gossiping]) -> None:
        storm = self.world.wires.storm
        with self._lasting(fault):
            storm.gossip = change(storm.gossip)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                storm.gossip = storm.usual_gossip

    async def _gossip_lost(self, fault: Fault) -> None:
        await self._gossip(fault, lambda now: replace(now, lost=fault.amount))

    async def _gossip_doubled(self, fault: Fault) -> None:
        await self._gossip(fault, lambda now: replace(now, doubled=fault.amount))

    async def _gossip_late(self, fault: Fault) -> None:
        await self._gossip(fault, lambda now: replace(now, late=fault.amount))

    async def _gossip_replayed(self, fault: Fault) -> None:
        # Sooner than gossipsub would let it through, so that short stories have it too.
        late_s = 0.2 * fault.lasts_s
        await self._gossip(
            fault, lambda now: replace(now, replayed=fault.amount, replayed_s=late_s)
        )

    async def _gossip_quiet(self, fault: Fault) -> None:
        voice = self.world.places[fault.nodes[0]].voice
        with self._lasting(fault):
            voice.is_quiet += 1
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                voice.is_quiet -= 1

    # --- devices --------------------------------------------------------------------------------

    async def _wall_clock(self, fault: Fault) -> None:
        await self._changed(fault, "unix_offset_s", fault.amount)

    async def _slow_worker(self, fault: Fault) -> None:
        place = self.world.places[fault.nodes[0]]
        await self._changed(fault, "slowness", place.part.slowness * fault.amount)

    async def _changed(self, fault: Fault, name: str, value: float) -> None:
        place = self.world.places[fault.nodes[0]]
        with self._lasting(fault):
            usual = place.part.slowness if name == "slowness" else 0.0
            setattr(place, name, value)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                setattr(place, name, usual)

    async def _slow_disk(self, fault: Fault) -> None:
        disk = self.world.places[fault.nodes[0]].disk
        with self._lasting(fault):
            disk.slow_s = fault.amount
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                disk.slow_s = 0.0

    async def _disk_full(self, fault: Fault) -> None:
        disk = self.world.places[fault.nodes[0]].disk
        with self._lasting(fault):
            disk.is_full += 1
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                disk.is_full -= 1

    async def _disk_errors(self, fault: Fault) -> None:
        disk = self.world.places[fault.nodes[0]].disk
        with self._lasting(fault):
            disk.errors.append(dice := random.Random(f"{fault}"))
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                disk.errors.remove(dice)

    async def _kill_sessions(self, fault: Fault) -> None:
        (number,) = fault.nodes
        await self.world.until_awake(number)
        if self.world.is_up(number):
            self._fire(fault)
            await self.world.places[number].kill_sessions()

    async def _model_stalls(self, fault: Fault) -> None:
        backend = self.world.places[fault.nodes[0]].backend
        usual = self.world.places[fault.nodes[0]].part.delay_per_token_s
        with self._lasting(fault):
            backend.delay_per_token_s = STALLED_S
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                backend.delay_per_token_s = usual

    async def _model_fails(self, fault: Fault) -> None:
        await self._fail(fault, BackendError("unreachable", "simulated: connection refused"))

    async def _model_errs(self, fault: Fault) -> None:
        """Its node offers the model as before: only those who ask find out."""
        await self._fail(fault, BackendError("bad_reply", "simulated: status 500"))

    async def _fail(self, fault: Fault, failure: BackendError) -> None:
        backend = self.world.places[fault.nodes[0]].backend
        with self._lasting(fault):
            backend.failure = failure
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                backend.failure = None

    # --- lies -----------------------------------------------------------------------------------

    async def _lie(self, fault: Fault, lie: voices.Lie) -> None:
        voice = self.world.places[fault.nodes[0]].voice
        with self._lasting(fault):
            voice.lies.append(lie)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                voice.lies.remove(lie)

    async def _lies_idle(self, fault: Fault) -> None:
        await self._lie(fault, voices.idle)

    async def _lies_busy(self, fault: Fault) -> None:
        await self._lie(fault, voices.busy)

    async def _lies_fast(self, fault: Fault) -> None:
        await self._lie(fault, voices.fast)

    async def _lies_odd(self, fault: Fault) -> None:
        await self._lie(fault, voices.odd)

    async def _jumbles(self, fault: Fault) -> None:
        (number,) = fault.nodes
        voice = self.world.places[number].voice
        with self._lasting(fault):
            voice.disorder = voices.Disorder(f"{fault}")
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                voice.disorder = None
                with trio.CancelScope(shield=True):
                    await self._hang_up(number, voices.LEADING_PROTOCOL)

    async def _hang_up(self, number: int, protocol: str) -> None:
        """What was lost on a stream is offered again on the next one."""
        transport = self.world.places[number].transport
        for other in range(len(self.world.places)):
            for stream in transport.streams(self.world.peer(other)) if transport else ():
                if transport is not None and stream.protocol == protocol:
                    self.world.network.reset(transport, stream)
        await trio.lowlevel.checkpoint()

    # --- malice ---------------------------------------------------------------------------------

    async def _malice(self, fault: Fault, *, lasts_s: float | None = None) -> None:
        (number,) = fault.nodes
        attack, knows = MALICE[fault.kind]
        is_member = fault.amount < KNOWN_BELOW if knows is None else knows
        if self.world.is_up(number):
            with self._lasting(fault), trio.move_on_after(lasts_s or fault.lasts_s):
                await rogue.visit(self.world, number, fault, attack, is_member=is_member)

    async def _join_flood(self, fault: Fault) -> None:
        """One in two at the door of the node that founded the mesh: it alone lets anybody in."""
        is_there = fault.amount < KNOWN_BELOW
        await self._malice(replace(fault, nodes=(FOUNDER,)) if is_there else fault)

    async def _slow_loris(self, fault: Fault) -> None:
        await self._malice(fault, lasts_s=fault.amount)

    async def _mdns_spoof(self, fault: Fault) -> None:
        with self._lasting(fault), trio.move_on_after(fault.lasts_s):
            await hearsay.spoof(self.world, f"{fault}")


FOUNDER = 0
KNOWN_BELOW = 0.5
MALICE: dict[str, tuple[rogue.Attack, bool | None]] = {
    "garbage": (rogue.send_garbage, None),
    "forged-sender": (rogue.show_a_stolen_certificate, False),
    "bad-signature": (rogue.show_an_unsigned_certificate, False),
    "wrong-term": (rogue.speak_of_old_terms, True),
    "unknown-kind": (rogue.say_what_nobody_knows, True),
    "flood-streams": (rogue.open_many_streams, None),
    "flood-requests": (rogue.ask_too_much, True),
    "flood-gossip": (rogue.gossip_too_much, True),
    "flood-telemetry": (rogue.say_too_much_of_itself, True),
    "bad-text": (rogue.send_bad_text, None),
    "join-flood": (strangers.flood_joins, False),
    "slow-loris": (strangers.say_nothing, False),
}
"""What is done at a door, and whether by a member; None: by one or the other."""
