"""What a node opens to lead tasks: the coordinator's room, the copies, and their common fences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.mesh import Mesh
from kowalski.node.copy_storage import CopyStorage
from kowalski.node.services import coordinator, copies
from kowalski.node.services.coordination import Patience, Rooms
from kowalski.node.services.coordinator import CoordinatorRoom
from kowalski.node.services.copies import CopyRoom
from kowalski.node.services.fence_book import FenceBook
from kowalski.node.services.placed_work import PlacedWork
from kowalski.protocol.messages.trust import Role

SUBMITTERS: frozenset[Role] = frozenset({"submit"})
COORDINATORS: frozenset[Role] = frozenset({"coordinate"})


@dataclass(frozen=True, slots=True)
class Leading:
    coordinator: CoordinatorRoom
    copies: CopyRoom
    fences: FenceBook


def open_leading(
    mesh: Mesh,
    work: PlacedWork,
    store: ContentStore,
    storage: CopyStorage,
    nursery: trio.Nursery,
    *,
    unix_clock: Callable[[], float],
    patience: Patience | None = None,
) -> Leading:
    """Serve submitters and other coordinators, with tasks in `nursery`."""
    fences = FenceBook()
    held = CopyRoom(mesh, storage, store, fences, unix_clock=unix_clock)
    rooms = Rooms(mesh, work, store, held, patience or Patience())
    leader = CoordinatorRoom(rooms, fences, nursery)
    # A node that may not submit leads detached tasks of others by asking itself.
    mesh.serve(coordinator.PROTOCOL, leader.answer, askers=SUBMITTERS | COORDINATORS)
    mesh.serve(copies.PROTOCOL, held.answer, askers=COORDINATORS)
    nursery.start_soon(held.run)
    return Leading(leader, held, fences)
