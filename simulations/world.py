"""Many nodes in one process, under virtual time, on a network that can be cut.

Everything but three seams is what runs on a device: sessions are scripted (`toy_cells`), models
are functions, wires are a `LoopbackNetwork`. Disks are real, in a temporary folder, so that a node
that is killed comes back to what it had written. Each node has a clock of its own.
"""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TypeVar

import structlog
import trio

from kowalski.mesh.core.connectivity import Sighted
from kowalski.mesh.core.placement import Kind
from kowalski.mesh.loopback_transport import (
    LoopbackNetwork,
    LoopbackTransport,
    Weather,
    open_loopback_network,
)
from kowalski.mesh.membership_certificates import MeshRoot
from kowalski.mesh.watching import watcher
from kowalski.node.app import open_node
from kowalski.node.control import Verb
from kowalski.node.core.task_ledger import Task
from kowalski.node.services.telemetry import Device
from kowalski.node.storage import open_ledger_storage
from kowalski.node.verbs import Here, Node, verbs_of
from kowalski.protocol.ids import Address, PeerId, TaskId
from kowalski.protocol.messages.task import Mode, TaskSpec
from simulations.determinism import work_of_threads
from simulations.disks import on_disk
from simulations.places import IDLE, PROFILE, UNIX_EPOCH_S, Part, Place, make_place, open_hands
from simulations.virtual_time import JumpingClock, deadlines_by_node, node_time
from simulations.voices import Speaking
from simulations.wires import StormyWires
from simulations.witness import Witness

__all__ = ["Part", "Place", "World", "open_world"]

T = TypeVar("T")

MEET_S = 30.0
FOLDER_PREFIX = f"kowalski-world-{os.getpid()}-"
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 where Linux keeps files that need no disk


class World:
    """Made by `open_world`. Nodes are called by their number, from 0."""

    def __init__(
        self,
        network: LoopbackNetwork,
        wires: StormyWires,
        nursery: trio.Nursery,
        places: list[Place],
        *,
        root: MeshRoot,
        witness: Witness,
    ) -> None:
        self.network = network
        self.wires = wires
        self.places = places
        self.root = root
        self.witness = witness
        self._nursery = nursery
        for place in places:
            place.disk.halt = partial(self.halt, place.number)
            place.disk.stall = partial(self.freeze, place.number)

    # --- what is there --------------------------------------------------------------------------

    def __getitem__(self, number: int) -> Node:
        """The rooms of a node that is up."""
        node = self.places[number].node
        assert node is not None, f"node {number} is down"
        return node

    def transport(self, number: int) -> LoopbackTransport:
        transport = self.places[number].transport
        assert transport is not None, f"node {number} is down"
        return transport

    def verbs(self, number: int) -> Mapping[str, Verb]:
        """What the control socket of a node offers."""
        place = self.places[number]
        assert place.hands is not None
        here = Here(
            place.config,
            sandbox=place.hands.verdict,
            languages=place.part.languages,
            catalogue=place.hands.catalogue,
            discovery=None,
            started_at=0.0,
            unix_clock=lambda: UNIX_EPOCH_S + self.wires.now(),
        )
        return verbs_of(self[number], here)

    def as_node(self, number: int, do: Callable[[Node], T]) -> T:
        """Do something with a node's rooms as it would, by its own clock."""
        return self.places[number].context.run(do, self[number])

    def probes(self, number: int) -> list[tuple[PeerId, Kind]]:
        """Requests of a node that find out whether a breaker may close; none where it is down."""
        node = self.places[number].node
        return [] if node is None else node.work.placing.dispatch.probes()

    def is_up(self, number: int) -> bool:
        return self.places[number].node is not None

    def peer(self, number: int) -> PeerId:
        return self.places[number].identity.peer

    def number_of(self, peer: PeerId | None) -> int:
        return next(i for i, place in enumerate(self.places) if place.identity.peer == peer)

    @property
    def calls(self) -> list[str]:
        """What all models were asked."""
        return [prompt for place in self.places for prompt in place.calls]

    @property
    def cells(self) -> list[str]:
        """The code of every cell that began anywhere."""
        return [code for place in self.places for code in place.cells]

    # --- what happens to it ---------------------------------------------------------------------

    async def start(self, number: int) -> None:
        """Begin a node's process. Whoever asks for the same at the same time waits for it."""
        place = self.places[number]
        async with place.starting:
            if place.node is None:
                if place.boots:
                    await place.ended.wait()
                await self._nursery.start(self._live, place)

    async def kill(self, number: int, *, is_silent: bool = False) -> None:
        """Like SIGKILL: not a word gets out any more, and of the disk stays what was written.

        Silently, like a power cut: its connections end without a word as well.
        """
        self.halt(number, is_silent=is_silent)
        await self.places[number].ended.wait()

    def halt(self, number: int, *, is_silent: bool = False) -> None:
        """What `kill` does, without waiting until the node's tasks have noticed."""
        place = self.places[number]
        assert place.scope is not None, f"node {number} is down"
        place.disk.is_gone = True
        place.time.thaw(self.wires.now())
        self.network.kill(place.identity.peer, is_silent=is_silent)
        place.node = None
        place.scope.cancel()

    async def restart(self, number: int) -> None:
        await self.kill(number)
        await self.start(number)

    def freeze(self, number: int, lasts_s: float) -> None:
        """Stop a process for a while, as SIGSTOP or a blocked loop would; its clock goes on."""
        now = self.wires.now()
        self.places[number].time.freeze(now, now + lasts_s)
        self.witness.note(f"node {number} stands still for {lasts_s:.2f} s")

    def sleep(self, number: int, lasts_s: float) -> None:
        """Close a laptop: as `freeze`, and its clock stands still as well."""
        self.places[number].time.sleep(self.wires.now(), self.wires.now() + lasts_s)
        self.witness.note(f"node {number} sleeps for {lasts_s:.2f} s")

    async def until_awake(self, number: int) -> None:
        """Wait while a node stands still: what its processes and its user do it hears then."""
        while (until := self.places[number].time.frozen_until) > self.wires.now():  # noqa: ASYNC110
            await trio.sleep_until(until)

    def cut(self, one: int, other: int) -> None:
        self.network.cut(self.peer(one), self.peer(other))

    def mend(self, one: int, other: int) -> None:
        self.network.mend(self.peer(one), self.peer(other))

    async def meet(self) -> None:
        """Return once all nodes that are up can reach each other.

        Raises:
            trio.TooSlowError: they could not within half a minute of virtual time.
        """
        with trio.fail_after(MEET_S):
            while not self._have_met():  # noqa: ASYNC110 virtual time costs nothing
                await trio.sleep(0.05)

    def _have_met(self) -> bool:
        up = {self.peer(number) for number in range(len(self.places)) if self.is_up(number)}
        return all(
            up <= {candidate.peer for candidate in self[number].mesh.candidates()}
            and all(self[number].mesh.is_routable(peer) for peer in up)
            for number in range(len(self.places))
            if self.is_up(number)
        )

    # --- tasks ----------------------------------------------------------------------------------

    def submit(
        self,
        number: int,
        prompt: str,
        *,
        task: str = "task",
        mode: Mode = "auto",
        timeout_s: float = 600.0,
        **more: object,
    ) -> TaskId:
        name, spec = TaskId(task), spec_of(prompt, mode=mode, timeout_s=timeout_s, **more)
        self.as_node(number, lambda node: node.submitter.submit(name, spec))
        return name

    async def result(self, number: int, task: TaskId, *, within_s: float = 120.0) -> Task:
        """The task once it is over.

        Raises:
            trio.TooSlowError: it is not, after so many virtual seconds.
        """
        with trio.fail_after(within_s):
            while not self[number].submitter.find(task).is_over:  # noqa: ASYNC110 as above
                await trio.sleep(0.02)
        return self[number].submitter.find(task)

    async def until(self, holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
        """Wait, in virtual time, until something is true."""
        with trio.fail_after(within_s):
            while not holds():  # noqa: ASYNC110 virtual time costs nothing
                await trio.sleep(0.01)

    # --- the life of one node -------------------------------------------------------------------

    async def _live(self, place: Place, *, task_status: trio.TaskStatus[None]) -> None:
        node_time.set(place.time)
        watcher.set(self.witness.watch(place.number))
        work_of_threads.set(place.disk.obstruct)
        structlog.contextvars.bind_contextvars(node=place.number)
        place.context = copy_context()
        place.boots += 1
        place.ended = trio.Event()
        place.scope = trio.CancelScope()
        place.disk.begin()
        self.witness.began(place.number)
        scope = place.scope
        try:
            with scope:
                async with self._open(place) as place.node:
                    self._introduce(place.node)
                    task_status.started()
                    await trio.sleep_forever()
        except Exception as error:
            if not scope.cancel_called:  # else it was killed, and nobody hears its last words
                words = "".join(traceback.format_exception(error, limit=-4))
                self.witness.check("no_node_dies", holds=False, words=f"{place.number}: {words}")
                raise
        finally:
            place.node = place.transport = place.scope = None
            self.witness.ended(place.number)
            place.ended.set()

    @asynccontextmanager
    async def _open(self, place: Place) -> AsyncIterator[Node]:
        peer = place.identity.peer

        def unix_clock() -> float:
            return UNIX_EPOCH_S + self.wires.now() + place.unix_offset_s

        with open_ledger_storage(place.config.ledger_path, unix_clock=unix_clock) as storage:
            async with (
                open_hands(place) as place.hands,
                self.network.transport(peer) as place.transport,
                open_node(
                    place.config,
                    Speaking(place.transport, place.voice),
                    place.membership,
                    place.hands,
                    on_disk(storage, place.disk),
                    identity=place.identity,
                    unix_clock=unix_clock,
                    boot=hashlib.sha256(f"{peer} {place.boots}".encode()).hexdigest()[:16],
                    device=Device(PROFILE, lambda _now: IDLE),
                ) as node,
            ):
                yield node

    def _introduce(self, node: Node) -> None:
        for place in self.places:
            other = place.identity.peer
            if other != node.mesh.me:
                address = Address(f"/memory/{other}")
                node.mesh.sighted(Sighted(other, (address,), is_static=True))


def spec_of(
    prompt: str, *, mode: Mode = "auto", timeout_s: float = 600.0, **more: object
) -> TaskSpec:
    """What a task is to be, where nothing else is said."""
    return TaskSpec.model_validate(
        {"prompt": prompt, "mode": mode, "timeout_s": timeout_s, "max_iterations": 5, **more}
    )


def _memory() -> Path | None:
    return MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None


def folders_left() -> list[Path]:
    """What the worlds of this process have made on disk, and not taken away again."""
    return sorted((_memory() or Path(gettempdir())).glob(f"{FOLDER_PREFIX}*"))


@asynccontextmanager
async def open_world(
    nodes: int | Sequence[Part],
    *,
    seed: int = 0,
    weather: Weather | None = None,
    folder: Path | None = None,
    witness: Witness | None = None,
    clocks: Sequence[tuple[float, float]] = (),
    grain_s: float = 0.004,
) -> AsyncIterator[World]:
    """Nodes that are up and have met. `nodes`: how many of the plain kind, or what each is.

    Their `clocks` run at such a rate, and show such a time at first.

    Their files are made below `folder`, or in memory where the system has a place for that. Wants
    virtual time: a `virtual_time.JumpingClock`.
    """
    witness = witness or Witness()
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, JumpingClock)
    wires = StormyWires(clock, seed=seed, weather=weather, grain_s=grain_s)
    parts = [Part() for _ in range(nodes)] if isinstance(nodes, int) else nodes
    root = MeshRoot(hashlib.sha256(f"{seed} root".encode()).digest())
    with TemporaryDirectory(prefix=FOLDER_PREFIX, dir=folder or _memory()) as made:
        places = [
            make_place(number, part, root, Path(made), seed=seed)
            for number, part in enumerate(parts)
        ]
        for place in places:
            wires.times[place.identity.peer] = place.time
            place.disk.watchers.append(witness)
        for place, (rate, offset_s) in zip(places, clocks, strict=False):
            place.time.rate, place.time.offset_s = rate, offset_s
        witness.attend(wires, [place.identity.peer for place in places])
        with deadlines_by_node():
            async with (
                open_loopback_network(wires=wires, tap=witness) as network,
                trio.open_nursery() as nursery,
            ):
                world = World(network, wires, nursery, places, root=root, witness=witness)
                for number in range(len(places)):
                    await world.start(number)
                await world.meet()
                yield world
                witness.check("no_node_dies", holds=True, words="")
                nursery.cancel_scope.cancel()
