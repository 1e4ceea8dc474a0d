"""What the control socket offers: each verb of the command line, done with this node's rooms."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from kowalski import __version__
from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.discovery import Discovery
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.mesh import Mesh
from kowalski.node import control_messages as asked
from kowalski.node import doctor
from kowalski.node.backends.catalogue import Catalogue
from kowalski.node.config import NodeConfig
from kowalski.node.control import Emit, Verb
from kowalski.node.core.checks import as_reply
from kowalski.node.drain_verbs import DrainVerbs
from kowalski.node.explain_verbs import ExplainVerbs
from kowalski.node.fold_book import FoldBook
from kowalski.node.folding_verbs import FoldingVerbs
from kowalski.node.mesh_verbs import MeshVerbs, warnings_of
from kowalski.node.model_verbs import ModelVerbs
from kowalski.node.peer_rows import condition_of, ends_in_s, load_of, membership_of
from kowalski.node.program_verbs import ProgramVerbs
from kowalski.node.repl.sandbox import SandboxVerdict
from kowalski.node.services.draining import Draining
from kowalski.node.services.leading import Leading
from kowalski.node.services.mesh_tasks import MeshTasks
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.reach import checks_by_peers
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.node.services.submitting import Submitting
from kowalski.node.task_verbs import TaskVerbs
from kowalski.node.tracing import NoTracing, Tracing
from kowalski.protocol.ids import Address
from kowalski.protocol.messages.base import sayable

Reply = dict[str, object]
R = TypeVar("R", bound=asked.Request)


@dataclass(frozen=True, slots=True)
class Node:
    """The rooms of an open node that the verbs use."""

    mesh: Mesh
    submitting: Submitting
    work: PlacedWork
    store: ContentStore
    invites: InviteBook
    leading: Leading | None
    """None where it leads no tasks."""
    draining: Draining

    tracing: Tracing = field(default_factory=NoTracing)

    @property
    def submitter(self) -> SubmitterRoom:
        return self.submitting.submitter

    @property
    def tasks(self) -> MeshTasks:
        return self.submitting.tasks


@dataclass(slots=True)
class Ports:
    """Where servers listen that were opened after the verbs; None where there is none."""

    http: int | None = None


@dataclass(frozen=True, slots=True)
class Here:
    """What is known of this device and process."""

    config: NodeConfig
    sandbox: SandboxVerdict
    languages: Mapping[str, str]
    catalogue: Catalogue
    discovery: Discovery | None
    started_at: float
    unix_clock: Callable[[], float]
    ports: Ports = field(default_factory=Ports)


def verbs_of(node: Node, here: Here) -> Mapping[str, Verb]:
    verbs = _Verbs(node, here)
    of_mesh = MeshVerbs(node.mesh, node.invites, here.unix_clock)
    of_tasks = TaskVerbs(node.mesh, node.submitter, node.tasks, node.store, here.unix_clock)
    programs = ProgramVerbs(node.work, node.store, node.mesh, of_tasks.journal, here.unix_clock)
    reasons = ExplainVerbs(
        node.mesh,
        store=node.store,
        work=node.work,
        submitter=node.submitter,
        tasks=of_tasks,
        unix_clock=here.unix_clock,
    )
    folds = FoldBook(here.config.fold_book_path, here.unix_clock)
    offered: Mapping[str, Verb] = {
        "status": verbs.status,
        "peers": of_mesh.peers,
        "topology": of_mesh.topology,
        "tasks": of_tasks.tasks,
        "task": of_tasks.task,
        "submit": of_tasks.submit,
        "attach": of_tasks.attach,
        "cancel": of_tasks.cancel,
        "resume": of_tasks.resume,
        "trace": of_tasks.trace,
        "run": programs.run,
        "files": programs.files,
        "doctor": verbs.doctor,
        "invite": of_mesh.invite,
        "revoke": of_mesh.revoke,
        **reasons.offered(),
        **DrainVerbs(node.draining).offered(),
        **FoldingVerbs(node.mesh, node.work, node.store, folds).offered(),
        **ModelVerbs(node.mesh, node.work, node.store).offered(),
    }
    return {name: _hearing(verb) for name, verb in offered.items()}


def _hearing(verb: Verb) -> Verb:
    """`verb`, for requests in which JSON may have left halves of characters."""

    async def hear(raw: Reply, emit: Emit) -> Reply:
        return await verb({name: _sayable(value) for name, value in raw.items()}, emit)

    return hear


def _sayable(value: object) -> object:
    if isinstance(value, str):
        return sayable(value)
    if isinstance(value, list):
        return [_sayable(item) for item in value]
    return (
        {name: _sayable(one) for name, one in value.items()} if isinstance(value, dict) else value
    )


class _Verbs:
    def __init__(self, node: Node, here: Here) -> None:
        self._node = node
        self._here = here

    # --- looking --------------------------------------------------------------------------------

    async def status(self, raw: Reply, _emit: Emit) -> Reply:
        asked.parse(asked.StatusRequest, raw)
        await trio.lowlevel.checkpoint()
        here, mesh = self._here, self._node.mesh
        us = mesh.facts_of(mesh.me)
        listening = _listening(us.addresses)
        models = us.profile.models if us.profile else ()
        return {
            "name": us.name,
            "peer": mesh.me,
            "mesh": mesh.membership.mesh,
            "pid": os.getpid(),
            "version": __version__,
            "uptime_s": trio.current_time() - here.started_at,
            "data_dir": str(here.config.data_dir),
            "p2p_port": listening[1] if listening else None,
            "http_port": here.ports.http,
            "control_path": str(here.config.control_path),
            "addresses": list(us.addresses),
            "roles": list(us.roles),
            "sandbox": here.sandbox.tier,
            "languages": dict(here.languages),
            "models": [model.name for model in models],
            "backends": [one.url for one in here.catalogue.findings if one.backend is not None],
            "discovery": _discovery_words(here.discovery),
            "load": load_of(us),
            **condition_of(us.profile, us.hot),
            **membership_of(mesh),
            "certificate_ends_in_s": ends_in_s(mesh, mesh.me, here.unix_clock()),
            "roster_version": mesh.trust.book.roster_version,
            "is_revoked": mesh.trust.is_revoked,
            "refused": dict(mesh.trust.refused),
            "warnings": warnings_of(mesh),
            "connections": sum(one.state == "member" and not one.is_self for one in mesh.facts()),
            "tasks": self._node.submitter.open_tasks,
            "draining": self._node.draining.is_on,
            "folding": dataclasses.asdict(self._node.work.fold_counts),
        }

    async def doctor(self, raw: Reply, _emit: Emit) -> Reply:
        asked.parse(asked.DoctorRequest, raw)
        here, mesh = self._here, self._node.mesh
        listening = _listening(mesh.facts_of(mesh.me).addresses)
        host, port = listening or (here.config.listen_host, here.config.p2p_port)
        checks = await doctor.examine(
            data_dir=here.config.data_dir,
            p2p_host=host,
            p2p_port=port,
            is_node_running=listening is not None,
            sandbox=doctor.sandbox_found(here.sandbox, is_offered="repl" in here.config.roles),
            backends=doctor.backends_found(here.catalogue.findings),
        )
        checks += doctor.check_membership(
            ends_in_s(mesh, mesh.me, here.unix_clock()),
            is_revoked=mesh.trust.is_revoked,
            warnings=warnings_of(mesh),
        )
        checks += tuple(await checks_by_peers(mesh, here.unix_clock))
        return as_reply(checks)


def _listening(addresses: Iterable[Address]) -> tuple[str, int] | None:
    """Host and port of the first address that is one of TCP."""
    for address in addresses:
        match address.split("/"):
            case ["", "ip4" | "ip6", host, "tcp", port, *_]:
                return host, int(port)
            case _:
                pass
    return None


def _discovery_words(discovery: Discovery | None) -> str:
    if discovery is None:
        return "off"
    return discovery.problem or "mdns"
