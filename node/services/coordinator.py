"""The room that leads tasks which other peers, or this one, have submitted."""

from __future__ import annotations

import structlog
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.interruption import interrupted_if
from kowalski.node.core import coordinator_desk
from kowalski.node.core.coordinator_desk import CoordinatorDesk
from kowalski.node.core.fair_queue import RANK
from kowalski.node.core.fences import TaskKey
from kowalski.node.services.coordination import Coordination, Rooms
from kowalski.node.services.fence_book import FenceBook
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.task import Grant

log = structlog.get_logger(__name__)

PROTOCOL = "/kowalski/task/1"
TASKS_AT_A_TIME = 64


class CoordinatorRoom:
    """Serves `/kowalski/task/1`. Each task that is led is a block of its own in `nursery`."""

    def __init__(
        self,
        rooms: Rooms,
        fences: FenceBook,
        nursery: trio.Nursery,
        *,
        tasks_max: int = TASKS_AT_A_TIME,
    ) -> None:
        self._rooms = rooms
        self._fences = fences
        self._nursery = nursery
        self._desk = CoordinatorDesk(slots=tasks_max, queue_max=tasks_max)
        self._leading: dict[TaskKey, Coordination] = {}
        fences.listen(self._heed_term)

    @property
    def leading(self) -> dict[TaskId, int]:
        """Tasks led now, with their terms."""
        return {task: one.term for (_, task), one in self._leading.items()}

    def drain(self, *, is_on: bool) -> None:
        """Take no new tasks, or take them again. Those that are led stay: see `hand_over`."""
        self._desk = coordinator_desk.drain(self._desk, is_on=is_on)
        for one in self._leading.values():
            one.under_way.go_on()

    def hand_over(self) -> None:
        """Give back each task that is at rest, and have the others come to rest.

        Those that nobody could take up go on here: their submitter is away, or nobody else leads.
        """
        mesh = self._rooms.mesh
        may_lead = any(
            one.is_routable and "coordinate" in one.roles and not one.is_draining
            for one in mesh.candidates()
            if one.peer != mesh.me
        )
        for one in tuple(self._leading.values()):
            if not (may_lead and one.has_a_taker):
                one.under_way.go_on()
                continue
            one.under_way.hold()
            if one.is_at_rest:
                one.decline("draining", "this node is about to leave")

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        if not isinstance(request, Grant):
            raise RemoteProtocolError(f"{request.KIND} opens no task conversation")
        key = (self._whose(request, conversation.peer), request.task)
        self._fences.check(key, request.term)
        coordination = self._leading.get(key)
        is_earlier = coordination is not None and coordination.term < request.term
        if coordination is not None and is_earlier and not coordination.adopt(request):
            coordination.depose()
            await coordination.ended.wait()
        self._fences.hear(key, request.term)
        if coordination is None or coordination.ended.is_set():
            coordination = self._begin(request, key[0])
        return await coordination.attend(conversation, request)

    def _whose(self, grant: Grant, asker: PeerId) -> PeerId:
        """Of a detached task this node itself says whose it was; nobody else may."""
        if grant.submitter is None or grant.submitter == asker:
            if "submit" not in self._rooms.mesh.roles_of(asker):
                raise RequestRefusedError("not_allowed", "this needs the role submit")
            return asker
        if asker != self._rooms.mesh.me:
            raise RequestRefusedError("not_allowed", "a term of somebody else's task")
        return grant.submitter

    def _heed_term(self, key: TaskKey, term: int) -> None:
        """Somebody has been appointed: whoever leads in an earlier term stops."""
        coordination = self._leading.get(key)
        if coordination is not None and coordination.term < term:
            coordination.depose()

    def _begin(self, grant: Grant, submitter: PeerId) -> Coordination:
        key = (submitter, grant.task)
        rank = RANK[grant.spec.priority]
        self._desk, decision = coordinator_desk.admit(self._desk, key, rank, trio.current_time())
        if isinstance(decision, coordinator_desk.Refuse):
            raise RequestRefusedError(decision.reason, decision.detail, decision.retry_after_s)
        coordination = Coordination(grant, submitter, self._rooms)
        self._leading[key] = coordination
        self._nursery.start_soon(self._run, key, coordination)
        log.info("term-begun", task=grant.task, term=grant.term, prefix=grant.prefix_entries)
        match decision:
            case coordinator_desk.Lead():
                coordination.turn.set()
            case coordinator_desk.Wait(ahead=ahead):
                led = len(self._desk.leading)
                coordination.note(f"it waits its turn: {led} tasks are led here, {ahead} wait")
        return coordination

    async def _run(self, key: TaskKey, coordination: Coordination) -> None:
        try:
            with interrupted_if(lambda: coordination.is_deposed):
                await coordination.run()
        except Exception:  # one task must not end a node
            log.exception("coordination-died", task=key[1], term=coordination.term)
        finally:
            if self._leading.get(key) is coordination:
                self._leave(key)
            log.info("term-ended", task=key[1], term=coordination.term)

    def _leave(self, key: TaskKey) -> None:
        del self._leading[key]
        self._desk, next_up = coordinator_desk.leave(self._desk, key, trio.current_time())
        if next_up is not None:
            self._leading[next_up].turn.set()
