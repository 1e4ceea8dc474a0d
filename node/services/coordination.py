"""One task led by this peer: the session machine with hands, under one term after the other.

Everything that happens is journalled, kept as a copy, and offered to the submitter in order; what
the session wants next is sent to peers. A conversation with the submitter may break: the work goes
on, as long as the lease allows, and under a higher term if this peer is appointed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Conversation
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core import coordinator_journal, coordinator_lease, missed
from kowalski.node.core.coordinator_journal import CoordinatorJournal
from kowalski.node.core.coordinator_lease import Lease, Phase
from kowalski.node.core.copy_desk import Offer
from kowalski.node.core.fences import TaskKey
from kowalski.node.database import StorageError
from kowalski.node.services import session_inputs
from kowalski.node.services.closing import closing
from kowalski.node.services.copies import CopyRoom
from kowalski.node.services.lease_watch import LeaseWatch
from kowalski.node.services.outbox import Outbox
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.replication import Leading, Pace, Replication
from kowalski.node.services.session_hands import hands_of_task
from kowalski.node.services.session_term import Term
from kowalski.node.services.under_way import UnderWay
from kowalski.protocol import codec
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message, line
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.placement import Claim
from kowalski.rlm import session as machine
from kowalski.rlm.journal import GENESIS, check_chain, event_of

log = structlog.get_logger(__name__)

PROGRESS_CHARS_MAX = 16_384
CLOSING_S = 5.0
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds."""

    kept_s: float = 10.0
    """How long to wait for a submitter that is gone, once all is done and kept."""
    lease: coordinator_lease.Patience = field(default_factory=coordinator_lease.Patience)
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms of this node that a coordination works with."""

    mesh: Mesh
    work: PlacedWork
    store: ContentStore
    copies: CopyRoom
    patience: Patience


class Coordination:
    """Lead `grant.task`. `run` does the work, `attend` talks to the submitter."""

    def __init__(self, grant: wire.Grant, submitter: PeerId, rooms: Rooms) -> None:
        self.key: TaskKey = (submitter, grant.task)
        self._rooms = rooms
        self._task = grant.task
        self._spec = grant.spec
        now = trio.current_time()
        self._lease = LeaseWatch(
            Lease(
                grant.term,
                now + grant.lease_s,
                policy=grant.spec.submitter_gone,
                patience=rooms.patience.lease,
                heard_at=now,
                standbys=grant.standbys,
            )
        )
        self._alone_since = now
        self._deadline_at = now + grant.remaining_s
        self._working = trio.CancelScope()
        self._holders = grant.holders
        self._prefix: list[wire.Entry] = []
        self._prefix_goal = (grant.prefix_entries, grant.last_digest)
        self._prefix_is_whole, self._attending = trio.Event(), trio.CancelScope()
        self._outbox, self.under_way = Outbox(), UnderWay()
        self._journal = CoordinatorJournal(grant.task, grant.term)
        self._session: machine.Session | None = None
        self._finish: machine.Finish | None = None
        self._is_finished = trio.Event()
        self._is_closed, self._cancel_reason = False, ""
        self._is_cancelled = trio.Event()
        self._nursery: trio.Nursery
        self.turn = trio.Event()
        """Set when it may begin."""
        self.scope, self.ended = trio.CancelScope(), trio.Event()
        self._declined: RequestRefusedError | None = None
        self.is_deposed = self._is_settled = False
        self._hands = hands_of_task(
            Term(
                task=grant.task,
                term=lambda: self.term,
                spec=grant.spec,
                session=self._session_now,
                record=self._learn,
                progress=self._progress,
                lease=self._lease,
                remaining_s=self._remaining_s,
                claim=Claim(submitter=submitter, priority=grant.spec.priority),
                limits_of=partial(session_inputs.limits_of, grant.spec, rooms.mesh),
                holders=self._content_holders,
            ),
            mesh=rooms.mesh,
            work=rooms.work,
            store=rooms.store,
        )
        self._replication = Replication(
            rooms.mesh,
            rooms.copies,
            Leading(
                key=self.key,
                inputs=grant.spec.inputs,
                term=lambda: self.term,
                is_lease_over=lambda: self._lease.is_over,
                on_witness=self._lease.witnessed,
                on_stale=self.depose,
            ),
            rooms.patience.pace,
        )
        self._replication.stand_by(grant.standbys)

    @property
    def term(self) -> int:
        return self._journal.term

    # --- talking to the submitter ---------------------------------------------------------------

    async def attend(self, conversation: Conversation, grant: wire.Grant) -> Message:
        """Serve one conversation until the task is settled or the submitter is gone.

        An earlier one ends: its other end is given up, even if its wires do not know yet.
        """
        self._attending.cancel()
        self._attending = trio.CancelScope()
        self._lease.change(
            lambda lease, now: coordinator_lease.granted(
                lease, grant.term, grant.lease_s, grant.standbys, now
            )
        )
        self._replication.stand_by(grant.standbys)
        self._accepted(grant.prefix_entries - 1)
        self._outbox.start_over(self._offered(one.entry) for one in self._journal.unaccepted)
        self._progress("alive")
        if not self._prefix_is_whole.is_set():
            self._ask_prefix()
        with self._attending as scope:
            await self._converse(conversation)
        if scope.cancelled_caught:
            raise self._declined or RequestFailedError(
                "superseded", "by a higher term, or another conversation"
            )
        self._is_settled = True
        self.scope.cancel()
        return wire.Settled(task=self._task, term=self.term)

    async def _converse(self, conversation: Conversation) -> None:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(self._outbox.send_all, conversation)
            while True:
                message = await conversation.receive()
                self._lease.change(coordinator_lease.heard)
                if isinstance(message, wire.Settle):
                    nursery.cancel_scope.cancel()
                    return
                self._hear(message)

    def _hear(self, message: Message) -> None:
        match message:
            case wire.Renewal(term=self.term, lease_s=lease_s):
                self._lease.change(
                    lambda lease, now: coordinator_lease.renewed(lease, self.term, lease_s, now)
                )
                self._progress("alive")  # work may be quiet for longer than its patience lasts
            case wire.Accepted(term=self.term, index=index):
                self._accepted(index)
            case wire.Prefix(start=start, entries=entries) if start == len(self._prefix):
                self._prefix += entries
                self._ask_prefix()
            case wire.CancelTask(term=self.term, reason=reason):
                self._cancel_reason = reason or "cancelled"
                self._is_cancelled.set()
            case wire.Renewal() | wire.Accepted() | wire.Prefix() | wire.CancelTask():
                pass  # of another term, or twice
            case _:
                raise RemoteProtocolError(f"{message.KIND} from a submitter")

    def _accepted(self, index: int) -> None:
        self._journal = coordinator_journal.accept(self._journal, index)

    def _offered(self, entry: wire.Entry) -> wire.EntryOffered:
        return wire.EntryOffered(task=self._task, entry=entry)

    def _ask_prefix(self) -> None:
        """Ask for the entries that are still missing, or begin."""
        goal, last_digest = self._prefix_goal
        if len(self._prefix) < goal:
            start = len(self._prefix)
            self._outbox.say(wire.PrefixAsked(task=self._task, term=self.term, start=start))
            return
        if check_chain(self._task, self._prefix) != last_digest:
            raise RemoteProtocolError("the entries do not end in the digest that was granted")
        self._journal = CoordinatorJournal(self._task, self.term, goal, last_digest)
        self._prefix_is_whole.set()

    def adopt(self, grant: wire.Grant) -> bool:
        """Go on under a higher term; False if somebody else has led meanwhile."""
        if self._session is None or self.is_deposed or self.ended.is_set():
            return False
        anew = coordinator_journal.adopt(
            self._journal, grant.term, grant.prefix_entries, grant.last_digest
        )
        if anew is None:
            return False
        log.info("term-adopted", task=self._task, term=grant.term, before=self.term)
        self._journal = anew
        self._deadline_at = trio.current_time() + grant.remaining_s
        self._working.deadline = self._deadline_at
        written_anew = tuple(one.entry for one in anew.unaccepted)
        self._keep_copy(grant.prefix_entries, grant.last_digest, written_anew)
        return True

    def decline(self, reason: str, detail: str) -> None:
        """Give the task back: the submitter finds another, or waits."""
        self._declined = RequestRefusedError(reason, detail)
        self.depose()

    @property
    def has_a_taker(self) -> bool:
        """Its submitter is there to appoint somebody else, and it is not about to end."""
        return not self._is_closed and self._rooms.mesh.is_member(self.key[0])

    @property
    def is_at_rest(self) -> bool:
        """Nothing is under way, and the submitter has all that happened."""
        return self.under_way.is_idle and not self._journal.unaccepted

    def depose(self) -> None:
        """Somebody else leads now."""
        self.is_deposed = True
        self.scope.cancel()

    # --- the work -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Lead the task to its end; returns when it is settled, deposed or forgotten."""
        try:
            with self.scope:
                async with open_plain_nursery() as nursery:
                    nursery.start_soon(
                        self._lease.watch,
                        lambda: self._rooms.mesh.is_member(self.key[0]),
                        self._see,
                    )
                    await self.turn.wait()
                    await self._prefix_is_whole.wait()
                    salvaged = await self._salvage()
                    nursery.start_soon(self._heed_cancel)
                    nursery.start_soon(self._replication.run)
                    if not self._is_closed:
                        await self._lead(salvaged)
                        await trio.lowlevel.checkpoint_if_cancelled()  # deposed: no last word
                        self._record(await closing(self._end, self._rooms.store))
                    await trio.sleep_forever()  # until it is settled
        finally:
            self.ended.set()
            self._attending.cancel()
            if self._is_settled:
                self._rooms.copies.drop(self.key)
            if not self.is_deposed:
                with trio.CancelScope(shield=True), trio.move_on_after(CLOSING_S):
                    await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(lambda: self._hands.close_sessions(timeout_s=CLOSING_S / 2))
            if self._is_settled:
                nursery.start_soon(lambda: self._replication.drop(timeout_s=CLOSING_S / 2))

    async def _salvage(self) -> list[journal.SessionEvent]:
        """All that happened so far: what the submitter has accepted, and what copies know beyond.

        The latter becomes ours: it happened, whoever led then.
        """
        goal, last_digest = self._prefix_goal
        self._keep_copy(0, GENESIS, tuple(self._prefix))
        events = [event_of(entry) for entry in self._prefix]
        for event in events:
            self._hands.hear(event)
        found = await self._rooms.copies.find(self.key, self.term, goal, last_digest, self._holders)
        for entry in found:
            event = event_of(entry)
            events.append(event)
            self._record(event)
        if found:
            log.info("journal-salvaged", task=self._task, term=self.term, entries=len(found))
        return events

    @property
    def _end(self) -> machine.Finish:
        return self._finish or machine.Finish("failed", "", "internal: it ended without an end")

    async def _heed_cancel(self) -> None:
        await self._is_cancelled.wait()
        self._happened(journal.CancelHeard(reason=self._cancel_reason))

    async def _lead(self, events: list[journal.SessionEvent]) -> None:
        try:
            self._working.deadline = self._deadline_at
            if self._remaining_s() > 0:  # else the first step would go out before trio looks
                with self._working:
                    await self._work_through(events)
                    return
            limit = f"{self._spec.timeout_s:g} s are over"
            self._happened(journal.BudgetSpent(limit="timeout", detail=limit))
        except RequestRefusedError as no:  # no room for the inputs here; others may have it
            self.decline(no.reason, f"inputs: {no.detail}")
        except (RemoteProtocolError, PeerUnreachableError) as error:
            self._finish = machine.Finish("failed", "", f"inputs: {error}")
        except Exception as bug:  # the submitter must hear of it, and the node live on
            log.exception("coordination-died", task=self._task)
            self._finish = machine.Finish("failed", "", f"internal: {type(bug).__name__}: {bug}")

    async def _work_through(self, events: list[journal.SessionEvent]) -> None:
        async with open_plain_nursery() as self._nursery:
            self._nursery.start_soon(self._begin, events)
            await self._is_finished.wait()
            self._nursery.cancel_scope.cancel()

    async def _begin(self, events: list[journal.SessionEvent]) -> None:
        spec, mesh = self._spec, self._rooms.mesh
        texts = await session_inputs.gather(spec, self._rooms.store, mesh, self._content_holders)
        model = next((one.model for one in events if isinstance(one, journal.Opened)), None)
        limits = session_inputs.limits_of(spec, mesh, model or spec.model)
        fresh = machine.new_session(spec, limits=limits, inputs=texts)
        self._session = machine.replay(fresh, events)
        if events:
            self._perform(machine.outstanding(self._session))
        else:
            await self._open(texts)

    async def _open(self, texts: tuple[machine.InputText, ...]) -> None:
        """Decide the mode. Peers that just came get a moment for it, those that just went more."""
        spec, mesh = self._spec, self._rooms.mesh
        began_at = trio.current_time()
        while True:
            opened, limits = await session_inputs.open_now(spec, texts, mesh)
            if isinstance(opened, journal.Opened):
                self._session = replace(self._session_now(), limits=limits)
                self._happened(opened)
                return
            wait = missed.wait_to_open(
                opened.code,
                spec.failover,
                trio.current_time() - began_at,
                is_missed=session_inputs.would_open_with_the_absent(spec, texts, mesh, limits),
            )
            if wait is not None:
                if wait.is_told:
                    self.note(f"waiting for somebody who can: {opened.detail}")
                await trio.sleep(wait.seconds)
                continue
            if opened.code in missed.NOT_YET and spec.failover == "queue":
                self.decline("no_peer", f"{opened.code}: {opened.detail}")
            self._perform((machine.Finish("failed", "", f"{opened.code}: {opened.detail}"),))
            return

    def _session_now(self) -> machine.Session:
        assert self._session is not None, "nothing is done before the session is open"
        return self._session

    def _happened(self, event: journal.SessionEvent) -> None:
        """Journal `event`, step the session with it, and do what it wants."""
        if self._finish is not None:
            return
        self._record(event)
        if self._session is None:  # it ended before it began
            is_cancelled = isinstance(event, journal.CancelHeard)
            why = event.reason if isinstance(event, journal.CancelHeard) else "timeout"
            self._finish = machine.Finish("cancelled" if is_cancelled else "failed", "", why)
            self._is_finished.set()
            return
        self._session, effects = machine.step(self._session, event)
        self._perform(effects)

    def _learn(self, event: journal.SessionEvent) -> None:
        """Journal something that the session knows of and wants nothing for."""
        self._record(event)
        self._session = machine.replay(self._session_now(), (event,))

    def _record(self, event: journal.SessionEvent) -> None:
        """Append to the journal, keep a copy, and offer it to the submitter."""
        parent = self._journal.last_digest
        self._journal, entry = coordinator_journal.record(self._journal, codec.encode(event))
        self._is_closed = self._is_closed or isinstance(event, journal.Closed)
        self._hands.hear(event)
        self._keep_copy(entry.index, parent, (entry,))
        self._outbox.say(self._offered(entry))

    def _keep_copy(self, start: int, parent: wire.Digest, entries: tuple[wire.Entry, ...]) -> None:
        offer = Offer(self.key, self.term, start, parent, entries, self._spec.inputs)
        try:
            self._rooms.copies.keep(offer)
        except (StorageError, RequestRefusedError) as full:
            # The submitter has it, or will; what we lose is the help of a copy.
            log.warning("copy-not-kept", task=self._task, error=str(full))
        self._replication.news()

    def _perform(self, effects: Sequence[machine.Effect]) -> None:
        for effect in effects:
            match effect:
                case machine.AskModel() | machine.RunCell() | machine.Fold():
                    self._nursery.start_soon(self._do, effect)
                case machine.Note(text=text):
                    self._progress("note", text=text)
                case machine.Finish():
                    self._finish = self._finish or effect
                    self._is_finished.set()

    async def _do(self, effect: machine.AskModel | machine.RunCell | machine.Fold) -> None:
        async with self.under_way.begun():
            self._happened(await self._hands.do(effect))

    def _content_holders(self, ref: ContentRef) -> ContentRef:
        """A reference that also names those who have it by now: us, and our standbys."""
        here = () if self._rooms.store.path(ref.hash) is None else (self._rooms.mesh.me,)
        holders = dict.fromkeys((*ref.holders, *here, *self._replication.holders))
        return ref.model_copy(update={"holders": tuple(holders)[:8]})

    # --- time -----------------------------------------------------------------------------------

    def _remaining_s(self) -> float:
        return max(0.0, self._deadline_at - trio.current_time())

    def _see(self, phase: Phase, is_submitter_here: bool) -> None:  # noqa: FBT001 a callback
        """Drop everything once patience is at its end, or all is done and kept."""
        now, patience = trio.current_time(), self._rooms.patience
        if is_submitter_here or not self._is_closed:
            self._alone_since = now
        kept_after_s = 0.0 if self._replication.is_complete else patience.kept_s
        if phase == "abandoned" or now - self._alone_since > max(LOOK_S, kept_after_s):
            log.info("submitter-gone", task=self._task, term=self.term, done=self._is_closed)
            self.scope.cancel()

    def note(self, text: str) -> None:
        """Something for those who watch."""
        self._progress("note", text=text)

    def _progress(
        self,
        kind: str,
        *,
        peer: PeerId | None = None,
        cell: int | None = None,
        language: str | None = None,
        text: str = "",
        why: str = "",
    ) -> None:
        self._outbox.say(
            wire.Progress(
                task=self._task,
                term=self.term,
                kind=kind,
                peer=peer,
                cell=cell,
                language=language,
                text=text[:PROGRESS_CHARS_MAX],
                why=line(why),
            )
        )
