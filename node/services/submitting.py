"""What a node opens for its owner's tasks: the ledger, its gossip, the tasks of the whole mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.identity import Identity
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.transport import Transport
from kowalski.node.services import detached_task
from kowalski.node.services.detached import DetachedRoom
from kowalski.node.services.following_afar import PROTOCOL
from kowalski.node.services.leading import COORDINATORS, SUBMITTERS, Leading
from kowalski.node.services.mesh_tasks import MeshTasks
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.node.services.task_gossip import TaskGossip
from kowalski.node.storage import LedgerStorage
from kowalski.protocol import ids


@dataclass(frozen=True, slots=True)
class Submitting:
    submitter: SubmitterRoom
    tasks: MeshTasks
    detached: DetachedRoom


async def open_submitting(
    mesh: Mesh,
    transport: Transport,
    storage: LedgerStorage,
    store: ContentStore,
    nursery: trio.Nursery,
    *,
    boot: str,
    unix_clock: Callable[[], float],
    identity: Identity | None = None,
    leading: Leading | None = None,
) -> Submitting:
    """Take up what the disk has, and serve those who ask; with tasks in `nursery`."""
    submitter = SubmitterRoom(mesh, storage, store, unix_clock=unix_clock)
    await nursery.start(submitter.run)
    detached = DetachedRoom(
        mesh,
        storage.detached,
        store,
        leading.fences if leading is not None else None,
        identity=identity,
        unix_clock=unix_clock,
    )
    await nursery.start(detached.run)
    mesh.serve(detached_task.PROTOCOL, detached.answer, askers=COORDINATORS | SUBMITTERS)
    gossip = TaskGossip(
        transport,
        ids.topic(mesh.membership.mesh, "tasks"),
        boot=boot,
        admits=mesh.trust.book.admits,
        own=lambda: [*submitter.headlines(), *detached.headlines()],
    )
    await nursery.start(gossip.run)
    tasks = MeshTasks(mesh, submitter, detached, gossip, unix_clock=unix_clock)
    mesh.serve(PROTOCOL, tasks.answer, askers=SUBMITTERS)
    return Submitting(submitter, tasks, detached)
