"""Every task of the mesh, from any peer: found, followed, cancelled, resumed, traced.

A task is its submitter's: this room answers for those that were submitted here, and asks the peer
that holds any other. Which peer that is, gossip tells; where it has not told yet, all are asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import structlog
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core import resuming
from kowalski.node.core.announced_tasks import Elsewhere
from kowalski.node.core.portions import portion
from kowalski.node.core.task_ledger import Task, TaskState
from kowalski.node.services.detached import DetachedRoom
from kowalski.node.services.detached_task import DetachedTask
from kowalski.node.services.following import Keeper, OnSeen, follow_here, unheeded
from kowalski.node.services.following_afar import PROTOCOL, Place, Watching, state_of
from kowalski.node.services.onlookers import Seen
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.node.services.task_gossip import TaskGossip
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import watching as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.detached import GROUP_SIZE, Resumed
from kowalski.protocol.messages.task import Entry, TaskHeadline, TaskSpec

log = structlog.get_logger(__name__)

FIND_S = 3.0
REPLY_S = 10.0
CANCEL_S = 20.0
LOOK_S = 20.0
"""How long a peer may take to show a task as it stands, with all of its journal."""

AGAIN_S = 1.0
NOT_ENDED = "not within {:g} s: at least two of its three keepers are to be up for that"
MAY_NOT = "what goes on with it would be this device's task, and it may not submit any"


class MeshTasks:
    """Serves `/kowalski/tasks/1`, and the owner of this node."""

    def __init__(
        self,
        mesh: Mesh,
        submitter: SubmitterRoom,
        detached: DetachedRoom,
        gossip: TaskGossip,
        *,
        unix_clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._submitter = submitter
        self._detached = detached
        self._gossip = gossip
        self._unix_clock = unix_clock

    # --- for this node's owner ------------------------------------------------------------------

    def elsewhere(self) -> tuple[Elsewhere, ...]:
        """Tasks that others have submitted, the latest first; of one, who knows most of it."""
        latest: dict[tuple[PeerId, TaskId], Elsewhere] = {}
        for one in self._gossip.listed():
            key = (one.submitter, one.headline.task)
            if self._detached.held(key[1], key[0]):
                continue
            other = latest.get(key)
            if other is None or _progress(other.headline) < _progress(one.headline):
                latest[key] = one
        return tuple(latest.values())

    def detached_here(self) -> tuple[DetachedTask, ...]:
        """Detached tasks that this node keeps with two others."""
        return self._detached.kept

    async def detach(self, task: TaskId, spec: TaskSpec) -> tuple[PeerId, ...]:
        """Pass a new task on to three peers; who keeps it, or how few there are that could.

        Raises:
            RequestRefusedError: `conflict`; `busy`, it is under way; `unsupported`.
            StorageError: the disk refuses; nothing was taken in.
        """
        if self._submitter.is_taken(task):
            raise RequestRefusedError("conflict", f"task {task} was submitted here, not detached")
        known = self._detached.delegation_of(task)
        group = self._detached.group_for(task) if known is None else known.group
        if len(group) < GROUP_SIZE:
            return group
        return (await self._detached.delegate(task, spec, group)).group

    def _keeper(self, submitter: PeerId | None, task: TaskId) -> Keeper:
        """Raises RequestRefusedError: `unknown`."""
        kept = self._detached.held(task, submitter)
        if kept:
            return kept[0]
        self._check_ours(submitter)
        self._submitter.find(task)
        return self._submitter

    async def find(self, task: TaskId, submitter: PeerId | None = None) -> Place:
        """Where a task is.

        Raises:
            RequestRefusedError: `unknown`; `ambiguous`, several submitters call theirs so.
        """
        if submitter in {None, self._mesh.me}:
            try:
                self._submitter.find(task)
            except RequestRefusedError:
                log.debug("not-here", task=task)
            else:
                return Place(self._mesh.me, self._mesh.me, task)
        if kept := self._detached.held(task, submitter):
            return self._only(task, [Place(self._mesh.me, one.key[0], task) for one in kept])
        told = [
            Place(one.origin, one.submitter, task)
            for one in self._gossip.find(task)
            if submitter in {None, one.submitter} and self._mesh.is_routable(one.origin)
        ]
        return self._only(task, told or await self._ask_all(task, submitter))

    def _only(self, task: TaskId, places: list[Place]) -> Place:
        names = sorted({self._mesh.name_of(place.submitter) for place in places})
        if not places:
            raise RequestRefusedError("unknown", f"no peer that can be reached has a task {task}")
        if len({place.submitter for place in places}) > 1:
            words = f"{', '.join(names)} have tasks of that name; say {task}@{names[0]}"
            raise RequestRefusedError("ambiguous", words)
        return places[0]

    async def _ask_all(self, task: TaskId, submitter: PeerId | None) -> list[Place]:
        found: list[Place] = []
        asked = wire.WatchAsked(task=task, submitter=submitter, is_following=False)

        async def ask(peer: PeerId) -> None:
            try:
                async with self._mesh.converse(peer, PROTOCOL, asked) as conversation:
                    opened = await conversation.receive()
            except Weather as error:
                log.debug("not-there", task=task, peer=peer, why=str(error))
                return
            if isinstance(opened, wire.WatchOpened):
                found.append(Place(peer, opened.submitter, task))

        with trio.move_on_after(FIND_S):
            async with open_plain_nursery() as nursery:
                for facts in self._mesh.facts():
                    if facts.is_routable and not facts.is_self:
                        nursery.start_soon(ask, facts.peer)
        return found

    async def look(self, place: Place) -> tuple[Task, list[Entry]]:
        """The task as it stands, with its journal. Raises what a conversation raises."""
        entries: list[Entry] = []

        async def take(seen: Seen) -> None:
            await trio.lowlevel.checkpoint()
            if seen.entry is not None:
                entries.append(seen.entry)

        if place.holder == self._mesh.me:
            keeper = self._keeper(place.submitter, place.task)
            return keeper.find(place.task), keeper.entries(place.task)
        asked = wire.WatchAsked(task=place.task, submitter=place.submitter, is_following=False)
        with trio.move_on_after(LOOK_S):
            return await Watching(place, self._unix_clock).watch(self._mesh, asked, take), entries
        raise PeerUnreachableError(f"no sight of task {place.task} within {LOOK_S:g} s")

    async def follow(self, place: Place, on_seen: OnSeen) -> Task:
        """Tell all that has happened to the task and happens, until it is over.

        A holder that is lost is looked for again: the task outlives its absence.

        Raises:
            RequestRefusedError: it is known there no more.
        """
        if place.holder == self._mesh.me:
            keeper = self._keeper(place.submitter, place.task)
            return await follow_here(keeper, place.task, 0, on_seen)
        watching = Watching(place, self._unix_clock)
        tried = {place.holder}
        while True:
            asked = wire.WatchAsked(
                task=place.task, submitter=place.submitter, start=watching.entries
            )
            try:
                task = await watching.watch(self._mesh, asked, on_seen)
            except (PeerUnreachableError, RemoteProtocolError) as lost:
                another = self._another(place)
                if not watching.is_open and another.holder in tried:
                    raise
                tried.add(another.holder)
                log.info("holder-lost", task=place.task, peer=place.holder, why=str(lost))
                if watching.is_open:
                    await on_seen(watching.seen_lost(self._mesh.name_of(place.holder)))
                    await trio.sleep(AGAIN_S)
                watching.place = place = another
                continue
            if task.is_over:
                return task

    def _another(self, place: Place) -> Place:
        """Who else has the task, where the one whom we asked is lost; of most tasks nobody."""
        told = (one for one in self._gossip.find(place.task) if one.submitter == place.submitter)
        others = sorted(
            one.origin
            for one in told
            if one.origin != place.holder and self._mesh.is_routable(one.origin)
        )
        return replace(place, holder=others[0]) if others else place

    async def cancel(self, place: Place, reason: str) -> Task:
        """Stop it; how it ended. Raises what a conversation raises."""
        if place.holder == self._mesh.me:
            return await self._cancel_here(place.submitter, place.task, reason)
        asked = wire.CancelAsked(task=place.task, submitter=place.submitter, reason=reason)
        seen = await self._mesh.request(
            place.holder, PROTOCOL, asked, wire.WatchSeen, timeout_s=CANCEL_S
        )
        task, _ = await self.look(place)
        return replace(task, state=state_of(seen.state), answer=seen.answer)

    async def resume(
        self, place: Place, *, timeout_s: float | None, max_iterations: int | None
    ) -> TaskId:
        """Go on with it; under which name. Raises what a conversation raises.

        What goes on with a detached task is a detached task of this node, kept by the same three.
        """
        if keepers := await self._keepers(place):
            task, _ = await self.look(place)
            way = resuming.way_on(
                task, self._is_taken, timeout_s=timeout_s, max_iterations=max_iterations
            )
            return await self._resume_detached(place, keepers, way)
        if place.holder == self._mesh.me:
            return self._submitter.resume(
                place.task, timeout_s=timeout_s, max_iterations=max_iterations
            ).id
        asked = wire.ResumeAsked(
            task=place.task,
            submitter=place.submitter,
            timeout_s=timeout_s,
            max_iterations=max_iterations,
        )
        opened = await self._mesh.request(
            place.holder, PROTOCOL, asked, wire.WatchOpened, timeout_s=REPLY_S
        )
        return opened.task

    async def _keepers(self, place: Place) -> tuple[PeerId, ...]:
        """Who keeps a detached task; of any other, nobody."""
        if place.holder == self._mesh.me:
            return next((one.delegation.group for one in self._held(place)), ())
        asked = wire.WatchAsked(task=place.task, submitter=place.submitter, is_following=False)
        opened = await self._mesh.request(
            place.holder, PROTOCOL, asked, wire.WatchOpened, timeout_s=REPLY_S
        )
        return opened.kept_by

    def _held(self, place: Place) -> tuple[DetachedTask, ...]:
        return self._detached.held(place.task, place.submitter)

    async def _resume_detached(
        self,
        place: Place,
        keepers: tuple[PeerId, ...],
        way: resuming.Anew | Literal["answered", "not over"],
    ) -> TaskId:
        match way:
            case "answered":
                raise RequestRefusedError("conflict", f"task {place.task} is answered")
            case "not over":
                await self._wish_on(place)
                return place.task
            case resuming.Anew(name=name, spec=spec):
                if "submit" not in self._mesh.roles_of(self._mesh.me):
                    raise RequestRefusedError("not_allowed", MAY_NOT)
                resumed = Resumed(task=place.task, submitter=place.submitter)
                await self._detached.delegate(name, spec, keepers, resumed)
                return name

    async def _wish_on(self, place: Place) -> None:
        """Have a detached task that pauses go on at once."""
        wish = wire.ResumeAsked(task=place.task, submitter=place.submitter)
        if kept := self._held(place):
            await kept[0].steer(wish)
        else:
            await self._mesh.request(
                place.holder, PROTOCOL, wish, wire.WatchOpened, timeout_s=REPLY_S
            )

    def _is_taken(self, task: TaskId) -> bool:
        is_announced = any(True for _ in self._gossip.find(task))
        is_ours = self._submitter.is_taken(task) or self._detached.delegation_of(task) is not None
        return is_ours or is_announced or bool(self._detached.held(task))

    async def trace(self, place: Place) -> tuple[str, ...]:
        """What the ledger of its submitter remembers. Raises what a conversation raises."""
        if kept := self._detached.held(place.task, place.submitter):
            return kept[0].trace()
        if place.holder == self._mesh.me:
            return self._submitter.trace(place.task)
        asked = wire.TraceAsked(task=place.task, submitter=place.submitter)
        traced = await self._mesh.request(
            place.holder, PROTOCOL, asked, wire.Traced, timeout_s=REPLY_S
        )
        return traced.lines

    async def _cancel_here(self, submitter: PeerId | None, task: TaskId, reason: str) -> Task:
        keeper = self._keeper(submitter, task)
        if not isinstance(keeper, DetachedTask):
            self._submitter.cancel(task, reason)
            return await follow_here(self._submitter, task, 0, unheeded)
        wish = wire.CancelAsked(task=task, submitter=keeper.key[0], reason=reason)
        ended: Task | None = None
        with trio.move_on_after(CANCEL_S):
            async with open_plain_nursery() as nursery:
                nursery.start_soon(keeper.insist, wish)
                ended = await follow_here(keeper, task, 0, unheeded)
                nursery.cancel_scope.cancel()
        if ended is None:
            raise RequestRefusedError("no_peer", NOT_ENDED.format(CANCEL_S), AGAIN_S)
        return ended

    # --- for other peers ------------------------------------------------------------------------

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        match request:
            case wire.WatchAsked():
                return await self._show(conversation, request)
            case wire.CancelAsked():
                by = f"cancelled from {self._mesh.name_of(conversation.peer)}"
                why = request.reason or by
                task = await self._cancel_here(request.submitter, request.task, why)
                return _seen_of(Seen(task))
            case wire.ResumeAsked():
                if kept := self._detached.held(request.task, request.submitter):
                    await kept[0].steer(request)
                    return self._opened(kept[0].find(request.task), kept[0].key[0])
                self._check_ours(request.submitter)
                resumed = self._submitter.resume(
                    request.task,
                    timeout_s=request.timeout_s,
                    max_iterations=request.max_iterations,
                )
                return self._opened(resumed)
            case wire.TraceAsked():
                if kept := self._detached.held(request.task, request.submitter):
                    return wire.Traced(task=request.task, lines=kept[0].trace())
                self._check_ours(request.submitter)
                self._submitter.find(request.task)
                return wire.Traced(task=request.task, lines=self._submitter.trace(request.task))
            case _:
                raise RemoteProtocolError(f"{request.KIND} in a conversation about tasks")

    def _check_ours(self, submitter: PeerId | None) -> None:
        if submitter not in {None, self._mesh.me}:
            raise RequestRefusedError("unknown", "it was not submitted here")

    async def _show(self, conversation: Conversation, request: wire.WatchAsked) -> wire.WatchSeen:
        keeper = self._keeper(request.submitter, request.task)
        task = keeper.find(request.task)
        opened = self._opened(task)
        if isinstance(keeper, DetachedTask):
            opened = self._opened(task, keeper.key[0], keeper.delegation.group)
        await conversation.send(opened)
        start = request.start
        while entries := portion(keeper.entries(task.id, start)):
            seen = _seen_of(Seen(keeper.find(task.id)))
            # However many there are: it is not over before the last of them is shown.
            state = "running" if seen.answer is not None else seen.state
            await conversation.send(
                seen.model_copy(update={"entries": entries, "answer": None, "state": state})
            )
            start += len(entries)
        if not request.is_following:
            return _seen_of(Seen(keeper.find(task.id)))

        async def tell(seen: Seen) -> None:
            if not seen.task.is_over or seen.entry is not None:
                await conversation.send(replace_end(_seen_of(seen)))

        ended = await follow_here(keeper, task.id, start, tell)
        return _seen_of(Seen(ended))

    def _opened(
        self, task: Task, submitter: PeerId | None = None, kept_by: tuple[PeerId, ...] = ()
    ) -> wire.WatchOpened:
        whose = submitter or self._mesh.me
        return wire.WatchOpened(
            task=task.id,
            submitter=whose,
            submitter_name=self._mesh.name_of(whose),
            spec=task.spec,
            age_s=max(0.0, self._unix_clock() - task.submitted_unix_s),
            kept_by=kept_by,
        )


def _progress(headline: TaskHeadline) -> tuple[bool, int, int]:
    return headline.state in get_args(TaskState)[2:], headline.term, headline.entries


def _seen_of(seen: Seen) -> wire.WatchSeen:
    task = seen.task
    return wire.WatchSeen(
        task=task.id,
        state=task.state,
        term=task.term,
        coordinator=task.coordinator,
        why=task.why_waiting[:1024],
        entries=(seen.entry,) if seen.entry is not None else (),
        progress=seen.progress,
        answer=task.answer,
    )


def replace_end(seen: wire.WatchSeen) -> wire.WatchSeen:
    """The end is said last, and by itself."""
    if seen.answer is None:
        return seen
    return seen.model_copy(update={"state": "running", "answer": None})
