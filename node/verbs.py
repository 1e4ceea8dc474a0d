"""What the control socket offers: each verb of the command line, done with this node's rooms."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
from kowalski.node.core.task_ledger import Task
from kowalski.node.emitting import emitting
from kowalski.node.mesh_verbs import MeshVerbs, ends_in_s, load_of, warnings_of
from kowalski.node.model_verbs import ModelVerbs
from kowalski.node.plain_files import check_is_plain, read_text
from kowalski.node.program_arguments import with_arguments
from kowalski.node.repl.sandbox import SandboxVerdict
from kowalski.node.services.folding import SOURCE_BYTES_MAX
from kowalski.node.services.leading import Leading
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.placing import Placed
from kowalski.node.services.submitter import Seen, SubmitterRoom
from kowalski.node.task_view import TaskView, headline
from kowalski.node.tracing import NoTracing, Tracing
from kowalski.protocol import ids
from kowalski.protocol.errors import ConfigError, PeerUnreachableError
from kowalski.protocol.ids import Address, TaskId
from kowalski.protocol.limits import (
    CODE_BYTES_MAX,
    INPUTS_MAX,
    PROMPT_BYTES_MAX,
    TEXT_BYTES_MAX,
)
from kowalski.protocol.messages.base import LINE_CHARS_MAX, sayable
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.folding import FoldAsked
from kowalski.protocol.messages.repl import CellAsked, Input
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.parsing import LANGUAGES
from kowalski.rlm.tokens import estimate_tokens

Reply = dict[str, object]
R = TypeVar("R", bound=asked.Request)

ITERATIONS_BLOCKS = 5
ITERATIONS_RLM = 30
RATIO_DEFAULT = 0.25
NAME_CHARS_MAX = 128


@dataclass(frozen=True, slots=True)
class Node:
    """The rooms of an open node that the verbs use."""

    mesh: Mesh
    submitter: SubmitterRoom
    work: PlacedWork
    store: ContentStore
    invites: InviteBook
    leading: Leading | None
    """None where it leads no tasks."""

    tracing: Tracing = field(default_factory=NoTracing)


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
    offered: Mapping[str, Verb] = {
        "status": verbs.status,
        "peers": of_mesh.peers,
        "tasks": verbs.tasks,
        "task": verbs.task,
        "submit": verbs.submit,
        "cancel": verbs.cancel,
        "run": verbs.run,
        "fold": verbs.fold,
        "doctor": verbs.doctor,
        "invite": of_mesh.invite,
        "revoke": of_mesh.revoke,
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
            "certificate_ends_in_s": ends_in_s(mesh, mesh.me, here.unix_clock()),
            "roster_version": mesh.trust.book.roster_version,
            "is_revoked": mesh.trust.is_revoked,
            "refused": dict(mesh.trust.refused),
            "warnings": warnings_of(mesh),
            "connections": sum(one.state == "member" and not one.is_self for one in mesh.facts()),
            "tasks": sum(not task.is_over for task in self._node.submitter.tasks),
        }

    async def tasks(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.TasksRequest, raw)
        await trio.lowlevel.checkpoint()
        latest = self._node.submitter.tasks[: request.limit]
        now, name_of = self._here.unix_clock(), self._node.mesh.name_of
        return {"tasks": [headline(task, name_of, now) for task in latest]}

    async def task(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.TaskRequest, raw)
        task = self._node.submitter.find(request.task)
        row = headline(task, self._node.mesh.name_of, self._here.unix_clock())
        return {**row, **await self._result(task)}

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
        return doctor.as_reply(checks)

    # --- tasks ----------------------------------------------------------------------------------

    async def submit(self, raw: Reply, emit: Emit) -> Reply:
        """Take a task in, and follow it; hanging up leaves it going."""
        request = asked.parse(asked.SubmitRequest, raw)
        spec = await self._spec(request)
        entropy = secrets.token_bytes(10)
        name = request.task_id or ids.task_id(int(self._here.unix_clock() * 1000), entropy)
        submitter = self._node.submitter
        with submitter.watch(name) as seen:
            task = submitter.submit(name, spec)
            await emit({"kind": "submitted", "task": task.id, "mode": spec.mode})
            if not request.follow:
                return {"task": task.id, "state": task.state}
            await self._show(name, seen, emit)
        while not submitter.find(name).is_over:
            # Events came faster than they were read: go on from where the task is now.
            with submitter.watch(name) as seen:
                await self._show(name, seen, emit)
        return await self._result(submitter.find(name))

    async def _show(self, task: TaskId, seen: trio.MemoryReceiveChannel[Seen], emit: Emit) -> None:
        """Emit what is seen of the task until it ends, or until we are left behind."""
        view = TaskView(self._node.mesh.name_of)
        view.read(self._node.submitter.entries(task))
        if self._node.submitter.find(task).is_over:
            return
        async for event in seen:
            for shown in view.events(event):
                await emit(shown)
            if event.task.is_over:
                return

    async def _result(self, task: Task) -> Reply:
        view = TaskView(self._node.mesh.name_of)
        view.read(self._node.submitter.entries(task.id))
        return view.result(task, await self._answer(task))

    async def _spec(self, request: asked.SubmitRequest) -> TaskSpec:
        size = len(request.prompt.encode())
        if size > PROMPT_BYTES_MAX:
            raise ConfigError(
                f"a prompt of {size} bytes; at most {PROMPT_BYTES_MAX}: give long text as --context"
            )
        if len(request.context) > INPUTS_MAX:
            raise ConfigError(f"{len(request.context)} context files; at most {INPUTS_MAX}")
        names = [one.name for one in request.context]
        if long := next((name for name in names if len(name) > NAME_CHARS_MAX), None):
            raise ConfigError(f"context file {long[:20]}...: a name of over {NAME_CHARS_MAX}")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"two context files are named {twice}")
        inputs = [
            Input(name=one.name, content=await self._keep_file(Path(one.path)))
            for one in request.context
        ]
        iterations = ITERATIONS_BLOCKS if request.mode == "blocks" else ITERATIONS_RLM
        return TaskSpec(
            prompt=request.prompt,
            mode=request.mode,
            model=request.model,
            inputs=tuple(inputs),
            max_iterations=request.max_iterations or iterations,
            timeout_s=request.timeout_s,
        )

    async def _keep_file(self, path: Path) -> ContentRef:
        try:
            await check_is_plain(path)
            return await self._node.store.put_file(path)
        except OSError as error:
            raise ConfigError(f"context file {path}: {error.strerror or error}") from error

    async def _answer(self, task: Task) -> str:
        """All of it, wherever it lies."""
        closed = task.answer
        if closed is None or closed.full is None:
            return closed.answer if closed else ""
        try:
            await self._node.store.fetch(closed.full, self._node.mesh)
        except PeerUnreachableError as lost:
            return f"{closed.answer}\n[the rest cannot be had: {lost}]"
        return (await self._node.store.read(closed.full)).decode(errors="replace")

    async def cancel(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.CancelRequest, raw)
        submitter = self._node.submitter
        submitter.cancel(request.task, "cancelled by its owner")
        while not submitter.find(request.task).is_over:
            with submitter.watch(request.task) as seen:
                async for one in seen:
                    if one.task.is_over:
                        break
        task = submitter.find(request.task)
        return {"task": task.id, "state": task.state, "answer": await self._answer(task)}

    # --- single pieces of work ------------------------------------------------------------------

    async def run(self, raw: Reply, emit: Emit) -> Reply:
        request = asked.parse(asked.RunRequest, raw)
        language = LANGUAGES.get(request.language.lower())
        if language is None:
            known = ", ".join(sorted(set(LANGUAGES.values())))
            raise ConfigError(f"unknown language {request.language}; known: {known}")
        code = with_arguments(language, request.code, request.args)
        if len(code.encode()) > CODE_BYTES_MAX:
            raise ConfigError(
                f"a program of {len(code)} characters; at most {CODE_BYTES_MAX} bytes"
            )
        entropy = secrets.token_bytes(10)
        cell = CellAsked(
            task=TaskId("run-" + ids.task_id(int(self._here.unix_clock() * 1000), entropy)),
            term=1,
            cell=0,
            language=language,
            code=code,
            keeps_session=False,
            timeout_s=request.timeout_s,
            remaining_s=request.timeout_s,
        )
        async with emitting(emit) as tell:
            done, placed = await self._node.work.run_alone(
                cell,
                on_output=lambda stream, data: tell(
                    {"kind": "output", "stream": stream, "text": data.decode(errors="replace")}
                ),
                on_restart=lambda why: tell(
                    {"kind": "note", "text": f"another peer begins anew: {why}"}
                ),
            )
        return {
            "exit_code": done.exit_code if done.exit_code is not None else int(done.status != "ok"),
            "status": done.status,
            "error": done.error,
            "value": done.value,
            "duration_s": done.duration_s,
            **_who(placed),
        }

    async def fold(self, raw: Reply, _emit: Emit) -> Reply:
        request = asked.parse(asked.FoldRequest, raw)
        if request.question and len(request.question) > LINE_CHARS_MAX:
            raise ConfigError(f"a question of over {LINE_CHARS_MAX} characters")
        text = request.text
        if text is None:
            assert request.path is not None, "the request was checked: either text or path"
            text = await read_text(Path(request.path), bytes_max=SOURCE_BYTES_MAX)
        budget = request.budget_tokens
        if budget is None:
            ratio = request.ratio or RATIO_DEFAULT
            # A long text takes a second, in which a node must not be silent.
            tokens = await trio.to_thread.run_sync(estimate_tokens, text)
            budget = max(1, int(tokens * ratio))
        data = text.encode()
        is_long = len(data) > TEXT_BYTES_MAX
        folded = await self._node.work.fold(
            FoldAsked(
                text=None if is_long else text,
                content=await self._node.store.put(data) if is_long else None,
                budget_tokens=min(budget, 10_000_000),
                question=request.question,
                remaining_s=request.timeout_s,
            )
        )
        done = folded.done
        return {
            "text": folded.text,
            "source_tokens": done.source_tokens,
            "tokens": done.tokens,
            "ratio": done.tokens / done.source_tokens if done.source_tokens else 1.0,
            "algorithm": done.algorithm,
            **_who(folded.placed),
        }


def _listening(addresses: Iterable[Address]) -> tuple[str, int] | None:
    """Host and port of the first address that is one of TCP."""
    for address in addresses:
        match address.split("/"):
            case ["", "ip4" | "ip6", host, "tcp", port, *_]:
                return host, int(port)
            case _:
                pass
    return None


def _who(placed: Placed) -> Reply:
    return {
        "peer": placed.peer,
        "name": placed.name,
        "why": placed.why,
        "attempts": placed.attempts,
    }


def _discovery_words(discovery: Discovery | None) -> str:
    if discovery is None:
        return "off"
    return discovery.problem or "mdns"
