"""The submitter's book under histories that hypothesis makes up: every invariant, every step."""

from __future__ import annotations

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from kowalski.node.core import task_ledger as tl
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.journal import CancelHeard
from kowalski.protocol.messages.task import Entry
from tests.node.core.ledger_world import OPENED, PEERS, Coordinator, LedgerWorld, closed, spec

names = st.sampled_from(["a", "b", "c"])
terms = st.integers(1, 6)
crashes = st.one_of(st.just(inf), st.integers(0, 3))
few = st.integers(0, 9)
NEWS = ["lost", "no", "busy", "leaving", "unable", "heard", "settled"]
PROMPTS = {
    "one": spec("one"),
    "other": spec("other", failover="fail", priority="batch"),
    "patient": spec("patient", failover="queue", retry={"retries_max": 1, "delay_s": 2.0}),
}

SETTLES_WITHIN_S = 90.0


class Ledgers(RuleBasedStateMachine):
    """Peers come and go, entries are late, doubled or wrong, the process dies, the disk fills."""

    def __init__(self) -> None:
        super().__init__()
        # Two at a time, so that the third of the names has to wait its turn.
        params = tl.Params(running_max=2, ended_kept_max=1)
        self.world = LedgerWorld(ledger=tl.TaskLedger(params))
        self.network: list[tuple[TaskId, Entry]] = []

    # --- the submitter's own ---

    @rule(
        name=names,
        prompt=st.sampled_from(sorted(PROMPTS)),
        client=st.sampled_from(["", "other"]),
        crash=crashes,
    )
    def submit(self, name: str, prompt: str, client: str, crash: float) -> None:
        self.world.submit(name, PROMPTS[prompt], client=client, crash_after=crash)

    @rule(name=names, crash=crashes)
    def cancel(self, name: str, crash: float) -> None:
        self.world.handle(tl.CancelAsked(TaskId(name), "enough"), crash_after=crash)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(full=st.booleans())
    def fill_or_free_the_disk(self, full: bool) -> None:
        self.world.is_disk_full = full

    # --- time and peers ---

    @rule(crash=crashes)
    def wait_until_something_is_due(self, crash: float) -> None:
        if tl.wake_at(self.world.ledger) != inf:
            self.world.pass_time(crash_after=crash)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 5.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(peers=st.sets(st.sampled_from(PEERS)), over=st.sets(st.sampled_from(PEERS)))
    def come_and_go(self, peers: set[PeerId], over: set[PeerId]) -> None:
        self.world.weights((peer for peer in PEERS if peer in peers), passed_over=over)

    @rule(name=names, term=terms, kind=st.sampled_from(NEWS))
    def hear_of_a_coordinator(self, name: str, term: int, kind: str) -> None:
        task = TaskId(name)
        events: dict[str, tl.Event] = {
            "lost": tl.CoordinatorLost(task, term, "lost"),
            "no": tl.CoordinatorDeclined(task, term, "no"),
            "busy": tl.CoordinatorDeclined(task, term, "busy", "busy"),
            "leaving": tl.CoordinatorDeclined(task, term, "leaving", "leaving"),
            "unable": tl.CoordinatorDeclined(task, term, "unable", "unable"),
            "heard": tl.CoordinatorHeard(task, term),
            "settled": tl.SettledHeard(task, term),
        }
        self.world.handle(events[kind])

    # --- coordinators, honest ones of every term, and a network that loses the order ---

    def coordinator(self, number: int) -> Coordinator:
        leaders = list(self.world.coordinators.values())
        return leaders[-1 - number % len(leaders)]

    @precondition(lambda self: self.world.coordinators)
    @rule(number=few, ends=st.booleans())
    def work(self, number: int, ends: bool) -> None:
        leader = self.coordinator(number)
        event = closed(f"by {leader.peer}") if ends else OPENED
        self.network.append((leader.task, leader.write(event)))

    @precondition(lambda self: self.world.coordinators)
    @rule(number=few)
    def forget_and_begin_again_in_the_same_term(self, number: int) -> None:
        """A coordinator that restarts is granted its term again, on what is accepted by then."""
        leader = self.coordinator(number)
        task = self.world.ledger.tasks.get(leader.task)
        if task is not None and task.term == leader.term:
            leader.entries, leader.last = task.entries, task.last_digest

    @precondition(lambda self: self.network)
    @rule(number=few, again=st.booleans(), crash=crashes)
    def deliver(self, number: int, again: bool, crash: float) -> None:
        at = number % len(self.network)
        task, entry = self.network[at]
        if not again:
            del self.network[at]
        self.world.handle(tl.EntryHeard(task, entry), crash_after=crash)

    @precondition(lambda self: self.network)
    @rule(
        number=few,
        change=st.sampled_from(["term", "index", "parent", "body", "nonsense"]),
        value=st.integers(0, 5),
    )
    def deliver_something_else(self, number: int, change: str, value: int) -> None:
        task, entry = self.network[number % len(self.network)]
        other = CancelHeard(reason=f"other {value}")
        changes: dict[str, dict[str, object]] = {
            "term": {"term": 1 + value},
            "index": {"index": value},
            "parent": {"parent": f"{value}" * 64},
            "body": {"body": Coordinator(task, 1, PEERS[0], 0, "0" * 64).write(other).body},  # type: ignore[arg-type]
            "nonsense": {"body": b"\xff" * (1 + value)},
        }
        self.world.handle(tl.EntryHeard(task, entry.model_copy(update=changes[change])))

    # --- laws ---

    @rule()
    def time_makes_progress(self) -> None:
        """The law of wake_at: stepping when it says moves it on, one write a step at most."""
        world = self.world
        if world.is_disk_full or tl.wake_at(world.ledger) == inf:
            return
        world.now = max(world.now, tl.wake_at(world.ledger))
        for _ in range(len(world.ledger.tasks)):
            if tl.wake_at(world.ledger) > world.now:
                break
            world.handle(tl.TimePassed())
        assert tl.wake_at(world.ledger) > world.now

    def teardown(self) -> None:
        self.world.settle_all(within_s=SETTLES_WITHIN_S)


Ledgers.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestLedgers = Ledgers.TestCase
