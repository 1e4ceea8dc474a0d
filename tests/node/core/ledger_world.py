"""A world around a task ledger: its disk, its peers, a network that delays and repeats.

It watches from outside and knows nothing of how the ledger decides. The invariants are named as in
docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from kowalski.node.core import task_ledger as tl
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import Digest, Entry, TaskSpec
from kowalski.rlm.journal import GENESIS, check_chain, digest, entry_of

PEERS = tuple(PeerId(f"12D3KooWpeer{n}") for n in range(1, 5))
OPENED = journal.Opened(mode="blocks")


def spec(prompt: str = "do it", timeout_s: float = 60.0, **more: object) -> TaskSpec:
    fields = {"prompt": prompt, "mode": "blocks", "max_iterations": 5, "timeout_s": timeout_s}
    return TaskSpec.model_validate({**fields, **more})


def closed(answer: str = "done", outcome: journal.Outcome = "answered") -> journal.Closed:
    return journal.Closed(outcome=outcome, answer=answer)


class DiskFullError(Exception):
    pass


@dataclass
class Coordinator:
    """A peer that leads a task in one term: an honest one."""

    task: TaskId
    term: int
    peer: PeerId
    entries: int
    last: Digest

    def write(self, event: journal.SessionEvent) -> Entry:
        entry = entry_of(self.term, self.entries, self.last, event)
        self.entries += 1
        self.last = digest(self.task, entry)
        return entry


@dataclass
class LedgerWorld:
    now: float = 0.0
    ledger: tl.TaskLedger = field(default_factory=tl.TaskLedger)
    rows: dict[TaskId, tl.Task] = field(default_factory=dict)
    entries: dict[TaskId, list[Entry]] = field(default_factory=dict)
    granted: dict[tuple[TaskId, int], PeerId] = field(default_factory=dict)
    coordinators: dict[tuple[TaskId, int], Coordinator] = field(default_factory=dict)
    shown: dict[tuple[TaskId, int], Digest] = field(default_factory=dict)
    accepted: set[tuple[TaskId, int]] = field(default_factory=set)
    ended: dict[TaskId, tuple[tl.TaskState, journal.Closed | None]] = field(default_factory=dict)
    acknowledged: dict[TaskId, TaskSpec] = field(default_factory=dict)
    effects: list[tl.Effect] = field(default_factory=list)
    """Of the last event."""
    is_disk_full: bool = False
    jumps_left: int = 5000
    """In time; a ledger that never comes to rest shall not keep us."""

    # --- the shell ------------------------------------------------------------------------------

    def handle(self, event: tl.Event, *, crash_after: float = inf) -> list[tl.Effect]:
        """As the driver does it; the process may die after so many effects."""
        before = self.ledger
        self.ledger, effects = tl.step(before, event, self.now)
        self.effects = list(effects)
        for number, effect in enumerate(effects):
            if number >= crash_after:
                self.restart()
                return self.effects
            try:
                self.perform(effect)
            except DiskFullError:
                self.ledger = before
                return self.effects
        self.check()
        return self.effects

    def restart(self) -> None:
        self.ledger = tl.TaskLedger(self.ledger.params, self.ledger.weights)
        for name, row in self.rows.items():
            if row.answer is None:
                self.restore(name)
        self.check()

    def restore(self, name: TaskId) -> None:
        """As the shell does it, from the disk."""
        row = self.rows[name]
        marks = tuple(digest(name, entry) for entry in self.entries.get(name, ()))
        restored = tl.Task(
            id=name,
            spec=row.spec,
            submitted_unix_s=row.submitted_unix_s,
            state=row.state,
            term=row.term,
            entries=len(marks),
            digests=marks,
            answer=row.answer,
            cancel_reason=row.cancel_reason,
            holders=row.holders,
            client=row.client,
            retries=row.retries,
        )
        self.ledger, effects = tl.step(self.ledger, tl.Restored(restored), self.now)
        assert effects == ()

    def perform(self, effect: tl.Effect) -> None:
        match effect:
            case tl.Save(task=task):
                self.write(task)
            case tl.SaveWithPast(task=task, entries=entries):
                self.write(task)
                self.entries[task.id] = list(entries)
                assert {entry.term for entry in entries} == {1}
            case tl.Append(task=task, entry=entry):
                self.write(task)
                self.entries.setdefault(task.id, []).append(entry)
                assert entry.term == task.term, "no_stale_visible"
            case tl.GrantTerm(task=task):
                self.grant(task)
            case tl.Accept(task=name, index=index, digest=mark):
                assert digest(name, self.entries[name][index]) == mark, "accepted, not on disk"
                self.accepted.add((name, index))
            case tl.Show(task=task, entry=Entry() as entry):
                mark = digest(task.id, entry)
                assert self.entries[task.id][entry.index] == entry, "visible, not on disk"
                assert self.shown.setdefault((task.id, entry.index), mark) == mark, "visible_once"
            case _:
                pass

    def write(self, task: tl.Task) -> None:
        if self.is_disk_full:
            raise DiskFullError
        old = self.rows.get(task.id)
        assert old is None or task.term >= old.term, "term_monotone"
        self.rows[task.id] = task
        if task.is_over:
            end = (task.state, task.answer)
            assert self.ended.setdefault(task.id, end) == end, "one end, and for ever"

    def grant(self, task: tl.Task) -> None:
        assert task.coordinator is not None
        assert self.rows[task.id].term == task.term, "granted, not on disk"
        terms = [term for name, term in self.granted if name == task.id]
        assert task.term >= max(terms, default=0), "term_monotone"
        is_bounded = task.retries <= task.spec.retry.retries_max
        assert is_bounded or task.spec.failover == "queue", "attempt_budget"
        key = (task.id, task.term)
        holder = self.granted.setdefault(key, task.coordinator)
        assert holder == task.coordinator, "one_coordinator_per_term"
        assert task.coordinator in self.ledger.weights, "granted to nobody who offers it"
        if key not in self.coordinators:
            prefix = self.entries.get(task.id, [])
            assert task.entries == len(prefix)
            last = digest(task.id, prefix[-1]) if prefix else GENESIS
            assert task.last_digest == last
            self.coordinators[key] = Coordinator(
                task.id, task.term, task.coordinator, task.entries, last
            )

    # --- what must hold -------------------------------------------------------------------------

    def check(self) -> None:
        tl.check(self.ledger)
        for name, task in self.ledger.tasks.items():
            on_disk = self.entries.get(name, [])
            assert check_chain(name, on_disk) == task.last_digest, "prefix_chain"
            assert self.rows[name].term == task.term
            assert self.rows[name].cancel_reason == task.cancel_reason
            if task.is_over:
                assert self.ended[name] == (task.state, task.answer), "one end, and for ever"
                assert self.rows[name].state == task.state
                assert self.rows[name].answer == task.answer
            else:
                assert name not in self.ended, "one end, and for ever"
        for name, asked in self.acknowledged.items():
            assert self.rows[name].spec == asked, "id_idempotent"
            assert name in self.ledger.tasks or name in self.ended, "no_lost_ack"

    # --- what may happen ------------------------------------------------------------------------

    def submit(
        self, name: str, asked: TaskSpec, *, client: str = "", crash_after: float = inf
    ) -> None:
        task = TaskId(name)
        if task not in self.ledger.tasks and task in self.rows:
            self.restore(task)
        known = self.ledger.tasks.get(task)
        refusal = tl.why_refused(self.ledger, task, asked)
        if known is not None:
            assert (refusal is None) == (known.spec == asked), "id_idempotent"
        if refusal is not None:
            return
        effects = self.handle(tl.Submitted(task, asked, 0, client), crash_after=crash_after)
        if known is not None:
            assert effects == [], "id_idempotent"
        if crash_after == inf and not self.is_disk_full:
            self.acknowledged[task] = asked

    def weights(self, peers: Iterable[PeerId]) -> None:
        self.handle(tl.WeightsChanged(dict.fromkeys(peers, 1.0)))

    def pass_time(self, seconds: float = inf, *, crash_after: float = inf) -> None:
        """To the next moment at which something is due, at most so far."""
        self.jumps_left -= 1
        assert self.jumps_left, "it never comes to rest"
        due = max(self.now, tl.wake_at(self.ledger))
        self.now = min(due, self.now + seconds)
        if self.now >= due:
            self.handle(tl.TimePassed(), crash_after=crash_after)

    def settle_all(self, *, within_s: float) -> None:
        """Peers are here, faults have ended, whoever leads answers: everything must end."""
        self.is_disk_full = False
        self.weights(PEERS)
        give_up_at = self.now + within_s
        while any(not task.is_over for task in self.ledger.tasks.values()):
            assert self.now <= give_up_at, "no_lost_ack"
            for task in tuple(self.ledger.tasks.values()):
                if task.state == "running" and task.is_in_talks:
                    leader = self.coordinators[task.id, task.term]
                    leader.entries, leader.last = task.entries, task.last_digest
                    self.handle(tl.EntryHeard(task.id, leader.write(closed())))
            self.pass_time()
        assert self.acknowledged.keys() <= self.ended.keys(), "no_lost_ack"


def with_term(entry: Entry, term: int) -> Entry:
    return entry.model_copy(update={"term": term})


def running(world: LedgerWorld, name: str = "a") -> tl.Task:
    task = world.ledger.tasks[TaskId(name)]
    assert task.state == "running"
    return task


def leader_of(world: LedgerWorld, name: str = "a") -> Coordinator:
    task = running(world, name)
    return world.coordinators[task.id, task.term]
