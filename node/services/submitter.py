"""The room of those who submit: the ledger with its disk, its conversations and its onlookers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog
import trio

from kowalski.mesh.content_store import ContentStore
from kowalski.mesh.core import rendezvous
from kowalski.mesh.core.placement import Candidate, load
from kowalski.mesh.driver import Driver
from kowalski.mesh.mesh import Mesh
from kowalski.node.core import resuming, retention, task_ledger
from kowalski.node.core.appointments import Appointment, AppointmentBook
from kowalski.node.core.portions import ENTRIES_MAX, portion
from kowalski.node.core.task_ledger import Task, TaskLedger
from kowalski.node.core.task_ledger_terms import weights_of
from kowalski.node.database import Counted, Whose
from kowalski.node.services import flight_recorder
from kowalski.node.services.onlookers import Onlookers, Seen
from kowalski.node.services.term_talk import Granted, TermTalk, remaining_s
from kowalski.node.services.wanted_contents import WantedContents
from kowalski.node.storage import LedgerStorage, StorageError
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import Address, PeerId, TaskId
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.journal import SessionEvent
from kowalski.rlm.journal import digest

__all__ = ["Seen", "SubmitterRoom"]

log = structlog.get_logger(__name__)

LISTED_MAX = 1000
HEAD_CHARS = 80
WEIGHTS_S = 0.5
CONTENTS_AFTER_S = 1.0
WEIGHT_MIN = 0.05
GONE = frozenset({"failed", "left"})
TIDY_S = 600.0
"""Between two looks for ended tasks that may be forgotten."""


class SubmitterRoom:
    """Made once a node; `run` keeps it going."""

    def __init__(
        self,
        mesh: Mesh,
        storage: LedgerStorage,
        store: ContentStore,
        *,
        params: task_ledger.Params | None = None,
        keeping: retention.Keeping | None = None,
        unix_clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._storage = storage
        self._contents = WantedContents(store, mesh)
        self._keeping = keeping or retention.Keeping()
        self._unix_clock = unix_clock
        self._talks: dict[TaskId, TermTalk] = {}
        self.appointments = AppointmentBook()
        self._onlookers = Onlookers()
        self._nursery: trio.Nursery
        self._driver: Driver[TaskLedger, task_ledger.Event, task_ledger.Effect] = Driver(
            TaskLedger(params or task_ledger.Params(), me=mesh.me),
            step=task_ledger.step,
            wake_at=task_ledger.wake_at,
            time_passed=task_ledger.TimePassed(),
            perform=self._perform,
        )

    # --- for those who submit and look ----------------------------------------------------------

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Latest first; not all that ever were."""
        return tuple(self.latest(LISTED_MAX))

    @property
    def journalled(self) -> Counter[tuple[Whose, Counted]]:
        """See `LedgerStorage.journalled`."""
        return self._storage.journalled

    @property
    def open_tasks(self) -> int:
        return self._driver.state.open_tasks

    def latest(self, limit: int) -> list[Task]:
        """The latest first; without the digests of those that ended long ago."""
        known = self._driver.state.tasks
        return [known.get(task.id, task) for task in self._storage.latest(limit)]

    def weights_of(self, spec: wire.TaskSpec) -> Mapping[PeerId, float]:
        """Who could lead a task now, and with what weight."""
        self._refresh_weights()
        return weights_of(self._driver.state, spec)

    def headlines(self) -> list[wire.TaskHeadline]:
        """The open tasks and those that ended last, as others are told of them."""
        now_unix_s, name = self._unix_clock(), self._mesh.name_of(self._mesh.me)
        return [
            wire.TaskHeadline(
                task=task.id,
                term=task.term,
                state=task.state,
                coordinator=task.coordinator,
                mode=task.spec.mode,
                entries=task.entries,
                head=_head(task.spec),
                submitter_name=name[:128],
                age_s=max(0.0, now_unix_s - task.submitted_unix_s),
            )
            for task in self._driver.state.tasks.values()
        ]

    def find(self, task: TaskId) -> Task:
        """Raises RequestRefusedError: `unknown`."""
        known = self._driver.state.tasks.get(task) or self._storage.task(task)
        if known is None:
            raise RequestRefusedError("unknown", f"no task {task} was submitted here")
        return known

    def submit(
        self,
        task: TaskId,
        spec: wire.TaskSpec,
        *,
        client: str = "",
        past: tuple[SessionEvent, ...] = (),
    ) -> Task:
        """Take the task in; when this returns it is on disk. The same again is the same task.

        Tasks of different clients take turns. With a `past` it goes on from there.

        Raises:
            RequestRefusedError: `conflict`, the id is taken by another task; `busy`, too many.
            StorageError: the disk refuses; nothing was taken in.
        """
        self._refresh_weights()
        self._recall(task)  # next to what needs it: the ledger forgets what ended long ago
        if refusal := task_ledger.why_refused(self._driver.state, task, spec):
            raise RequestRefusedError(*refusal)
        unix_s = int(self._unix_clock())
        self._driver.handle(task_ledger.Submitted(task, spec, unix_s, client, past))
        return self.find(task)

    def resume(
        self, task: TaskId, *, timeout_s: float | None = None, max_iterations: int | None = None
    ) -> Task:
        """Go on with a task: now, if it waits; if it did not end well, as a new one on its journal.

        Raises:
            RequestRefusedError: `unknown`; `conflict`, it is answered; `busy`.
            StorageError: the disk refuses.
        """
        old = self.find(task)
        match resuming.way_on(
            old, self.is_taken, timeout_s=timeout_s, max_iterations=max_iterations
        ):
            case "answered":
                raise RequestRefusedError("conflict", f"task {task} is answered")
            case "not over":
                self._refresh_weights()
                self._driver.handle(task_ledger.ResumeAsked(task))
                return self.find(task)
            case resuming.Anew(name=name, spec=spec):
                past = resuming.beginning(self.entries(task))
                return self.submit(name, spec, client=old.client, past=past)

    def is_taken(self, task: TaskId) -> bool:
        """Whether a task of that name was submitted here."""
        return task in self._driver.state.tasks or self._storage.task(task) is not None

    def trace(self, task: TaskId) -> tuple[str, ...]:
        """What the ledger did about it, step by step, as far as it remembers."""
        return flight_recorder.lines(self._driver.recorder, task)

    def _recall(self, task: TaskId) -> None:
        """A task that ended long ago still has its name: the ledger is to know it."""
        if task not in self._driver.state.tasks and (known := self._storage.task(task)):
            self._driver.handle(task_ledger.Restored(known))

    def cancel(self, task: TaskId, reason: str) -> None:
        """Raises RequestRefusedError: `unknown`."""
        self.find(task)
        self._driver.handle(task_ledger.CancelAsked(task, reason))

    def entries(self, task: TaskId, start: int = 0) -> list[wire.Entry]:
        return self._storage.entries(task, start)

    @contextmanager
    def watch(self, task: TaskId) -> Iterator[trio.MemoryReceiveChannel[Seen]]:
        """As `Onlookers.watch`."""
        with self._onlookers.watch(task) as seen:
            yield seen

    # --- performing what the ledger decides -----------------------------------------------------

    def _perform(self, effect: task_ledger.Effect) -> None:
        match effect:
            case task_ledger.Save() | task_ledger.SaveWithPast() | task_ledger.Append():
                self._write(effect)
            case task_ledger.Show(task=task, entry=entry):
                self._onlookers.show(Seen(task, entry))
            case task_ledger.GrantTerm(task=task, standbys=standbys, holders=holders):
                self._note(task, standbys)
                self._end_talk(task.id)
                lease_s = self._driver.state.params.lease_s
                talk = TermTalk(Granted(task, standbys, holders), lease_s=lease_s)
                self._talks[task.id] = talk
                self._nursery.start_soon(self._hold_talk, talk)
            case task_ledger.Revoke(task=task_id):
                self._end_talk(task_id)
            case task_ledger.Accept(task=task_id, term=term, index=index, digest=mark):
                accepted = wire.Accepted(task=task_id, term=term, index=index, digest=mark)
                self._say(task_id, accepted)
            case task_ledger.Renew(task=task_id, term=term):
                task = self.find(task_id)
                self._say(
                    task_id,
                    wire.Renewal(
                        task=task_id,
                        term=term,
                        lease_s=self._driver.state.params.lease_s,
                        remaining_s=remaining_s(task),
                    ),
                )
            case task_ledger.PassCancel(task=task_id, term=term, reason=reason):
                self._say(task_id, wire.CancelTask(task=task_id, term=term, reason=reason))
            case task_ledger.SettleTask(task=task_id, term=term):
                self._say(task_id, wire.Settle(task=task_id, term=term))

    def _note(self, task: Task, standbys: tuple[PeerId, ...]) -> None:
        """Remember from among whom its coordinator was taken."""
        if task.coordinator is not None:
            made = Appointment(
                trio.current_time(),
                task.term,
                task.coordinator,
                task.why_waiting,
                weights_of(self._driver.state, task.spec),
                frozenset(task.excluded),
                standbys,
            )
            self.appointments = self.appointments.appoint(task.id, made)

    def _write(
        self, effect: task_ledger.Save | task_ledger.SaveWithPast | task_ledger.Append
    ) -> None:
        task = effect.task
        match effect:
            case task_ledger.Save():
                self._storage.save(task)
                self._want(task.id, (one.content for one in task.spec.inputs))
            case task_ledger.SaveWithPast(entries=entries, contents=contents):
                self._storage.save_with_past(task, entries, contents)
                self._want(task.id, (*(one.content for one in task.spec.inputs), *contents))
            case task_ledger.Append(entry=entry, contents=contents):
                self._storage.append(task, entry, digest(task.id, entry), contents)
                self._want(task.id, contents)

    def _want(self, task: TaskId, contents: Iterable[ContentRef]) -> None:
        """What the journal refers to is to be here as long as the journal is."""
        self._contents.want(_owner(task), contents, after_s=CONTENTS_AFTER_S)

    def _say(self, task: TaskId, message: Message) -> None:
        if talk := self._talks.get(task):
            talk.say(message)

    def _end_talk(self, task: TaskId) -> None:
        if talk := self._talks.pop(task, None):
            talk.scope.cancel()

    async def _hold_talk(self, talk: TermTalk) -> None:
        task = talk.task
        event: task_ledger.Event | None
        try:
            event = await talk.hold(self._mesh, self._hear)
        except StorageError as full:
            # Nothing was accepted; the coordinator offers it again when the talk is resumed.
            log.error("entry-not-stored", task=task.id, error=str(full))  # noqa: TRY400 no bug
            event = task_ledger.CoordinatorLost(task.id, task.term, str(full))
        if event is None or self._talks.get(task.id) is not talk:
            return  # we ended it, or another talk of this term has begun
        del self._talks[task.id]
        try:
            self._driver.handle(event)
        except StorageError as full:
            # As if nothing had come: silence will bring it up again.
            log.error("ledger-not-stored", task=task.id, error=str(full))  # noqa: TRY400 no bug

    def _hear(self, talk: TermTalk, message: Message) -> None:
        """Take one message of a coordinator."""
        task = talk.task
        match message:
            case wire.EntryOffered(entry=entry):
                self._driver.handle(task_ledger.EntryHeard(task.id, entry))
            case wire.PrefixAsked(start=start):
                talk.say(wire.Prefix(task=task.id, start=start, entries=self._prefix(task, start)))
            case wire.Progress():
                self._driver.handle(task_ledger.CoordinatorHeard(task.id, task.term))
                self._onlookers.show(Seen(self.find(task.id), progress=message))
            case _:
                log.warning("unexpected-message", task=task.id, kind=message.KIND)

    def _prefix(self, task: Task, start: int) -> tuple[wire.Entry, ...]:
        wanted = min(ENTRIES_MAX, max(0, task.entries - start))
        return portion(self._storage.entries(task.id, start, wanted))

    # --- the tasks of an open room --------------------------------------------------------------

    def _refresh_weights(self) -> None:
        able = [one for one in self._mesh.candidates() if "coordinate" in one.roles]
        leaders = [one for one in able if _may_lead(one)]
        passed_over = frozenset(
            one.peer
            for one in able
            if not _may_lead(one) and self._mesh.state_of(one.peer) not in GONE
        )
        weights = {
            one.peer: rendezvous.quantised(max(WEIGHT_MIN, 1.0 - 0.5 * min(load(one, "code"), 1.5)))
            for one in leaders
        }
        known = self._driver.state
        if (weights, passed_over) != (known.weights, known.passed_over):
            hosts = {one.peer: _host(self._mesh.addresses_of(one.peer)) for one in leaders}
            named = {peer: host for peer, host in hosts.items() if host is not None}
            self._driver.handle(task_ledger.WeightsChanged(weights, named, passed_over))

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the ledger going until cancelled; ready once the disk's tasks are in it."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for name, contents in self._storage.contents().items():
                self._want(name, contents)
            for task in self._storage.open_tasks():
                self._driver.handle(task_ledger.Restored(task))
            self._mesh.listen(lambda _change: self._refresh_weights())
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._tidy)
            nursery.start_soon(self._contents.run)
            task_status.started()
            while True:
                # Without tasks nobody asks; whoever brings one has them looked at first.
                if self._driver.state.open_tasks:
                    self._refresh_weights()
                await trio.sleep(WEIGHTS_S)

    async def _keep_time(self) -> None:
        while True:
            try:
                await self._driver.run()
            except StorageError as full:
                log.error("ledger-not-stored", error=str(full))  # noqa: TRY400 no bug
                await trio.sleep(self._driver.state.params.renewal_s)

    async def _tidy(self) -> None:
        """Forget what ended long ago, or too much of it."""
        while True:
            try:
                ended = self._storage.ended()
                gone = retention.forgotten(ended, self._keeping, self._unix_clock())
                if gone:
                    self._storage.delete(gone)
                    for name in gone:
                        self._contents.forget(_owner(name))
                    log.info("tasks-forgotten", count=len(gone))
            except StorageError as full:
                log.error("ledger-not-tidied", error=str(full))  # noqa: TRY400 no bug
            await trio.sleep(TIDY_S)


def _may_lead(one: Candidate) -> bool:
    """Whether anything is to be asked of it now."""
    return one.is_routable and not one.is_draining and not one.paused


def _owner(task: TaskId) -> str:
    return f"task {task}"


def _host(addresses: tuple[Address, ...]) -> str | None:
    """The device behind addresses, as far as they tell."""
    parts = [address.split("/") for address in addresses]
    return next((one[2] for one in parts if len(one) > 2 and one[1] in {"ip4", "ip6"}), None)


def _head(spec: wire.TaskSpec) -> str:
    """How the prompt begins, unless nothing of the task may leave this device."""
    if spec.devices == "local":
        return ""
    return " ".join(spec.prompt[:400].split())[:HEAD_CHARS]
