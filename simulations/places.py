"""The nodes of a world: what each is made of, what outlives its processes, what ails it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from kowalski.mesh.identity import Identity, identity_from_seed
from kowalski.mesh.loopback_transport import LoopbackTransport
from kowalski.mesh.membership_certificates import Membership, MeshRoot
from kowalski.node.app import Hands
from kowalski.node.backends.catalogue import open_catalogue
from kowalski.node.backends.in_memory import InMemoryBackend
from kowalski.node.backends.probing import Candidate, Finding
from kowalski.node.backends.seam import CompletionRequest, ModelInfo
from kowalski.node.config import NodeConfig
from kowalski.node.control_messages import ROLES, Role
from kowalski.node.repl.sandbox import SandboxVerdict
from kowalski.node.repl.scripted_sessions import (
    Script,
    ScriptedCell,
    ScriptedHost,
    ScriptedState,
    open_scripted_host,
)
from kowalski.node.telemetry_sources import DeviceProfile, HotSample
from kowalski.node.verbs import Node
from simulations.disks import Disk
from simulations.plan import IMPROVISE
from simulations.scenarios import Devices
from simulations.toy_cells import toy_script
from simulations.virtual_time import NodeTime
from simulations.voices import Voice

UNIX_EPOCH_S = 1_800_000_000.0
MEMORY_URL = "memory://"
SESSION_IDLE_S = 90.0
"""Longer than any cell of a story waits for another; shorter than on a device, so that a story in
which nobody could say that a session is over does not last ten minutes more."""

Model = Callable[[CompletionRequest], str]
OnCell = Callable[[str, ScriptedState], None]
"""Told of the code of each cell that begins, and of what its session had run before."""


def echo(request: CompletionRequest) -> str:
    """The model of a world that needs no better one."""
    said = request.messages[-1].content if request.messages else request.said
    return "reply to: " + said.replace("```", "...")


def terse(request: CompletionRequest) -> str:
    """The same in few tokens, since each is a message: what a story is told with."""
    words = echo(request).split()
    pieces = ["_".join(words[start : start + 25]) for start in range(0, len(words), 25)]
    return " ".join(pieces)


def improvising(request: CompletionRequest) -> str:
    """`terse`, but where cells are wanted: those are other ones each time, as with real models.

    A reply that broke off goes on as it began.
    """
    found = re.search(rf"^{IMPROVISE} (\d+)$", _first_question(request), re.MULTILINE)
    if found is None:
        return terse(request)
    ordinal = found[1]
    begun = re.search(r"keep [xy] (\d+)", request.so_far)
    whim = begun[1] if begun else int(trio.current_time() * 1000) % 10_000
    turns = (
        f"keep x {whim}\nwait 0.1\nshow x",
        f"keep y {whim}\nwait 0.1\nshow x\nshow y",
        f"show x\nshow y\nanswer done {ordinal}",
    )
    turn = sum(one.role == "assistant" for one in request.messages)
    return f"```python\n{turns[min(turn, len(turns) - 1)]}\n```"


def _first_question(request: CompletionRequest) -> str:
    return next((one.content for one in request.messages if one.role == "user"), "")


def as_said(text: str) -> str:
    """What a model that is `terse` makes of a text, to be looked for in its answers."""
    return "_".join(text.split())


@dataclass(frozen=True, slots=True)
class Part:
    """What one node of a world is. No `languages`: it runs no code."""

    languages: Mapping[str, str] = field(default_factory=lambda: {"python": "3.11", "bash": "5.2"})
    models: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ROLES
    certified: tuple[Role, ...] = ROLES
    """What its certificate lets it ask of others."""
    slots: int = 4
    model_slots: int = 16
    delay_per_token_s: float = 0.0
    tells: Model = echo
    script: Script = toy_script
    slowness: float = 1.0
    """How many times as long as a script says its cells take."""
    speaks_newer: bool = False
    """Says more than our version knows, as a later one would."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """More of its `NodeConfig`."""


def parts_of(devices: Iterable[Devices], *, tells: Model, script: Script) -> list[Part]:
    """The nodes of a scenario, whose models and cells are these."""
    return [
        Part(
            languages=dict.fromkeys(one.languages, "1.0"),
            models=one.models,
            roles=one.roles,
            slots=one.slots,
            model_slots=one.model_slots,
            delay_per_token_s=one.token_ms / 1000,
            slowness=one.slowness,
            speaks_newer=one.speaks_newer,
            tells=tells,
            script=script,
        )
        for one in devices
        for _ in range(one.count)
    ]


@dataclass(slots=True)
class Place:
    """One node: what outlives its processes, and the one that runs now."""

    number: int
    part: Part
    identity: Identity
    membership: Membership
    config: NodeConfig
    backend: InMemoryBackend
    disk: Disk
    time: NodeTime = field(default_factory=NodeTime)
    voice: Voice = field(default_factory=Voice)
    unix_offset_s: float = 0.0
    """How wrong its calendar is."""
    slowness: float = 1.0
    calls: list[str] = field(default_factory=list)
    """What its model was asked last, call by call."""
    cells: list[str] = field(default_factory=list)
    """The code of every cell that began here."""
    on_cell: list[OnCell] = field(default_factory=list)
    context: Context = field(default_factory=Context)
    """In which its process runs: with its clock."""
    boots: int = 0
    node: Node | None = None
    transport: LoopbackTransport | None = None
    hands: Hands | None = None
    scope: trio.CancelScope | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    starting: trio.Lock = field(default_factory=trio.Lock)

    async def kill_sessions(self) -> None:
        """End every process that runs cells here, as the kernel would when memory is short."""
        if self.hands is not None and isinstance(self.hands.host, ScriptedHost):
            await self.hands.host.close()

    def script(self, code: str, state: ScriptedState) -> ScriptedCell:
        """A `scripted_sessions.Script`: that of the part, at the speed of this place."""
        self.cells.append(code)
        for tell in self.on_cell:
            tell(code, state)
        cell = self.part.script(code, state)
        return replace(cell, duration_s=cell.duration_s * self.slowness)


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


@asynccontextmanager
async def open_hands(place: Place) -> AsyncIterator[Hands]:
    """What a place runs code and models with."""

    async def look(wanted: Sequence[Candidate]) -> tuple[Finding, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(Finding(one.url, True, "openai", place.backend) for one in wanted)

    part = place.part
    wanted = (Candidate(MEMORY_URL, MEMORY_URL),) if part.models else ()
    async with (
        open_catalogue(wanted, look) as catalogue,
        open_scripted_host(place.script, languages=part.languages, slots=part.slots) as host,
    ):
        verdict = SandboxVerdict(None, "scripted", "a simulation")
        yield Hands(host if part.languages else None, verdict, catalogue, SESSION_IDLE_S)


def make_place(number: int, part: Part, root: MeshRoot, folder: Path, *, seed: int) -> Place:
    """A place with an identity that follows from the seed, a member of the root's mesh."""
    identity = identity_from_seed(hashlib.sha256(f"{seed} node {number}".encode()).digest())
    calls: list[str] = []

    def answer(request: CompletionRequest) -> str:
        calls.append(request.messages[-1].content if request.messages else request.said)
        return part.tells(request)

    models = tuple(ModelInfo(name, is_warm=True, slots=part.model_slots) for name in part.models)
    return Place(
        number=number,
        part=part,
        identity=identity,
        membership=Membership(
            root.mesh,
            root.certify(identity.peer, part.certified, now_unix_s=int(UNIX_EPOCH_S)),
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
        disk=Disk(number),
        voice=Voice(is_newer=part.speaks_newer),
        slowness=part.slowness,
        calls=calls,
    )
