"""One detached task as a member of its group keeps it: the member's machine with disk and wires.

While this peer leads, it is to its own coordinator what a submitter is otherwise: it grants the
term, renews the lease, and accepts entries, once two of the group hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TypeVar

import structlog
import trio

from kowalski.mesh.core.blame import Weather
from kowalski.mesh.driver import Driver
from kowalski.mesh.mesh import Mesh
from kowalski.node.core import detached_member as machine
from kowalski.node.core import detached_state as ds
from kowalski.node.core import task_ledger
from kowalski.node.core.fences import TaskKey
from kowalski.node.core.portions import ENTRIES_MAX, portion
from kowalski.node.core.task_ledger import Task
from kowalski.node.database import StorageError
from kowalski.node.detached_storage import DetachedStorage, Row
from kowalski.node.services.detached_leading import LeaderSeat, Past, ends
from kowalski.node.services.onlookers import Onlookers, Seen
from kowalski.node.services.wanted_contents import WantedContents
from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import detached as wire
from kowalski.protocol.messages import task as task_wire
from kowalski.protocol.messages import watching as watching_wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.journal import Closed
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import GENESIS, check_chain, digest, event_of
from kowalski.rlm.references import refs_of

log = structlog.get_logger(__name__)

PROTOCOL = "/kowalski/detached/1"
REPLY_S = 3.0
INSIST_S = 1.0
INTAKE_S = 8.0
"""How long a member that is given a task may take until it has the inputs."""
PASS_ON_S = INTAKE_S + 2.0
FETCH_AFTER_S = 0.0
HOLDERS_OLD = 5
"""Of those that a reference names already; the other two who keep the task come behind."""

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the tasks of one node share."""

    mesh: Mesh
    storage: DetachedStorage
    contents: WantedContents
    unix_clock: Callable[[], float]
    hear_term: Callable[[TaskKey, int], None]
    """Tell the fences of this node."""
    past_of: Callable[[wire.Delegation], Past | None]
    """With what its journal is to begin; None: that is not all here."""
    nursery: trio.Nursery


class DetachedTask:
    """`run` keeps the time of it until cancelled."""

    def __init__(self, row: Row, around: Surroundings) -> None:
        self.key = row.key
        self.delegated = row.delegated
        self.delegation = read_delegation(row.delegated)
        self.received_unix_s = row.received_unix_s
        self.ended_unix_s = row.ended_unix_s
        self._around = around
        self._seat = LeaderSeat(self, around.mesh, around.hear_term, around.past_of)
        self._answers: list[ds.Granted | ds.Held] = []
        self.onlookers = Onlookers()
        self.scope = trio.CancelScope()
        self._want(one.content for one in self.delegation.spec.inputs)
        self._want(around.storage.contents(row.key))
        now = trio.current_time()
        is_closed = ends(self.entries_on_disk(len(row.marks) - 1)) if row.marks else False
        member = ds.Member(
            around.mesh.me,
            self.delegation.group,
            term=row.term,
            voted_for=row.voted_for,
            confirmed=row.confirmed,
            retries=row.retries,
            failover=self.delegation.spec.failover,
            retry=self.delegation.spec.retry,
            committed=min(row.committed, len(row.marks)),
            marks=row.marks,
            ends_at=len(row.marks) if is_closed else None,
            reachable=self._reachable(),
        )
        begins_at = now + (member.timeout_s if row.term else 0.1 + member.rank)
        member = replace(member, act_at=float("inf") if member.is_over else begins_at)
        self._driver: Driver[ds.Member, ds.Event, ds.Effect] = Driver(
            member,
            step=machine.step,
            wake_at=machine.wake_at,
            time_passed=ds.TimePassed(),
            perform=self._perform,
        )
        self._committed = self.entries_on_disk(0)[: member.committed]

    # --- how it stands --------------------------------------------------------------------------

    @property
    def member(self) -> ds.Member:
        return self._driver.state

    def find(self, _task: TaskId) -> Task:
        """As a ledger would have it; what is not committed does not show."""
        return self.as_of(len(self._committed))

    def entries(self, _task: TaskId, start: int = 0) -> list[Entry]:
        return self._committed[start:]

    @contextmanager
    def watch(self, _task: TaskId) -> Iterator[trio.MemoryReceiveChannel[Seen]]:
        with self.onlookers.watch(self.key[1]) as seen:
            yield seen

    def trace(self) -> tuple[str, ...]:
        member = self.member
        names = ", ".join(map(self._around.mesh.name_of, member.group))
        counts = f"{member.committed} entries of {member.entries} committed"
        return f"kept by {names}", f"term {member.term}, here as {member.role}, {counts}"

    def headline(self) -> task_wire.TaskHeadline:
        task, spec = self.find(self.key[1]), self.delegation.spec
        head = "" if spec.devices == "local" else " ".join(spec.prompt[:400].split())[:80]
        return task_wire.TaskHeadline(
            task=self.key[1],
            submitter=self.key[0],
            term=task.term,
            state=task.state,
            coordinator=task.coordinator,
            mode=spec.mode,
            entries=task.entries,
            head=head,
            submitter_name=self._around.mesh.name_of(self.key[0])[:128],
            age_s=max(0.0, self._around.unix_clock() - self.received_unix_s),
        )

    def as_of(self, entries: int) -> Task:
        member, last = self.member, self._committed[entries - 1] if entries else None
        event = event_of(last) if last is not None else None
        closed = event if isinstance(event, Closed) else None
        left_s = self.received_unix_s + self.delegation.spec.timeout_s - self._around.unix_clock()
        state: task_ledger.TaskState = "running" if member.leader else "waiting"
        return Task(
            id=self.key[1],
            spec=self.delegation.spec,
            submitted_unix_s=self.received_unix_s,
            state=closed.outcome if closed is not None else state,
            term=member.term,
            coordinator=member.leader,
            entries=entries,
            digests=member.marks[:entries],
            answer=closed,
            why_waiting="" if member.leader else "two of its three keepers are to agree who leads",
            deadline_at=trio.current_time() + max(0.0, left_s),
        )

    def entries_on_disk(self, start: int, limit: int = 1_000_000) -> list[Entry]:
        return self._around.storage.entries(self.key, start, limit)

    def lacks_inputs(self) -> bool:
        inputs = (one.content for one in self.delegation.spec.inputs)
        return not self._around.contents.has(inputs)

    # --- what others ask ------------------------------------------------------------------------

    def hear_vote(self, peer: PeerId, asked: wire.VoteAsked) -> wire.VoteGiven:
        self._check_member(peer)
        event = ds.VoteWanted(peer, asked.term, asked.confirmed, asked.entries, asked.is_trial)
        answer = self._ask_machine(event)
        assert isinstance(answer, ds.Granted)
        return wire.VoteGiven(task=self.key[1], term=answer.term, is_granted=answer.is_granted)

    async def hear_log(self, peer: PeerId, offered: wire.LogOffered) -> wire.LogHeld:
        """Entries are taken as far as all that they refer to is here."""
        self._check_member(peer)
        check_chain(self.key[1], offered.entries, parent=offered.parent, index=offered.start)
        entries = await self._with_contents(offered.entries)
        marks = tuple(digest(self.key[1], one) for one in entries)
        event = ds.LogOffered(
            peer,
            offered.term,
            offered.base,
            offered.start,
            offered.parent,
            entries,
            marks,
            offered.committed,
            ends=ends(entries),
            retries=offered.retries,
            is_leaving=offered.is_leaving,
        )
        answer = self._ask_machine(event)
        assert isinstance(answer, ds.Held)
        return wire.LogHeld(
            task=self.key[1], term=answer.term, held=answer.held, committed=answer.committed
        )

    async def _with_contents(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """The first of them, up to one that refers to what cannot be had within a moment."""
        refs = [refs_of(event_of(one)) for one in entries]
        self._want(ref for some in refs for ref in some)
        has = self._around.contents.has
        with trio.move_on_after(REPLY_S / 2):
            while self.lacks_inputs() or not all(map(has, refs)):  # noqa: ASYNC110 item by item
                await trio.sleep(0.05)
        if self.lacks_inputs():
            return ()
        return tuple(entry for entry, _ in zip(entries, takewhile(has, refs), strict=False))

    def _ask_machine(self, event: ds.Event) -> ds.Granted | ds.Held:
        self._answers.clear()
        try:
            self._driver.handle(event)
        except StorageError as full:
            raise RequestRefusedError("no_capacity", str(full), 10.0) from full
        return self._answers.pop()

    def _check_member(self, peer: PeerId) -> None:
        if peer not in self.member.others:
            raise RequestRefusedError("not_allowed", "not one of those who keep this task")

    async def steer(self, wish: watching_wire.CancelAsked | watching_wire.ResumeAsked) -> None:
        """Have the leader hear what its owner wants; it may be lost with the leader.

        Raises:
            RequestRefusedError: `no_peer`, nobody leads it at the moment; what the leader refuses.
            PeerUnreachableError: as of any request.
        """
        leader, me = self.member.leader, self._around.mesh.me
        if leader is None:
            raise RequestRefusedError("no_peer", "nobody leads it at the moment", 2.0)
        if leader == me:
            self.hear_wish(me, wish)
            return
        wish = wish.model_copy(update={"submitter": self.key[0]})
        mesh = self._around.mesh
        await mesh.request(leader, PROTOCOL, wish, wire.DelegationKept, timeout_s=REPLY_S)

    async def insist(self, wish: watching_wire.CancelAsked) -> None:
        """Say it to whoever leads, again and again, until cancelled."""
        while True:
            try:
                await self.steer(wish)
            except Weather as error:
                log.info("wish-not-heard", task=self.key[1], why=str(error))
            await trio.sleep(INSIST_S)

    def hear_wish(
        self, peer: PeerId, wish: watching_wire.CancelAsked | watching_wire.ResumeAsked
    ) -> wire.DelegationKept:
        """Raises RequestRefusedError: `no_peer`, it is not led from here."""
        if peer != self._around.mesh.me:
            self._check_member(peer)
        if self.member.role != "leader" and not self.member.is_over:
            raise RequestRefusedError("no_peer", "it is not led from here", 2.0)
        match wish:
            case watching_wire.CancelAsked(reason=reason):
                self.handle(ds.CancelWanted(reason))
            case watching_wire.ResumeAsked():
                self.handle(ds.ResumeWanted())
        return wire.DelegationKept(task=self.key[1], submitter=self.key[0])

    def step_down(self) -> None:
        self.handle(ds.Yielded())

    # --- keeping it going -----------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is forgotten."""
        with self.scope:
            while True:
                try:
                    await self._driver.run()
                except StorageError as full:
                    log.error("detached-not-stored", task=self.key[1], error=str(full))  # noqa: TRY400 no bug
                    await trio.sleep(1.0)

    def look_around(self) -> None:
        """Who can be reached may have changed."""
        reachable = self._reachable()
        if reachable != self.member.reachable:
            self.handle(ds.Reachable(reachable))

    def _reachable(self) -> frozenset[PeerId]:
        mesh = self._around.mesh
        others = (one for one in self.delegation.group if one != mesh.me)
        return frozenset(one for one in others if mesh.is_routable(one))

    def step(self, event: ds.Event) -> None:
        """Raises StorageError: nothing of it has happened."""
        self._driver.handle(event)

    def handle(self, event: ds.Event) -> None:
        try:
            self.step(event)
        except StorageError as full:
            # As if nothing had come: it comes again.
            log.error("detached-not-stored", task=self.key[1], error=str(full))  # noqa: TRY400 no bug

    def _perform(self, effect: ds.Effect) -> None:
        start_soon = self._around.nursery.start_soon
        match effect:
            case ds.Note() | ds.Write():
                self._write(effect)
            case ds.Answer(answer=answer):
                self._answers.append(answer)
            case ds.AskVotes():
                for peer in sorted(self.member.others):
                    start_soon(self._ask_vote, peer, effect)
            case ds.Offer():
                start_soon(self._offer, effect)
            case ds.Show(end=end):
                self._show(end)
            case ds.Lead(term=term):
                self._seat.leave()
                start_soon(self._seat.lead, term)
            case _:
                self._seat.perform(effect)

    def _write(self, effect: ds.Note | ds.Write) -> None:
        storage, member = self._around.storage, effect.member
        match effect:
            case ds.Note():
                storage.save(self.key, member)
            case ds.Write(cut_to=cut_to, entries=entries):
                contents = [ref for one in entries for ref in refs_of(event_of(one))]
                storage.save(self.key, member, cut_to=cut_to, entries=entries, contents=contents)
                self._want(contents)
        if member.is_over and self.ended_unix_s is None:
            self.ended_unix_s = int(self._around.unix_clock())
            storage.end(self.key, self.ended_unix_s)

    def _show(self, end: int) -> None:
        # From what is shown already: where the disk failed in between, some of it is.
        start = len(self._committed)
        for entry in self.entries_on_disk(start, end - start):
            self._committed.append(entry)
            self.onlookers.show(Seen(self.as_of(len(self._committed)), entry))
        if self.member.is_over:
            self._seat.say(task_wire.Settle(task=self.key[1], term=self.member.term))

    def _want(self, contents: Iterable[ContentRef]) -> None:
        """Any of those who keep the task may have it, whoever had it first."""
        others = tuple(peer for peer in self.delegation.group if peer != self._around.mesh.me)
        wanted = [
            ref.model_copy(
                update={"holders": tuple(dict.fromkeys((*ref.holders[:HOLDERS_OLD], *others)))}
            )
            for ref in contents
        ]
        self._around.contents.want(self._owner, wanted, after_s=FETCH_AFTER_S)

    @property
    def _owner(self) -> str:
        return f"detached {self.key[0]} {self.key[1]}"

    def forget(self) -> None:
        self._seat.leave()
        self.scope.cancel()
        self._around.contents.forget(self._owner)

    # --- asking the others ----------------------------------------------------------------------

    async def _ask_vote(self, peer: PeerId, ask: ds.AskVotes) -> None:
        submitter, task = self.key
        asked = wire.VoteAsked(
            task=task,
            submitter=submitter,
            term=ask.term,
            confirmed=ask.confirmed,
            entries=ask.entries,
            is_trial=ask.is_trial,
        )
        given = await self._ask(peer, asked, wire.VoteGiven)
        if given is not None:
            heard = ds.VoteHeard(peer, given.term, ask.term, given.is_granted, ask.is_trial)
            self.handle(heard)

    async def _offer(self, offer: ds.Offer) -> None:
        submitter, task = self.key
        peer, start, member = offer.peer, offer.start, self.member
        parent = member.mark_before(start)
        leads = member.role == "leader" or offer.is_leaving
        if not leads or member.term != offer.term or parent is None:
            self.handle(ds.OfferLost(peer))
            return
        try:
            entries = portion(self.entries_on_disk(start, ENTRIES_MAX))
        except StorageError as error:
            log.error("detached-not-read", task=task, error=str(error))  # noqa: TRY400 no bug
            self.handle(ds.OfferLost(peer))
            return
        offered = wire.LogOffered(
            task=task,
            submitter=submitter,
            term=member.term,
            base=member.base,
            start=start,
            parent=parent or GENESIS,
            entries=entries,
            committed=member.committed,
            retries=member.retries,
            is_leaving=offer.is_leaving,
        )
        held = await self._ask(peer, offered, wire.LogHeld)
        if held is None:
            self.handle(ds.OfferLost(peer))
        else:
            self.handle(ds.HeldHeard(peer, held.term, held.held, held.committed))

    async def _ask(self, peer: PeerId, asked: Message, reply: type[M]) -> M | None:
        mesh = self._around.mesh
        try:
            return await mesh.request(peer, PROTOCOL, asked, reply, timeout_s=REPLY_S)
        except RequestRefusedError as no:
            if no.reason != "unknown":
                log.info("member-refused", task=self.key[1], peer=peer, why=str(no))
                return None
        except Weather as error:
            log.debug("member-not-reached", task=self.key[1], peer=peer, why=str(error))
            return None
        # Its submitter could not, or the message was lost.
        await pass_on(mesh, peer, self.key[1], self.delegated)
        return None


async def pass_on(mesh: Mesh, peer: PeerId, task: TaskId, delegated: wire.Delegated) -> bool:
    """Send a delegation; whether the peer keeps it now."""
    try:
        await mesh.request(peer, PROTOCOL, delegated, wire.DelegationKept, timeout_s=PASS_ON_S)
    except Weather as error:
        log.info("delegation-not-kept", task=task, peer=peer, why=str(error))
        return False
    return True


def read_delegation(delegated: wire.Delegated) -> wire.Delegation:
    """Raises RemoteProtocolError: the frame is none of a delegation to three peers."""
    delegation = codec.decode(delegated.frame)
    if not isinstance(delegation, wire.Delegation):
        raise RemoteProtocolError(f"{delegation.KIND} where a delegation was due")
    if len(set(delegation.group)) != wire.GROUP_SIZE or len(delegation.group) != wire.GROUP_SIZE:
        raise RemoteProtocolError(f"a group that is not of {wire.GROUP_SIZE} different peers")
    return delegation
