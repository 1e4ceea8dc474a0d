"""Three members of a group with their disks, their coordinators, and a network between them.

It watches from outside and knows nothing of how the members decide. The invariants are named as in
docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from kowalski.node.core import detached_member as machine
from kowalski.node.core import detached_state as ds
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.journal import Closed
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import GENESIS, check_chain, digest, entry_of, event_of
from tests.node.core.ledger_world import OPENED, Coordinator, closed

TASK = TaskId("detached")
GROUP = tuple(PeerId(f"12D3KooWmember{n}") for n in range(3))
DELAY_S = 0.01


@dataclass
class Disk:
    policy: dict[str, Any] = field(default_factory=dict)
    """`failover` and `retry` of the task."""
    term: int = 0
    voted_for: PeerId | None = None
    confirmed: int = 0
    committed: int = 0
    retries: int = 0
    entries: list[Entry] = field(default_factory=list)

    def note(self, member: ds.Member) -> None:
        assert member.term >= self.term, "term_monotone"
        assert member.confirmed >= self.confirmed, "term_monotone"
        if member.term == self.term and self.voted_for is not None:
            assert member.voted_for == self.voted_for, "detached_majority: two votes in a term"
        assert member.retries >= self.retries, "attempt_budget: a lost coordinator is forgotten"
        self.term, self.voted_for = member.term, member.voted_for
        self.retries = member.retries
        self.confirmed, self.committed = member.confirmed, max(self.committed, member.committed)

    def restored(self, me: PeerId, now: float) -> ds.Member:
        marks = tuple(digest(TASK, entry) for entry in self.entries)
        is_closed = bool(self.entries) and isinstance(event_of(self.entries[-1]), Closed)
        member = ds.Member(
            me,
            GROUP,
            term=self.term,
            voted_for=self.voted_for,
            confirmed=self.confirmed,
            retries=self.retries,
            **self.policy,
            marks=marks,
            ends_at=len(marks) if is_closed else None,
            committed=min(self.committed, len(marks)),
        )
        return replace(member, act_at=inf if member.is_over else now + member.timeout_s)


@dataclass
class Sent:
    """A message under way; `deliver` hands it over, and returns what is sent because of it."""

    origin: PeerId
    target: PeerId
    event: ds.Event
    asked: ds.Effect | None = None


@dataclass
class GroupWorld:
    now: float = 0.0
    disks: dict[PeerId, Disk] = field(default_factory=lambda: {one: Disk() for one in GROUP})
    members: dict[PeerId, ds.Member] = field(default_factory=dict)
    coordinators: dict[PeerId, Coordinator] = field(default_factory=dict)
    network: list[Sent] = field(default_factory=list)
    leaders: dict[int, PeerId] = field(default_factory=dict)
    granted: dict[int, PeerId] = field(default_factory=dict)
    cancels: list[str] = field(default_factory=list)
    """What coordinators were told."""
    committed: list[str] = field(default_factory=list)
    """The digests of all that any member called committed: they never change."""
    visible: dict[PeerId, int] = field(default_factory=lambda: dict.fromkeys(GROUP, 0))
    cut: set[frozenset[PeerId]] = field(default_factory=set)

    policy: dict[str, Any] = field(default_factory=dict)
    """`failover` and `retry` of the task."""

    def __post_init__(self) -> None:
        for one in GROUP:
            self.disks[one].policy = self.policy
            self.start(one)
            self.members[one] = replace(self.members[one], act_at=0.2 + self.members[one].rank)

    # --- life and death ---

    def start(self, one: PeerId) -> None:
        self.members[one] = self.disks[one].restored(one, self.now)
        self.visible[one] = self.members[one].committed
        self.handle(one, ds.Reachable(frozenset(GROUP)))

    def kill(self, one: PeerId) -> None:
        self.members.pop(one, None)
        self.coordinators.pop(one, None)

    # --- steps ---

    def handle(
        self, one: PeerId, event: ds.Event, *, asker: PeerId | None = None, crash_after: float = inf
    ) -> None:
        before = self.members[one]
        after, effects = machine.step(before, event, self.now)
        ds.check(after)
        if after.role == "leader":
            assert self.leaders.setdefault(after.term, one) == one, "one_coordinator_per_term"
            if before.role != "leader" or before.term != after.term:
                held = [str(mark) for mark in after.marks[: len(self.committed)]]
                assert held == self.committed, "detached_majority: a leader lacks what counts"
        self.members[one] = after
        for number, effect in enumerate(effects):
            if number >= crash_after:
                self.kill(one)
                return
            self._perform(one, effect, event, asker)

    def _perform(
        self, one: PeerId, effect: ds.Effect, event: ds.Event, asker: PeerId | None
    ) -> None:
        disk, member = self.disks[one], self.members[one]
        match effect:
            case ds.Note(member=noted):
                disk.note(noted)
            case ds.Write(member=noted, cut_to=cut_to, entries=entries):
                disk.note(noted)
                disk.entries[cut_to:] = entries
                check_chain(TASK, disk.entries)
            case ds.Answer(answer=answer):
                assert asker is not None
                self.network.append(Sent(one, asker, _reply(one, answer, event)))
            case ds.AskVotes(term=term, confirmed=confirmed, entries=entries_, is_trial=trial):
                for other in member.others:
                    wanted = ds.VoteWanted(one, term, confirmed, entries_, trial)
                    self.network.append(Sent(one, other, wanted))
            case ds.Offer(peer=peer):
                self.network.append(Sent(one, peer, self._offer(one, effect)))
            case ds.PassCancel(reason=reason):
                self.cancels.append(reason)
            case ds.Close(outcome=outcome, detail=detail):
                assert one not in self.coordinators, "one_coordinator_per_term"
                last = member.marks[-1] if member.marks else GENESIS
                end = Closed(outcome=outcome, answer="", detail=detail)
                entry = entry_of(member.term, member.entries, last, end)
                self.handle(one, ds.Written(entry, digest(TASK, entry), ends=True))
            case ds.Lead(term=term):
                assert self.granted.setdefault(term, one) == one, "one_coordinator_per_term"
                last = member.marks[-1] if member.marks else GENESIS
                leading = Coordinator(TASK, term, one, member.entries, last)
                self.coordinators[one] = leading
            case ds.Retire():
                self.coordinators.pop(one, None)
            case ds.Accept(index=index, mark=mark):
                self._commit(index, mark)
            case ds.Show(start=start, end=end):
                assert start == self.visible[one], "visible_once"
                self.visible[one] = end
                for index in range(start, end):
                    self._commit(index, digest(TASK, disk.entries[index]))

    def _commit(self, index: int, mark: str) -> None:
        if index == len(self.committed):
            holders = sum(
                len(disk.entries) > index and digest(TASK, disk.entries[index]) == mark
                for disk in self.disks.values()
            )
            assert holders >= 2, "detached_majority: it counts, and two do not hold it"
            self.committed.append(mark)
        assert self.committed[index] == mark, "visible_once: another value of an entry"

    def _offer(self, one: PeerId, offer: ds.Offer) -> ds.LogOffered:
        assert offer.term == self.members[one].term
        start = offer.start
        member, entries = self.members[one], tuple(self.disks[one].entries)
        some = entries[start : start + 2]
        marks = tuple(digest(TASK, entry) for entry in some)
        ends = bool(some) and isinstance(event_of(some[-1]), Closed)
        parent = member.mark_before(start)
        assert parent is not None
        return ds.LogOffered(
            one,
            member.term,
            member.base,
            start,
            parent,
            some,
            marks,
            member.committed,
            ends,
            member.retries,
            offer.is_leaving,
        )

    def deliver(self, number: int, *, crash_after: float = inf, again: bool = False) -> None:
        sent = self.network[number] if again else self.network.pop(number)
        if sent.target not in self.members or frozenset((sent.origin, sent.target)) in self.cut:
            return
        self.handle(sent.target, sent.event, asker=sent.origin, crash_after=crash_after)

    def write(self, one: PeerId, *, ends: bool = False, crash_after: float = inf) -> None:
        """Its coordinator, where it has one, goes on."""
        leading = self.coordinators.get(one)
        if leading is None or (leading.entries > 12 and not ends):
            return
        entry = leading.write(closed("done") if ends else OPENED)
        mark = digest(TASK, entry)
        self.handle(one, ds.Written(entry, mark, ends), crash_after=crash_after)

    def lose_offers(self) -> None:
        """What was not answered in time is offered again."""
        for one, member in list(self.members.items()):
            for peer in member.in_flight:
                self.handle(one, ds.OfferLost(peer))

    def pass_time(self, until: float = inf) -> None:
        """To when something is due, and have it done."""
        due = min((machine.wake_at(one) for one in self.members.values()), default=inf)
        if min(due, until) == inf:
            return
        self.now = max(self.now, min(due, until))
        for one in GROUP:
            if one in self.members and machine.wake_at(self.members[one]) <= self.now:
                before = machine.wake_at(self.members[one])
                self.handle(one, ds.TimePassed())
                if one in self.members:
                    assert machine.wake_at(self.members[one]) > before, "the law of progress"

    def settle(self, *, works: Callable[[GroupWorld], None], seconds: float) -> None:
        """A network that delivers, and time that passes."""
        end = self.now + seconds
        while self.now < end:
            works(self)
            if self.network:
                self.deliver(0)
                continue
            self.lose_offers()
            self.pass_time(until=end)


def _reply(one: PeerId, answer: ds.Granted | ds.Held, event: ds.Event) -> ds.Event:
    match answer:
        case ds.Granted(term=term, is_granted=is_granted):
            assert isinstance(event, ds.VoteWanted)
            return ds.VoteHeard(one, term, event.term, is_granted, event.is_trial)
        case ds.Held(term=term, held=held, committed=committed):
            return ds.HeldHeard(one, term, held, committed)
