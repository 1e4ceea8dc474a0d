"""What a node opens for its owner's tasks: the ledger, its gossip, the tasks of the whole mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.transport import Transport
from kowalski.node.services import mesh_tasks
from kowalski.node.services.leading import SUBMITTERS
from kowalski.node.services.mesh_tasks import MeshTasks
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.node.services.task_gossip import TaskGossip
from kowalski.node.storage import LedgerStorage
from kowalski.protocol import ids


@dataclass(frozen=True, slots=True)
class Submitting:
    submitter: SubmitterRoom
    tasks: MeshTasks


async def open_submitting(
    mesh: Mesh,
    transport: Transport,
    storage: LedgerStorage,
    store: ContentStore,
    nursery: trio.Nursery,
    *,
    boot: str,
    unix_clock: Callable[[], float],
) -> Submitting:
    """Take up what the disk has, and serve those who ask; with tasks in `nursery`."""
    submitter = SubmitterRoom(mesh, storage, store, unix_clock=unix_clock)
    await nursery.start(submitter.run)
    gossip = TaskGossip(
        transport,
        ids.topic(mesh.membership.mesh, "tasks"),
        boot=boot,
        admits=mesh.trust.book.admits,
        own=submitter.headlines,
    )
    await nursery.start(gossip.run)
    tasks = MeshTasks(mesh, submitter, gossip, unix_clock=unix_clock)
    mesh.serve(mesh_tasks.PROTOCOL, tasks.answer, askers=SUBMITTERS)
    return Submitting(submitter, tasks)
