"""The room that leads tasks which other peers, or this one, have submitted."""

from __future__ import annotations

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Conversation
from kowalski.mesh.mesh import Mesh
from kowalski.node.core.fences import Fences
from kowalski.node.services.coordination import Coordination, Patience
from kowalski.node.services.placed_work import PlacedWork
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.task import Grant

log = structlog.get_logger(__name__)

PROTOCOL = "/kowalski/task/1"
TASKS_AT_A_TIME = 64


class CoordinatorRoom:
    """Serves `/kowalski/task/1`. Each granted term is a block of its own in `nursery`."""

    def __init__(
        self,
        mesh: Mesh,
        work: PlacedWork,
        store: ContentStore,
        nursery: trio.Nursery,
        *,
        patience: Patience | None = None,
        tasks_max: int = TASKS_AT_A_TIME,
    ) -> None:
        self._mesh = mesh
        self._work = work
        self._store = store
        self._nursery = nursery
        self._patience = patience or Patience()
        self._tasks_max = tasks_max
        self._fences = Fences()
        self._leading: dict[TaskId, Coordination] = {}

    @property
    def leading(self) -> dict[TaskId, int]:
        """Tasks led now, with their terms."""
        return {task: coordination.term for task, coordination in self._leading.items()}

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        if not isinstance(request, Grant):
            raise RemoteProtocolError(f"{request.KIND} opens no task conversation")
        self._fences, stale = self._fences.hear(request.task, request.term)
        if stale is not None:
            raise RequestRefusedError("stale", f"term {request.term}, {stale.term} was heard")
        coordination = self._leading.get(request.task)
        if coordination is not None and coordination.term < request.term:
            coordination.scope.cancel()
            await coordination.ended.wait()
        if coordination is None or coordination.ended.is_set():
            coordination = self._begin(request)
        return await coordination.attend(conversation, request)

    def _begin(self, grant: Grant) -> Coordination:
        if len(self._leading) >= self._tasks_max:
            raise RequestRefusedError("busy", f"{len(self._leading)} tasks are led here", 1.0)
        coordination = Coordination(
            grant,
            mesh=self._mesh,
            work=self._work,
            store=self._store,
            patience=self._patience,
        )
        self._leading[grant.task] = coordination
        self._nursery.start_soon(self._run, grant.task, coordination)
        log.info("term-begun", task=grant.task, term=grant.term, prefix=grant.prefix_entries)
        return coordination

    async def _run(self, task: TaskId, coordination: Coordination) -> None:
        try:
            await coordination.run()
        except Exception:  # one task must not end a node
            log.exception("coordination-died", task=task, term=coordination.term)
        finally:
            if self._leading.get(task) is coordination:
                del self._leading[task]
            log.info("term-ended", task=task, term=coordination.term)
