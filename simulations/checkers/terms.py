"""Who leads: the invariants of terms, fences and leases (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import inf

from kowalski.mesh.watching import Recorded
from kowalski.node.core import task_ledger
from kowalski.node.core.coordinator_lease import Patience
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Message, Refused
from kowalski.protocol.messages.copies import CopyHeld
from kowalski.protocol.messages.inference import CompletionAsked
from kowalski.protocol.messages.repl import CellAsked, SessionClosed
from kowalski.protocol.messages.task import Grant, Renewal
from simulations.checkers.submitters import Submitters
from simulations.witness import NoChecker, Said, Witness

LEASE_SLACK_S = 0.05
"""Between a renewal's arrival and its being read."""


@dataclass(slots=True)
class _Issued:
    """The last term of a task that was granted to anybody, and on disk before that."""

    term: int = 0
    coordinator: PeerId | None = None
    saved_term: int = 0
    saved_coordinator: PeerId | None = None


class Terms(NoChecker):
    """`term_monotone`, `one_coordinator_per_term`, `term_is_saved_first`."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._issued: dict[TaskId, _Issued] = {}

    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        del number, method
        task = arguments[0]
        if isinstance(task, task_ledger.Task):
            issued = self._issued.setdefault(task.id, _Issued())
            self.witness.check(
                "term_monotone",
                holds=task.term >= issued.saved_term,
                words=f"{task.id}: term {task.term} on disk after {issued.saved_term}",
            )
            issued.saved_term, issued.saved_coordinator = task.term, task.coordinator

    def stepped(
        self, number: int, driver: Recorded, event: object, effects: tuple[object, ...]
    ) -> None:
        del number, driver, event
        for effect in effects:
            if isinstance(effect, task_ledger.GrantTerm):
                self._granted(effect.task)

    def _granted(self, task: task_ledger.Task) -> None:
        issued = self._issued.setdefault(task.id, _Issued())
        self.witness.note(f"{task.id}: term {task.term} to {self._name(task.coordinator)}")
        self.witness.check(
            "term_monotone",
            holds=task.term >= issued.term,
            words=f"{task.id}: term {task.term} granted after {issued.term}",
        )
        self.witness.check(
            "one_coordinator_per_term",
            holds=task.term != issued.term or task.coordinator == issued.coordinator,
            words=f"{task.id}: term {task.term} granted to {self._name(issued.coordinator)} and "
            f"to {self._name(task.coordinator)}",
        )
        self.witness.check(
            "term_is_saved_first",
            holds=(issued.saved_term, issued.saved_coordinator) == (task.term, task.coordinator),
            words=f"{task.id}: term {task.term} granted, {issued.saved_term} is on disk",
        )
        issued.term, issued.coordinator = task.term, task.coordinator

    def said(self, said: Said) -> None:
        grant = said.message
        if not isinstance(grant, Grant) or said.speaker < 0 or grant.submitter is not None:
            return  # a stranger's, or of a detached task: see `keepers`
        issued = self._issued.get(grant.task, _Issued())
        self.witness.check(
            "one_coordinator_per_term",
            holds=grant.term <= issued.term
            and (
                grant.term < issued.term
                or self.witness.number_of(issued.coordinator or PeerId("")) == said.hearer
            ),
            words=f"{grant.task}: a grant of term {grant.term} to node {said.hearer}, issued was "
            f"{issued.term} to {self._name(issued.coordinator)}",
        )

    def _name(self, peer: PeerId | None) -> str:
        return "nobody" if peer is None else f"node {self.witness.number_of(peer)}"


Door = tuple[int, str, int | None, TaskId]
"""Where a task is known: at a node, in a room, from a submitter (None: who asked named nobody)."""


class Fences(NoChecker):
    """`fence_monotone`: who has heard a higher term answers a lower one `stale`, at each door.

    A term counts as heard from the first word in answer to it: one that is taken back at once may
    never be read. The same name from two submitters is two tasks.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._highest: dict[Door, int] = {}
        self._asked: dict[Hashable, tuple[Door, int]] = {}
        self._must_be_stale: dict[Hashable, tuple[int, TaskId, int, int]] = {}

    def began(self, number: int) -> None:
        """A new process has heard nothing yet."""
        for door in [door for door in self._highest if door[0] == number]:
            del self._highest[door]
        for request in [one for one, (door, _) in self._asked.items() if door[0] == number]:
            del self._asked[request]
        for request, (at, *_) in list(self._must_be_stale.items()):
            if at == number:
                del self._must_be_stale[request]

    def heard(self, said: Said) -> None:
        if not said.is_first or (named := _named(said.message)) is None:
            return
        task, term = named
        door = (said.hearer, type(said.message).KIND.partition("/")[0], self._whose(said), task)
        highest = self._highest.get(door, 0)
        if term < highest:
            self._must_be_stale[said.request] = (said.hearer, task, term, highest)
        elif said.speaker >= 0 or highest:
            self._asked[said.request] = (door, term)

    def _whose(self, said: Said) -> int | None:
        match said.message:
            case Grant(submitter=submitter):
                return said.speaker if submitter is None else self.witness.number_of(submitter)
            case CellAsked(claim=claim) if claim.submitter is not None:
                return self.witness.number_of(claim.submitter)
            case SessionClosed(submitter=submitter) if submitter is not None:
                return self.witness.number_of(submitter)
            case _:
                return None

    def said(self, said: Said) -> None:
        if said.by_asker:
            return
        message = said.message
        asked = self._asked.pop(said.request, None)
        if asked is not None and not isinstance(message, Refused):
            door, term = asked
            self._highest[door] = max(term, self._highest.get(door, 0))
        if said.request not in self._must_be_stale:
            return
        number, task, term, highest = self._must_be_stale.pop(said.request)
        self.witness.check(
            "fence_monotone",
            holds=isinstance(message, Refused) and message.reason in {"stale", "busy"},
            words=f"node {number} heard term {highest} of {task}, and answered {message.KIND} "
            f"{getattr(message, 'reason', '')} to term {term}",
        )


def _named(message: Message) -> tuple[TaskId, int] | None:
    if isinstance(message, Grant | CellAsked | SessionClosed):
        return message.task, message.term
    return None


@dataclass(slots=True)
class _Lease:
    """As one coordinator knows it of one term, by its own clock."""

    until: float
    granted_until: float
    """The same without renewals: those that reach a sleeping machine may never be read."""
    standbys: frozenset[int]
    witnessed_at: float = -inf
    """When a standby of this term said last that it knows of no higher one."""

    def allows(self, own_s: float) -> bool:
        if own_s <= self.until + LEASE_SLACK_S:
            return True
        patience = Patience()
        has_witness = not self.standbys or (
            own_s <= self.witnessed_at + patience.witness_s + LEASE_SLACK_S
        )
        return has_witness and own_s >= self.granted_until + patience.hold_after_s - LEASE_SLACK_S


class Leases(NoChecker):
    """`lease_stop`: by its own clock, a coordinator whose lease is over sends out nothing.

    But where it can tell that its submitter is gone, by the word of a standby, and holds on. The
    same name from two submitters is two tasks, each with a lease of its own.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._submitters = Submitters(witness)
        self._leases: dict[tuple[int, int, TaskId, int], _Lease] = {}
        """By coordinator, submitter, task and term."""

    def began(self, number: int) -> None:
        for key in [key for key in self._leases if key[0] == number]:
            del self._leases[key]

    def heard(self, said: Said) -> None:
        message = said.message
        if isinstance(message, CopyHeld):
            for (number, _, task, _), known in self._leases.items():
                if (number, task) == (said.hearer, message.task) and said.speaker in known.standbys:
                    known.witnessed_at = said.own_s
        elif isinstance(message, Grant | Renewal):
            key = (said.hearer, self._submitters.of(said), message.task, message.term)
            until = said.own_s + message.lease_s
            if isinstance(message, Grant):
                standbys = frozenset(map(self.witness.number_of, message.standbys))
                before = self._leases.get(key)
                until = max(until, before.until) if before is not None else until
                self._leases[key] = _Lease(until, said.own_s + message.lease_s, standbys)
            elif lease := self._leases.get(key):
                lease.until = max(lease.until, until)

    def said(self, said: Said) -> None:
        message = said.message
        if not said.is_first or said.speaker < 0:
            return
        if isinstance(message, CellAsked | CompletionAsked) and message.term is not None:
            assert message.task is not None
            whose = self._submitters.of(said)
            lease = self._leases.get((said.speaker, whose, message.task, message.term))
            if lease is None:  # a program that is run alone has no lease
                return
            self.witness.check(
                "lease_stop",
                holds=lease.allows(said.own_s),
                words=f"node {said.speaker} sent out {message.KIND} of {message.task} "
                f"{said.own_s - lease.until:.2f} s after its lease of term {message.term}",
            )
