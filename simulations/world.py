"""Many nodes in one process, under virtual time, on a network that can be cut.

Everything but three seams is what runs on a device: sessions are scripted (`toy_cells`), models
are functions, wires are a `LoopbackNetwork`. Disks are real, in a temporary folder, so that a node
that is killed comes back to what it had written. Each node has a clock of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from kowalski.mesh.core.connectivity import Sighted
from kowalski.mesh.identity import Identity, identity_from_seed
from kowalski.mesh.loopback_transport import (
    LoopbackNetwork,
    LoopbackTransport,
    Weather,
    open_loopback_network,
)
from kowalski.mesh.membership_certificates import Membership, MeshRoot
from kowalski.node.app import Device, Hands, open_node
from kowalski.node.backends.catalogue import open_catalogue
from kowalski.node.backends.in_memory import InMemoryBackend
from kowalski.node.backends.probing import Candidate, Finding
from kowalski.node.backends.seam import CompletionRequest, ModelInfo
from kowalski.node.config import NodeConfig
from kowalski.node.control import Verb
from kowalski.node.control_messages import ROLES, Role
from kowalski.node.core.task_ledger import Task
from kowalski.node.repl.sandbox import SandboxVerdict
from kowalski.node.repl.scripted_sessions import (
    Script,
    ScriptedCell,
    ScriptedState,
    open_scripted_host,
)
from kowalski.node.storage import open_ledger_storage
from kowalski.node.telemetry_sources import DeviceProfile, HotSample
from kowalski.node.verbs import Here, Node, verbs_of
from kowalski.protocol.ids import Address, PeerId, TaskId
from kowalski.protocol.messages.task import Mode, TaskSpec
from simulations.toy_cells import toy_script
from simulations.virtual_time import JumpingClock, NodeTime, deadlines_by_node, node_time
from simulations.wires import StormyWires

UNIX_EPOCH_S = 1_800_000_000.0
MEET_S = 30.0
MEMORY_URL = "memory://"
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 where Linux keeps files that need no disk

Model = Callable[[CompletionRequest], str]


def echo(request: CompletionRequest) -> str:
    """The model of a world that needs no better one."""
    said = request.messages[-1].content if request.messages else request.said
    return "reply to: " + said.replace("```", "...")


@dataclass(frozen=True, slots=True)
class Part:
    """What one node of a world is. No `languages`: it runs no code."""

    languages: Mapping[str, str] = field(default_factory=lambda: {"python": "3.11", "bash": "5.2"})
    models: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ROLES
    slots: int = 4
    model_slots: int = 16
    delay_per_token_s: float = 0.0
    tells: Model = echo
    script: Script = toy_script
    settings: Mapping[str, object] = field(default_factory=dict)
    """More of its `NodeConfig`."""


@dataclass(slots=True)
class Place:
    """One node: what outlives its processes, and the one that runs now."""

    part: Part
    identity: Identity
    membership: Membership
    config: NodeConfig
    backend: InMemoryBackend
    calls: list[str] = field(default_factory=list)
    """What its model was asked last, call by call."""
    cells: list[str] = field(default_factory=list)
    """The code of every cell that began here."""
    time: NodeTime = field(default_factory=NodeTime)
    boots: int = 0
    node: Node | None = None
    transport: LoopbackTransport | None = None
    hands: Hands | None = None
    scope: trio.CancelScope | None = None
    ended: trio.Event = field(default_factory=trio.Event)


class World:
    """Made by `open_world`. Nodes are called by their number, from 0."""

    def __init__(
        self,
        network: LoopbackNetwork,
        wires: StormyWires,
        nursery: trio.Nursery,
        places: list[Place],
    ) -> None:
        self.network = network
        self.wires = wires
        self.places = places
        self._nursery = nursery

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
        await self._nursery.start(self._live, self.places[number])

    async def kill(self, number: int, *, is_silent: bool = False) -> None:
        """Like SIGKILL: not a word gets out any more, and of the disk stays what was written.

        Silently, like a power cut: its connections end without a word as well.
        """
        place = self.places[number]
        assert place.scope is not None, f"node {number} is down"
        self.network.kill(place.identity.peer, is_silent=is_silent)
        place.node = None
        place.scope.cancel()
        await place.ended.wait()

    async def restart(self, number: int) -> None:
        await self.kill(number)
        await self.start(number)

    def freeze(self, number: int, lasts_s: float) -> None:
        """Stop a process for a while, as SIGSTOP or a blocked loop would; its clock goes on."""
        time = self.places[number].time
        time.frozen_until = max(time.frozen_until, self.wires.now() + lasts_s)

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
        name = TaskId(task)
        spec = {"prompt": prompt, "mode": mode, "timeout_s": timeout_s, "max_iterations": 5, **more}
        self[number].submitter.submit(name, TaskSpec.model_validate(spec))
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
        place.boots += 1
        place.ended = trio.Event()
        place.scope = trio.CancelScope()
        try:
            with place.scope:
                async with self._open(place) as place.node:
                    self._introduce(place.node)
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            place.node = place.transport = place.scope = None
            place.ended.set()

    @asynccontextmanager
    async def _open(self, place: Place) -> AsyncIterator[Node]:
        peer = place.identity.peer
        clock = lambda: UNIX_EPOCH_S + trio.current_time()  # noqa: E731 the world's wall clock
        with open_ledger_storage(place.config.ledger_path, unix_clock=clock) as storage:
            async with (
                _open_hands(place) as place.hands,
                self.network.transport(peer) as place.transport,
                open_node(
                    place.config,
                    place.transport,
                    place.membership,
                    place.hands,
                    storage,
                    unix_clock=lambda: UNIX_EPOCH_S + self.wires.now(),
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


PROFILE = DeviceProfile(
    hostname="simulated",
    cpu="none",
    cores=4.0,
    architecture="none",
    system="simulation",
    memory_bytes=8 << 30,
    gpus=(),
)
IDLE = HotSample(
    memory_available=0.5,
    swap_used=0.0,
    cpu_used=0.1,
    load_per_core=0.1,
    pressure=None,
    battery=None,
    temperature_c=None,
)


def _recorded(script: Script, cells: list[str]) -> Script:
    def recorded(code: str, state: ScriptedState) -> ScriptedCell:
        cells.append(code)
        return script(code, state)

    return recorded


@asynccontextmanager
async def _open_hands(place: Place) -> AsyncIterator[Hands]:
    async def look(wanted: Sequence[Candidate]) -> tuple[Finding, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(Finding(one.url, True, "openai", place.backend) for one in wanted)

    part = place.part
    places = (Candidate(MEMORY_URL, MEMORY_URL),) if part.models else ()
    script = _recorded(part.script, place.cells)
    async with (
        open_catalogue(places, look) as catalogue,
        open_scripted_host(script, languages=part.languages, slots=part.slots) as host,
    ):
        verdict = SandboxVerdict(None, "scripted", "a simulation")
        yield Hands(host if part.languages else None, verdict, catalogue)


def _place(number: int, part: Part, root: MeshRoot, folder: Path, seed: int) -> Place:
    identity = identity_from_seed(hashlib.sha256(f"{seed} node {number}".encode()).digest())
    calls: list[str] = []

    def answer(request: CompletionRequest) -> str:
        calls.append(request.messages[-1].content if request.messages else request.said)
        return part.tells(request)

    models = tuple(ModelInfo(name, is_warm=True, slots=part.model_slots) for name in part.models)
    return Place(
        part=part,
        identity=identity,
        membership=Membership(
            root.mesh,
            root.certify(identity.peer, ROLES, now_unix_s=int(UNIX_EPOCH_S)),
            root if number == 0 else None,
        ),
        config=NodeConfig.model_validate(
            {
                "name": f"node-{number}",
                "data_dir": folder / f"node-{number}",
                "repl_slots": part.slots,
                "roles": part.roles,
                **part.settings,
            }
        ),
        backend=InMemoryBackend(
            answer, models=models, url=MEMORY_URL, delay_per_token_s=part.delay_per_token_s
        ),
        calls=calls,
    )


def _memory() -> Path | None:
    return MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None


@asynccontextmanager
async def open_world(
    nodes: int | Sequence[Part],
    *,
    seed: int = 0,
    weather: Weather | None = None,
    folder: Path | None = None,
) -> AsyncIterator[World]:
    """Nodes that are up and have met. `nodes`: how many of the plain kind, or what each is.

    Their files are made below `folder`, or in memory where the system has a place for that. Wants
    virtual time: a `virtual_time.JumpingClock`.
    """
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, JumpingClock)
    wires = StormyWires(clock, seed=seed, weather=weather, grain_s=0.005)
    parts = [Part() for _ in range(nodes)] if isinstance(nodes, int) else nodes
    root = MeshRoot(hashlib.sha256(f"{seed} root".encode()).digest())
    with TemporaryDirectory(prefix="kowalski-world-", dir=folder or _memory()) as made:
        places = [_place(i, part, root, Path(made), seed) for i, part in enumerate(parts)]
        for place in places:
            wires.times[place.identity.peer] = place.time
        with deadlines_by_node():
            async with (
                open_loopback_network(wires=wires) as network,
                trio.open_nursery() as nursery,
            ):
                world = World(network, wires, nursery, places)
                for number in range(len(places)):
                    await world.start(number)
                await world.meet()
                yield world
                nursery.cancel_scope.cancel()
