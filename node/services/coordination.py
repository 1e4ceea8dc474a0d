"""One task led in one term: the session machine with hands.

Everything that happens is journalled and offered to the submitter in order; what the session wants
next is sent to peers. A conversation with the submitter may break and come back: the work goes on
meanwhile, as long as the lease is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.conversation import Conversation
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core.coordinator_lease import Lease
from kowalski.node.services import session_inputs
from kowalski.node.services.outbox import Outbox
from kowalski.node.services.placed_work import PlacedWork
from kowalski.node.services.session_hands import SessionHands, Term
from kowalski.node.services.texts import fitting
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message, line, sayable
from kowalski.rlm import session as machine
from kowalski.rlm.journal import GENESIS, check_chain, digest, entry_of, event_of

log = structlog.get_logger(__name__)

ANSWER_BYTES_MAX = 200_000
"""Of the last entry; a longer answer goes by hash."""

NOT_YET = frozenset({"no_language", "no_model"})
PROGRESS_CHARS_MAX = 16_384
CLOSING_S = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds."""

    capable_peer_s: float = 3.0
    """How long to wait for a peer that has the language or the model."""
    look_again_s: float = 0.25
    hold_s: float = 60.0
    """How long to go on without hearing from the submitter before everything is dropped."""


class Coordination:
    """Lead `grant.task` in `grant.term`. `run` does the work, `attend` talks to the submitter."""

    def __init__(
        self,
        grant: wire.Grant,
        *,
        mesh: Mesh,
        work: PlacedWork,
        store: ContentStore,
        patience: Patience,
    ) -> None:
        self.term = grant.term
        self._task = grant.task
        self._spec = grant.spec
        self._mesh = mesh
        self._work = work
        self._store = store
        self._patience = patience
        now = trio.current_time()
        self._lease = Lease(grant.term, now + grant.lease_s)
        self._renewed = trio.Event()
        self._deadline_at = now + grant.remaining_s
        self._heard_at = now
        self._prefix: list[wire.Entry] = []
        self._prefix_goal = (grant.prefix_entries, grant.last_digest)
        self._prefix_is_whole = trio.Event()
        self._attending = trio.CancelScope()
        self._outbox = Outbox()
        self._entries = 0
        self._last_digest = GENESIS
        self._session: machine.Session | None = None
        self._finish: machine.Finish | None = None
        self._is_finished = trio.Event()
        self._cancel_reason = ""
        self._is_cancelled = trio.Event()
        self._nursery: trio.Nursery
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        term = Term(
            task=grant.task,
            term=grant.term,
            spec=grant.spec,
            session=self._session_now,
            record=self._record,
            progress=self._progress,
            until_lease_held=self._until_lease_held,
            remaining_s=self._remaining_s,
        )
        self._hands = SessionHands(term, mesh=mesh, work=work, store=store)

    # --- talking to the submitter ---------------------------------------------------------------

    async def attend(self, conversation: Conversation, grant: wire.Grant) -> Message:
        """Serve one conversation until the task is settled or the submitter is gone.

        An earlier one ends: its other end is given up, even if its wires do not know yet.
        """
        self._attending.cancel()
        self._attending = trio.CancelScope()
        self._renew(grant.lease_s)
        self._outbox.start_over(grant.prefix_entries)
        self._progress("alive")
        if not self._prefix_is_whole.is_set():
            self._ask_prefix()
        with self._attending as scope:
            await self._converse(conversation)
        if scope.cancelled_caught:
            raise RequestFailedError("superseded", "by a higher term, or another conversation")
        self.scope.cancel()
        return wire.Settled(task=self._task, term=self.term)

    async def _converse(self, conversation: Conversation) -> None:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(self._outbox.send_all, conversation)
            while True:
                message = await conversation.receive()
                self._heard_at = trio.current_time()
                if isinstance(message, wire.Settle):
                    nursery.cancel_scope.cancel()
                    return
                self._hear(message)

    def _hear(self, message: Message) -> None:
        match message:
            case wire.Renewal(term=self.term, lease_s=lease_s):
                self._renew(lease_s)
                self._progress("alive")  # work may be quiet for longer than its patience lasts
            case wire.Accepted(term=self.term, index=index):
                self._outbox.accepted(index)
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

    def _renew(self, lease_s: float) -> None:
        self._lease = self._lease.renewed(self.term, lease_s, trio.current_time())
        self._renewed.set()

    def _ask_prefix(self) -> None:
        """Ask for the entries that are still missing, or begin."""
        goal, last_digest = self._prefix_goal
        if len(self._prefix) < goal:
            start = len(self._prefix)
            self._outbox.say(wire.PrefixAsked(task=self._task, term=self.term, start=start))
            return
        if check_chain(self._task, self._prefix) != last_digest:
            raise RemoteProtocolError("the entries do not end in the digest that was granted")
        self._entries, self._last_digest = goal, last_digest
        self._prefix_is_whole.set()

    # --- the work -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Lead the task to its end; returns when it is settled, deposed or forgotten."""
        try:
            with self.scope:
                async with open_plain_nursery() as nursery:
                    nursery.start_soon(self._watch_submitter)
                    await self._prefix_is_whole.wait()
                    nursery.start_soon(self._heed_cancel)
                    await self._lead()
                    self._record(await self._closing())
                    await trio.sleep_forever()  # until it is settled
        finally:
            self.ended.set()
            self._attending.cancel()
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSING_S):
                await self._hands.close_sessions(timeout_s=CLOSING_S / 2)

    async def _heed_cancel(self) -> None:
        await self._is_cancelled.wait()
        self._happened(journal.CancelHeard(reason=self._cancel_reason))

    async def _lead(self) -> None:
        try:
            with trio.move_on_at(self._deadline_at):
                await self._work_through()
                return
            limit = f"{self._spec.timeout_s:g} s are over"
            self._happened(journal.BudgetSpent(limit="timeout", detail=limit))
        except (RemoteProtocolError, PeerUnreachableError) as error:
            self._finish = machine.Finish("failed", "", f"inputs: {error}")
        except Exception as bug:  # the submitter must hear of it, and the node live on
            log.exception("coordination-died", task=self._task)
            self._finish = machine.Finish("failed", "", f"internal: {type(bug).__name__}: {bug}")

    async def _work_through(self) -> None:
        async with open_plain_nursery() as self._nursery:
            self._nursery.start_soon(self._begin)
            await self._is_finished.wait()
            self._nursery.cancel_scope.cancel()

    async def _begin(self) -> None:
        outset = await session_inputs.gather(self._spec, self._store, self._mesh)
        events = [event_of(entry) for entry in self._prefix]
        for event in events:
            self._hands.hear(event)
        fresh = machine.new_session(self._spec, limits=outset.limits, inputs=outset.texts)
        self._session = machine.replay(fresh, events)
        if events:
            self._perform(machine.outstanding(self._session))
        else:
            await self._open(outset)

    async def _open(self, outset: session_inputs.Outset) -> None:
        """Decide the mode. Where nobody can do it yet, peers that just came get a moment."""
        give_up_at = trio.current_time() + self._patience.capable_peer_s
        while True:
            opened = machine.open_session(
                self._spec,
                languages=session_inputs.languages(self._mesh),
                models=session_inputs.models(self._mesh),
                limits=outset.limits,
                inputs=outset.texts,
            )
            if isinstance(opened, journal.Opened):
                self._happened(opened)
                return
            if opened.code not in NOT_YET or trio.current_time() >= give_up_at:
                refusal = machine.Finish("failed", "", f"{opened.code}: {opened.detail}")
                self._perform((refusal,))
                return
            await trio.sleep(self._patience.look_again_s)

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

    def _record(self, event: journal.SessionEvent) -> None:
        """Append to the journal and offer it to the submitter."""
        entry = entry_of(self.term, self._entries, self._last_digest, event)
        self._entries += 1
        self._last_digest = digest(self._task, entry)
        self._hands.hear(event)
        self._outbox.offer(wire.EntryOffered(task=self._task, entry=entry))

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
        match effect:
            case machine.AskModel():
                self._happened(await self._hands.ask_model(effect))
            case machine.RunCell():
                self._happened(await self._hands.run_cell(effect))
            case machine.Fold():
                self._happened(await self._hands.fold(effect))

    # --- ends -----------------------------------------------------------------------------------

    async def _closing(self) -> journal.Closed:
        """The last entry. A long answer goes by hash."""
        finish = self._finish or machine.Finish("failed", "", "internal: it ended without an end")
        data = sayable(finish.answer).encode()
        full = await self._store.put(data) if len(data) > ANSWER_BYTES_MAX else None
        return journal.Closed(
            outcome=finish.outcome,
            answer=fitting(finish.answer, ANSWER_BYTES_MAX // 4 if full else ANSWER_BYTES_MAX),
            full=full,
            detail=line(finish.detail),
        )

    # --- time -----------------------------------------------------------------------------------

    def _remaining_s(self) -> float:
        return max(0.0, self._deadline_at - trio.current_time())

    async def _until_lease_held(self) -> None:
        """Dispatch nothing while the lease is over."""
        while not self._lease.is_held(trio.current_time()):
            self._renewed = trio.Event()
            await self._renewed.wait()

    async def _watch_submitter(self) -> None:
        """Drop everything once the submitter was silent for too long."""
        while True:
            silent_until = self._heard_at + self._patience.hold_s
            if silent_until <= trio.current_time():
                log.info("submitter-gone", task=self._task, term=self.term)
                self.scope.cancel()
            await trio.sleep_until(max(silent_until, trio.current_time() + 0.01))

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
