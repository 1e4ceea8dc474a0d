"""The room of detached tasks: those that were passed on from here, and those that are kept here."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core import rendezvous
from kowalski.mesh.identity import Identity, verify
from kowalski.mesh.mesh import Mesh
from kowalski.node.core import resuming
from kowalski.node.core.fences import TaskKey
from kowalski.node.database import StorageError
from kowalski.node.detached_storage import DetachedStorage, Row
from kowalski.node.services.detached_task import (
    INTAKE_S,
    DetachedTask,
    Surroundings,
    pass_on,
    read_delegation,
)
from kowalski.node.services.fence_book import FenceBook
from kowalski.node.services.wanted_contents import WantedContents
from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import detached as wire
from kowalski.protocol.messages import watching
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.journal import SessionEvent
from kowalski.protocol.messages.task import TaskHeadline, TaskSpec

log = structlog.get_logger(__name__)

TASKS_MAX = 256
"""That one node keeps; each has a journal of its own."""

KEPT_S = 86_400.0
"""After the end, and after the time that a task had which has found none."""

CLOCKS_DIFFER_S = 3600.0

DELEGATE_S = 30.0
"""How long a submitter waits until two have taken the task over."""
AGAIN_S = 2.0
AGAIN_S_MAX = 60.0
LOOK_S = 0.25
TIDY_S = 600.0


def _over_unix_s(delegation: wire.Delegation) -> float:
    """From then on nobody takes it any more."""
    return delegation.submitted_unix_s + delegation.spec.timeout_s + KEPT_S


class DetachedRoom:
    """Serves `/kowalski/detached/1`. `fences` is None where this node leads no tasks."""

    def __init__(
        self,
        mesh: Mesh,
        storage: DetachedStorage,
        store: ContentStore,
        fences: FenceBook | None,
        *,
        identity: Identity | None,
        unix_clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._storage = storage
        self._fences = fences
        self._identity = identity
        self._unix_clock = unix_clock
        self._contents = WantedContents(store, mesh)
        self._kept: dict[TaskKey, DetachedTask] = {}
        self._has_news = trio.Event()
        self._passed_on: dict[TaskKey, wire.Delegated] = {}
        """What was delegated here and is kept by others."""
        self._passed: dict[TaskKey, trio.Event] = {}
        """What is being passed on from here, or was: whether two have it."""
        self._nursery: trio.Nursery

    # --- for those who look ---------------------------------------------------------------------

    def held(self, task: TaskId, submitter: PeerId | None = None) -> tuple[DetachedTask, ...]:
        """Those of that name that this node keeps."""
        return tuple(
            one
            for (whose, name), one in self._kept.items()
            if name == task and submitter in {None, whose}
        )

    def headlines(self) -> list[TaskHeadline]:
        return [one.headline() for one in self._kept.values()]

    @property
    def kept(self) -> tuple[DetachedTask, ...]:
        return tuple(self._kept.values())

    def step_down(self) -> None:
        """This node is about to leave: the others shall lead."""
        for one in self._kept.values():
            one.step_down()

    def delegation_of(self, task: TaskId) -> wire.Delegation | None:
        """How a task was passed on from here."""
        key = (self._mesh.me, task)
        if kept := self._kept.get(key):
            return kept.delegation
        passed_on = self._passed_on.get(key)
        return None if passed_on is None else read_delegation(passed_on)

    # --- for those who submit -------------------------------------------------------------------

    def group_for(self, task: TaskId) -> tuple[PeerId, ...]:
        """Three who could keep it, this node last, as it may vanish; fewer, if there are no three.

        Raises:
            RequestRefusedError: `unsupported`, nothing can be signed here.
        """
        if self._identity is None:
            raise RequestRefusedError("unsupported", "this node has no key to sign with")
        able = {
            one.peer: 1.0
            for one in self._mesh.candidates()
            if "coordinate" in one.roles
            and one.is_routable
            and not one.is_draining
            and not one.paused
        }
        others = rendezvous.order(task, able, excluding=(self._mesh.me,))[: wire.GROUP_SIZE]
        if len(others) < wire.GROUP_SIZE and self._mesh.me in able and self._fences is not None:
            return (*others, self._mesh.me)
        return others

    async def delegate(
        self,
        task: TaskId,
        spec: TaskSpec,
        group: tuple[PeerId, ...],
        resumes: wire.Resumed | None = None,
    ) -> wire.Delegation:
        """Pass a task on for good; returns once two of the group keep it.

        The same again is the same task.

        Raises:
            RequestRefusedError: `unsupported`, nothing can be signed here; `conflict`, the name is
                another task's; `busy`, not enough of the group have taken it yet: it is on disk
                here, and goes on being passed on.
            StorageError: the disk refuses; nothing was taken in.
        """
        known = self.delegation_of(task)
        if known is not None and known.spec != spec:
            raise RequestRefusedError("conflict", f"task {task} asks something else")
        key = (self._mesh.me, task)
        if known is None:
            if self._identity is None:
                raise RequestRefusedError("unsupported", "this node has no key to sign with")
            known = wire.Delegation(
                task=task,
                submitter=self._mesh.me,
                group=group,
                submitted_unix_s=int(self._unix_clock()),
                spec=spec,
                resumes=resumes,
            )
            frame = codec.encode(known)
            signed = wire.Delegated(frame=frame, signature=self._identity.sign(frame))
            # On disk before anybody hears of it: from here on this node issues no term for it.
            self._storage.take(key, signed, int(self._unix_clock()))
            self._take_up(Row(key, signed, int(self._unix_clock()), None))
        with trio.move_on_after(DELEGATE_S):
            await self._passing(key).wait()
            return known
        words = "not yet with two of its three keepers; leave this device on, and ask again"
        raise RequestRefusedError("busy", f"task {task} is {words}", AGAIN_S)

    def _passing(self, key: TaskKey) -> trio.Event:
        """Set once two have it. It goes on being passed on, whoever waits for that."""
        if key not in self._passed:
            kept = self._kept.get(key)
            delegated = kept.delegated if kept is not None else self._passed_on[key]
            self._passed[key] = trio.Event()
            self._nursery.start_soon(self._pass_on, key, delegated, self._passed[key])
        return self._passed[key]

    async def _pass_on(self, key: TaskKey, delegated: wire.Delegated, passed: trio.Event) -> None:
        """Until two have it, or it is forgotten."""
        delegation = read_delegation(delegated)
        pause_s = AGAIN_S
        keeping: set[PeerId] = {self._mesh.me} & set(delegation.group)

        async def tell(peer: PeerId) -> None:
            if await pass_on(self._mesh, peer, key[1], delegated):
                keeping.add(peer)
                if len(keeping) > wire.GROUP_SIZE // 2:
                    passed.set()

        while key in self._passed and not passed.is_set():
            async with trio.open_nursery() as nursery:
                for peer in (one for one in delegation.group if one not in keeping):
                    nursery.start_soon(tell, peer)
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_S_MAX)

    # --- for other members ----------------------------------------------------------------------

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        match request:
            case wire.Delegated():
                return await self._keep(conversation.peer, request)
            case wire.VoteAsked():
                return self._known(request).hear_vote(conversation.peer, request)
            case wire.LogOffered():
                return await self._known(request).hear_log(conversation.peer, request)
            case watching.CancelAsked() | watching.ResumeAsked():
                return self._known(request).hear_wish(conversation.peer, request)
            case _:
                raise RemoteProtocolError(f"{request.KIND} about a detached task")

    def _known(
        self,
        asked: wire.VoteAsked | wire.LogOffered | watching.CancelAsked | watching.ResumeAsked,
    ) -> DetachedTask:
        for known in self.held(asked.task, asked.submitter):
            return known
        raise RequestRefusedError("unknown", f"no detached task {asked.task} is kept here")

    def _check(self, peer: PeerId, delegated: wire.Delegated, delegation: wire.Delegation) -> None:
        """Raises RequestRefusedError: it is not to be kept here."""
        if not verify(delegation.submitter, delegated.frame, delegated.signature):
            raise RequestRefusedError("not_allowed", "its submitter has not signed this")
        if self._mesh.me not in delegation.group or self._fences is None:
            raise RequestRefusedError("unsupported", "not one of those who shall keep it")
        if peer not in {delegation.submitter, *delegation.group}:
            raise RequestRefusedError("not_allowed", "no business of this peer's")
        if "submit" not in self._mesh.roles_of(delegation.submitter):
            raise RequestRefusedError("not_allowed", "its submitter may not submit tasks")

    async def _keep(self, peer: PeerId, delegated: wire.Delegated) -> wire.DelegationKept:
        delegation = read_delegation(delegated)
        self._check(peer, delegated, delegation)
        key = (delegation.submitter, delegation.task)
        kept = self._kept.get(key)
        if kept is None:
            if self._unix_clock() > _over_unix_s(delegation):
                # Those who kept it may have forgotten it: it is not done again.
                raise RequestRefusedError("not_allowed", "the time of this task is over")
            if sum(one.ended_unix_s is None for one in self._kept.values()) >= TASKS_MAX:
                raise RequestRefusedError("busy", f"{TASKS_MAX} detached tasks are kept", 60.0)
            unix_s = int(self._unix_clock())
            try:
                self._storage.take(key, delegated, unix_s)
                kept = self._take_up(Row(key, delegated, unix_s, None))
            except StorageError as full:
                raise RequestRefusedError("no_capacity", str(full), 30.0) from full
        elif kept.delegated.frame != delegated.frame:
            raise RequestRefusedError("conflict", f"task {key[1]} was delegated otherwise")
        with trio.move_on_after(INTAKE_S):
            while kept is not None and kept.lacks_inputs():  # noqa: ASYNC110 item by item
                await trio.sleep(0.1)
            return wire.DelegationKept(task=key[1], submitter=key[0])
        raise RequestRefusedError("busy", "its inputs are not all here yet", AGAIN_S)

    # --- an open room ---------------------------------------------------------------------------

    def _take_up(self, row: Row) -> DetachedTask | None:
        delegation = read_delegation(row.delegated)
        if self._mesh.me not in delegation.group:
            self._passed_on[row.key] = row.delegated
            return None
        around = Surroundings(
            self._mesh,
            self._storage,
            self._contents,
            self._unix_clock,
            self._hear_term,
            self._past_of,
            self._nursery,
        )
        one = self._kept[row.key] = DetachedTask(row, around)
        self._nursery.start_soon(one.run)
        self._has_news.set()
        return one

    def _hear_term(self, key: TaskKey, term: int) -> None:
        if self._fences is not None:
            self._fences.hear(key, term)

    def _past_of(self, delegation: wire.Delegation) -> tuple[SessionEvent, ...] | None:
        resumes = delegation.resumes
        if resumes is None:
            return ()
        kept = self._kept.get((resumes.submitter, resumes.task))
        if kept is None or not kept.member.is_over:
            return None
        return resuming.beginning(kept.entries(resumes.task))

    def _gone_on_with(self) -> set[TaskKey]:
        """Tasks whose journals are the beginning of others that are not over."""
        resumed = (one.delegation.resumes for one in self.kept if not one.member.is_over)
        return {(one.submitter, one.task) for one in resumed if one is not None}

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep them going until cancelled; ready once the disk's are taken up."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for row in self._storage.rows():
                self._take_up(row)
            nursery.start_soon(self._contents.run)
            nursery.start_soon(self._tidy)
            for key in [*self._passed_on, *self._kept]:
                if key[0] == self._mesh.me:
                    self._passing(key)
            task_status.started()
            while True:
                if not self._kept:  # most nodes keep none, ever
                    self._has_news = trio.Event()
                    await self._has_news.wait()
                for one in self.kept:
                    one.look_around()
                await trio.sleep(LOOK_S)

    async def _tidy(self) -> None:
        """Forget what ended a day ago, or should have."""
        while True:
            now = self._unix_clock()
            try:
                for row in self._storage.rows():
                    # Not before others would refuse it, see `_keep`; clocks differ.
                    over_at = _over_unix_s(read_delegation(row.delegated)) + CLOCKS_DIFFER_S
                    is_old = now > max(over_at, (row.ended_unix_s or 0) + KEPT_S)
                    if is_old and row.key not in self._gone_on_with():
                        self._forget(row.key)
            except StorageError as error:
                log.error("detached-not-tidied", error=str(error))  # noqa: TRY400 no bug
            await trio.sleep(TIDY_S)

    def _forget(self, key: TaskKey) -> None:
        self._storage.delete(key)
        self._passed_on.pop(key, None)
        self._passed.pop(key, None)
        if one := self._kept.pop(key, None):
            one.forget()
        log.info("detached-forgotten", task=key[1])
