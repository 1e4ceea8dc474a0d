"""A detached task's leader as its own coordinator sees it: what a submitter is otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

import structlog
import trio

from kowalski.mesh.mesh import Mesh
from kowalski.node.core import detached_state as ds
from kowalski.node.core import task_ledger
from kowalski.node.core.fences import TaskKey
from kowalski.node.core.portions import ENTRIES_MAX, portion
from kowalski.node.core.task_ledger import Task
from kowalski.node.database import StorageError
from kowalski.node.services.onlookers import Onlookers, Seen
from kowalski.node.services.term_talk import Granted, TermTalk, remaining_s
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import detached as wire
from kowalski.protocol.messages import task as task_wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.journal import Closed, SessionEvent
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import GENESIS, digest, entry_of, event_of

log = structlog.get_logger(__name__)

Past = tuple[SessionEvent, ...]


class Led(Protocol):
    """The detached task that is led; `DetachedTask`."""

    key: TaskKey
    delegation: wire.Delegation
    onlookers: Onlookers

    @property
    def member(self) -> ds.Member: ...
    def as_of(self, entries: int, /) -> Task: ...
    def find(self, task: TaskId, /) -> Task: ...
    def entries_on_disk(self, start: int, limit: int = 1_000_000) -> list[Entry]: ...
    def handle(self, event: ds.Event, /) -> None: ...
    def step(self, event: ds.Event, /) -> None: ...


class LeaderSeat:
    """Taken for the length of a term, or not at all."""

    def __init__(
        self,
        task: Led,
        mesh: Mesh,
        hear_term: Callable[[TaskKey, int], None],
        past_of: Callable[[wire.Delegation], Past | None],
    ) -> None:
        self._task = task
        self._mesh = mesh
        self._hear_term = hear_term
        self._past_of = past_of
        self._talk: TermTalk | None = None

    def perform(self, effect: ds.Effect) -> None:
        name = self._task.key[1]
        match effect:
            case ds.PassCancel(term=term, reason=reason):
                self.say(task_wire.CancelTask(task=name, term=term, reason=reason))
            case ds.Close(outcome=outcome, detail=detail):
                self._write(Closed(outcome=outcome, answer="", detail=detail))
            case ds.Retire():
                self.leave()
            case ds.Accept(term=term, index=index, mark=mark):
                self.say(task_wire.Accepted(task=name, term=term, index=index, digest=mark))
            case _:
                raise AssertionError(effect)

    def say(self, message: Message) -> None:
        """To the coordinator, if there is one."""
        if self._talk is not None:
            self._talk.say(message)

    def leave(self) -> None:
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.scope.cancel()

    def _write(self, event: SessionEvent) -> None:
        """Raises StorageError: it is not written."""
        member = self._task.member
        last = member.marks[-1] if member.marks else GENESIS
        self._take(entry_of(member.term, member.entries, last, event))

    def _write_past(self) -> None:
        """What it goes on with, as far as it does not stand there yet: nothing else comes first.

        Raises:
            RequestRefusedError: that is not all here.
            StorageError: the disk refuses.
        """
        past = self._past_of(self._task.delegation)
        if past is None:
            raise RequestRefusedError("no_peer", "what it goes on with is not all here", 2.0)
        for event in past[self._task.member.entries :]:
            self._write(event)

    def _take(self, entry: Entry) -> None:
        """Raises StorageError: it is as if it had never come."""
        mark = digest(self._task.key[1], entry)
        self._task.step(ds.Written(entry, mark, ends=ends((entry,))))

    async def lead(self, term: int) -> None:
        """Have this node coordinate in this term; returns when that is over."""
        task, member = self._task, self._task.member
        if member.role != "leader" or member.term != term:
            return
        self._hear_term(task.key, term)
        try:
            self._write_past()
        except (StorageError, RequestRefusedError) as error:
            log.error("detached-not-led", task=task.key[1], error=str(error))  # noqa: TRY400 no bug
            task.handle(ds.CoordinatorLost(term, is_declined=True, why=str(error)))
            return
        member = task.member
        # Without a lease it stops: the others may have elected somebody.
        spec = task.delegation.spec.model_copy(update={"submitter_gone": "abort"})
        led = replace(
            task.as_of(member.committed),
            spec=spec,
            term=term,
            coordinator=self._mesh.me,
            entries=member.entries,
            digests=member.marks,
        )
        others = tuple(sorted(member.others))
        granted = Granted(led, (), others)
        talk = TermTalk(granted, lease_s=member.params.lease_s, submitter=task.key[0])
        self._talk = talk
        lost = ds.CoordinatorLost(term, is_declined=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._renew, talk, led)
            try:
                lost = _lost(term, await talk.hold(self._mesh, self._hear))
            except (StorageError, RemoteProtocolError) as error:
                log.error("detached-not-led", task=task.key[1], error=str(error))  # noqa: TRY400 no bug
                lost = replace(lost, why=str(error))
            nursery.cancel_scope.cancel()
        if self._talk is talk:
            self._talk = None
            task.handle(lost)

    async def _renew(self, talk: TermTalk, led: Task) -> None:
        params = self._task.member.params
        while True:
            await trio.sleep(params.pulse_s)
            talk.say(
                task_wire.Renewal(
                    task=led.id,
                    term=led.term,
                    lease_s=params.lease_s,
                    remaining_s=remaining_s(led),
                )
            )

    def _hear(self, talk: TermTalk, message: Message) -> None:
        task = self._task
        match message:
            case task_wire.EntryOffered(entry=entry):
                self._take(entry)
            case task_wire.PrefixAsked(start=start):
                wanted = max(0, min(ENTRIES_MAX, talk.task.entries - start))
                some = portion(task.entries_on_disk(start, wanted))
                talk.say(task_wire.Prefix(task=talk.task.id, start=start, entries=some))
            case task_wire.Progress():
                task.onlookers.show(Seen(task.find(talk.task.id), progress=message))
            case _:
                log.warning("unexpected-message", task=talk.task.id, kind=message.KIND)


def _lost(term: int, ended: task_ledger.Event | None) -> ds.CoordinatorLost:
    """How the term of our coordinator ended, as the member sees it."""
    match ended:
        case task_ledger.CoordinatorDeclined(why=why, how=how):
            return ds.CoordinatorLost(term, is_declined=how != "failed", why=why)
        case task_ledger.CoordinatorLost(why=why):
            return ds.CoordinatorLost(term, why=why)
        case _:
            return ds.CoordinatorLost(term)


def ends(entries: Iterable[Entry]) -> bool:
    """Whether one of them closes the task."""
    return any(isinstance(event_of(one), Closed) for one in entries)
