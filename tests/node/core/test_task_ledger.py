"""The submitter's book, by examples; histories of it are in `test_task_ledger_histories`."""

from __future__ import annotations

from math import inf

import pytest

from kowalski.node.core import task_ledger as tl
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import CancelHeard
from kowalski.protocol.messages.task import Entry
from tests.node.core.ledger_world import (
    OPENED,
    PEERS,
    LedgerWorld,
    closed,
    leader_of,
    running,
    spec,
    with_term,
)

A = TaskId("a")


@pytest.fixture
def world() -> LedgerWorld:
    """Four peers, and task `a` led by one of them in term 1."""
    made = LedgerWorld()
    made.weights(PEERS)
    made.submit("a", spec())
    return made


def kinds(effects: list[tl.Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


# --- submitting ---------------------------------------------------------------------------------


def test_a_submitted_task_is_saved_with_its_term_before_the_term_is_granted(
    world: LedgerWorld,
) -> None:
    assert kinds(world.effects) == ["Save", "GrantTerm", "Show"]
    saved, granted = world.effects[0], world.effects[1]
    assert isinstance(saved, tl.Save)
    assert isinstance(granted, tl.GrantTerm)
    assert (saved.task.term, granted.task.term) == (1, 1)
    assert len(granted.standbys) == 2
    assert granted.task.coordinator not in granted.standbys


def test_without_peers_a_task_is_saved_waits_and_begins_when_one_comes() -> None:
    world = LedgerWorld()
    world.submit("a", spec())
    assert kinds(world.effects) == ["Save", "Show"]
    assert world.ledger.tasks[A].state == "waiting"
    world.weights(PEERS[:1])
    world.pass_time()
    assert running(world).coordinator == PEERS[0]


def test_the_same_submit_again_does_nothing_and_another_of_that_name_is_refused(
    world: LedgerWorld,
) -> None:
    world.submit("a", spec())
    assert world.effects == []
    assert tl.why_refused(world.ledger, A, spec()) is None
    refusal = tl.why_refused(world.ledger, A, spec("something else"))
    assert refusal is not None
    assert refusal[0] == "conflict"


def test_more_open_tasks_than_the_limit_are_refused_busy_until_one_ends() -> None:
    world = LedgerWorld(ledger=tl.TaskLedger(tl.Params(tasks_open_max=1)))
    world.weights(PEERS)
    world.submit("a", spec())
    refusal = tl.why_refused(world.ledger, TaskId("b"), spec())
    assert refusal is not None
    assert refusal[0] == "busy"
    world.handle(tl.EntryHeard(A, leader_of(world).write(closed())))
    assert tl.why_refused(world.ledger, TaskId("b"), spec()) is None


def test_a_submit_that_could_not_be_stored_has_never_been() -> None:
    world = LedgerWorld(is_disk_full=True)
    world.weights(PEERS)
    world.submit("a", spec())
    assert world.ledger.tasks == {}
    assert world.rows == {}
    assert world.granted == {}


# --- entries ------------------------------------------------------------------------------------


def test_an_entry_that_fits_is_stored_then_accepted_then_shown(world: LedgerWorld) -> None:
    effects = world.handle(tl.EntryHeard(A, leader_of(world).write(OPENED)))
    assert kinds(effects) == ["Append", "Accept", "Show"]


def test_the_last_entry_ends_the_task_and_settles_with_its_coordinator(world: LedgerWorld) -> None:
    effects = world.handle(tl.EntryHeard(A, leader_of(world).write(closed("42"))))
    assert kinds(effects) == ["Append", "Accept", "Show", "SettleTask"]
    task = world.ledger.tasks[A]
    assert task.state == "answered"
    assert task.answer is not None
    assert task.answer.answer == "42"


def test_an_entry_that_is_here_already_is_accepted_again_and_not_shown_again(
    world: LedgerWorld,
) -> None:
    entry = leader_of(world).write(OPENED)
    world.handle(tl.EntryHeard(A, entry))
    assert kinds(world.handle(tl.EntryHeard(A, entry))) == ["Accept"]


def wrong_entries(world: LedgerWorld) -> dict[str, Entry]:
    leader = leader_of(world)
    first = leader.write(OPENED)
    world.handle(tl.EntryHeard(A, first))
    good = leader.write(CancelHeard(reason="x"))
    other = good.model_copy(update={"parent": "f" * 64})
    return {
        "a lower term": with_term(good, 0 + 1).model_copy(update={"term": good.term + 1}),
        "an index that skips one": good.model_copy(update={"index": 2}),
        "another parent": other,
        "another entry in the place of one that is here": first.model_copy(
            update={"body": good.body}
        ),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        "a lower term",
        "an index that skips one",
        "another parent",
        "another entry in the place of one that is here",
    ],
)
def test_an_entry_is_dropped_and_counted_if_it_has(world: LedgerWorld, wrong: str) -> None:
    entry = wrong_entries(world)[wrong]
    assert world.handle(tl.EntryHeard(A, entry)) == []
    assert world.ledger.fenced == 1
    assert world.ledger.tasks[A].entries == 1


def test_the_entries_of_a_deposed_coordinator_are_dropped(world: LedgerWorld) -> None:
    old = leader_of(world)
    world.handle(tl.CoordinatorDeclined(A, 1, "no"))
    assert world.handle(tl.EntryHeard(A, old.write(OPENED))) == []
    assert world.ledger.fenced == 1


def test_a_deposed_coordinator_is_not_acknowledged_even_for_what_it_wrote_in_time(
    world: LedgerWorld,
) -> None:
    entry = leader_of(world).write(OPENED)
    world.handle(tl.EntryHeard(A, entry))
    world.handle(tl.CoordinatorDeclined(A, 1, "no"))
    assert world.handle(tl.EntryHeard(A, entry)) == []


def test_nothing_is_taken_after_the_end_but_the_end_is_acknowledged_again(
    world: LedgerWorld,
) -> None:
    leader = leader_of(world)
    last = leader.write(closed())
    world.handle(tl.EntryHeard(A, last))
    assert kinds(world.handle(tl.EntryHeard(A, last))) == ["Accept"]
    assert world.handle(tl.EntryHeard(A, leader.write(closed("more")))) == []


def test_a_coordinator_that_sends_nonsense_is_replaced(world: LedgerWorld) -> None:
    nonsense = leader_of(world).write(OPENED).model_copy(update={"body": b"\xff"})
    effects = world.handle(tl.EntryHeard(A, nonsense))
    assert kinds(effects) == ["Revoke", "Save", "GrantTerm", "Show"]
    assert running(world).term == 2


def test_an_entry_that_could_not_be_stored_was_never_heard(world: LedgerWorld) -> None:
    entry = leader_of(world).write(OPENED)
    world.is_disk_full = True
    world.handle(tl.EntryHeard(A, entry))
    assert world.accepted == set()
    world.is_disk_full = False
    world.handle(tl.EntryHeard(A, entry))
    assert world.accepted == {(A, 0)}


# --- losing a coordinator -----------------------------------------------------------------------


def test_a_broken_conversation_is_opened_again_in_the_same_term(world: LedgerWorld) -> None:
    first = running(world)
    world.handle(tl.CoordinatorLost(A, 1, "reset"))
    world.pass_time()
    assert kinds(world.effects) == ["GrantTerm"]
    again = running(world)
    assert (again.term, again.coordinator) == (1, first.coordinator)


def test_one_that_stays_away_for_longer_than_the_lease_is_replaced(world: LedgerWorld) -> None:
    first, began = running(world), world.now
    while running(world).term == 1:
        world.handle(tl.CoordinatorLost(A, 1, "no route"))
        world.pass_time()
    assert world.now - began == world.ledger.params.silence_s > world.ledger.params.lease_s
    assert running(world).coordinator != first.coordinator
    assert "silent for 4.0 s" in running(world).why_waiting


def test_one_that_is_heard_keeps_its_term_and_is_renewed_every_second(world: LedgerWorld) -> None:
    renewals = 0
    while world.now < 30:
        world.pass_time()
        renewals += kinds(world.effects).count("Renew")
        world.handle(tl.CoordinatorHeard(A, 1))
    assert running(world).term == 1
    assert renewals == 30


def test_one_that_left_the_mesh_is_replaced_at_once(world: LedgerWorld) -> None:
    first = running(world).coordinator
    world.weights(peer for peer in PEERS if peer != first)
    world.pass_time()
    assert world.now == 0.0
    assert running(world).term == 2
    assert kinds(world.effects) == ["Revoke", "Save", "GrantTerm", "Show"]


def test_one_that_left_when_its_conversation_broke_is_replaced_by_that(world: LedgerWorld) -> None:
    first = running(world).coordinator
    world.ledger = tl.TaskLedger(
        world.ledger.params,
        {peer: 1.0 for peer in PEERS if peer != first},
        world.ledger.tasks,
    )
    world.handle(tl.CoordinatorLost(A, 1, "gone"))
    assert running(world).term == 2


def test_nobody_leads_again_before_everybody_else_has_failed_and_then_not_in_a_hurry(
    world: LedgerWorld,
) -> None:
    failed = []
    for term in range(1, 5):
        failed.append(running(world).coordinator)
        world.handle(tl.CoordinatorDeclined(A, term, "cannot"))
    assert sorted(str(peer) for peer in failed) == sorted(PEERS)
    assert world.ledger.tasks[A].state == "waiting"
    assert world.ledger.tasks[A].why_waiting == "cannot"
    world.pass_time()
    assert world.now == world.ledger.params.retry_s
    assert running(world).term == 5


def test_a_task_that_no_coordinator_can_finish_fails_after_its_terms(world: LedgerWorld) -> None:
    while not world.ledger.tasks[A].is_over:
        world.handle(tl.CoordinatorDeclined(A, world.ledger.tasks[A].term, "cannot"))
        world.pass_time()
    task = world.ledger.tasks[A]
    assert task.state == "failed"
    assert task.term == world.ledger.params.terms_max
    assert task.answer is not None
    assert task.answer.detail.startswith("no_coordinator: 16 coordinators")
    assert "cannot" in task.answer.detail


def test_while_all_are_full_the_last_is_asked_again_in_its_term_less_and_less_often(
    world: LedgerWorld,
) -> None:
    for term in range(1, 5):
        world.handle(tl.CoordinatorDeclined(A, term, "busy", is_busy=True))
    waits = []
    for _ in range(8):
        before = world.now
        while kinds(world.effects) != ["GrantTerm"]:
            world.pass_time()
        waits.append(world.now - before)
        world.handle(tl.CoordinatorDeclined(A, 4, "busy", is_busy=True))
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    assert running(world).term == 4
    world.pass_time()
    world.handle(tl.CoordinatorHeard(A, 4))
    assert running(world).declined == 0


def test_one_that_is_full_and_leaves_is_replaced_at_once() -> None:
    world = LedgerWorld()
    world.weights(PEERS[:1])
    world.submit("a", spec())
    world.handle(tl.CoordinatorDeclined(A, 1, "busy", is_busy=True))
    world.weights(PEERS[1:])
    world.pass_time()
    assert (world.now, running(world).term) == (0.0, 2)


@pytest.mark.parametrize("event", [tl.CoordinatorLost, tl.CoordinatorDeclined])
def test_late_news_of_an_earlier_term_change_nothing(
    world: LedgerWorld, event: type[tl.CoordinatorLost | tl.CoordinatorDeclined]
) -> None:
    world.handle(tl.CoordinatorDeclined(A, 1, "no"))
    before = world.ledger
    assert world.handle(event(A, 1, "late")) == []
    assert world.ledger == before
    world.handle(tl.CoordinatorHeard(A, 1))
    assert world.ledger == before
    world.handle(tl.SettledHeard(A, 1))
    assert world.ledger == before


def test_news_of_a_task_that_nobody_knows_change_nothing(world: LedgerWorld) -> None:
    assert world.handle(tl.CancelAsked(TaskId("other"), "x")) == []


# --- ends ---------------------------------------------------------------------------------------


def test_cancel_is_saved_and_passed_on_and_the_coordinator_says_the_last_word(
    world: LedgerWorld,
) -> None:
    effects = world.handle(tl.CancelAsked(A, "enough"))
    assert kinds(effects) == ["Save", "PassCancel"]
    assert world.handle(tl.CancelAsked(A, "again")) == []
    world.handle(tl.EntryHeard(A, leader_of(world).write(closed("half", "cancelled"))))
    assert world.ledger.tasks[A].state == "cancelled"


def test_a_cancelled_task_ends_here_if_its_coordinator_does_not_say_so_in_time(
    world: LedgerWorld,
) -> None:
    world.handle(tl.CancelAsked(A, "enough"))
    while not world.ledger.tasks[A].is_over:
        world.handle(tl.CoordinatorHeard(A, 1))
        world.pass_time()
    assert world.now == world.ledger.params.overtime_s
    task = world.ledger.tasks[A]
    assert task.answer is not None
    assert (task.state, task.answer.detail) == ("cancelled", "enough")


def test_a_cancelled_task_gets_no_further_coordinator(world: LedgerWorld) -> None:
    world.handle(tl.CancelAsked(A, "enough"))
    world.handle(tl.CoordinatorDeclined(A, 1, "no"))
    assert world.ledger.tasks[A].state == "cancelled"
    assert len(world.granted) == 1


def test_a_conversation_that_is_opened_again_hears_of_the_cancel_again(world: LedgerWorld) -> None:
    world.handle(tl.CancelAsked(A, "enough"))
    world.handle(tl.CoordinatorLost(A, 1, "reset"))
    world.pass_time()
    assert kinds(world.effects) == ["GrantTerm", "PassCancel"]


def test_a_waiting_task_is_cancelled_here(world: LedgerWorld) -> None:
    world.weights(())
    world.pass_time()
    assert world.ledger.tasks[A].state == "waiting"
    world.handle(tl.CancelAsked(A, "enough"))
    assert world.ledger.tasks[A].state == "cancelled"


@pytest.mark.parametrize("has_peers", [True, False])
def test_a_task_that_is_never_answered_fails_after_its_time_and_overtime(has_peers: bool) -> None:
    world = LedgerWorld()
    world.weights(PEERS if has_peers else ())
    world.submit("a", spec(timeout_s=20.0))
    while not world.ledger.tasks[A].is_over:
        if has_peers:
            world.handle(tl.CoordinatorHeard(A, world.ledger.tasks[A].term))
        world.pass_time()
    task = world.ledger.tasks[A]
    assert world.now == 20.0 + world.ledger.params.overtime_s
    assert task.answer is not None
    assert (task.state, task.answer.detail) == ("failed", "timeout: no end within 20 s")


def test_an_ended_task_is_settled_when_heard_or_given_up_soon(world: LedgerWorld) -> None:
    world.handle(tl.EntryHeard(A, leader_of(world).write(closed())))
    assert tl.wake_at(world.ledger) == world.ledger.params.renewal_s
    world.pass_time()
    assert kinds(world.effects) == ["Revoke"]
    assert tl.wake_at(world.ledger) == inf
    assert world.ledger.tasks[A].is_settled


@pytest.mark.parametrize("event", [tl.SettledHeard(A, 1), tl.CoordinatorLost(A, 1, "reset")])
def test_an_ended_task_is_left_alone(world: LedgerWorld, event: tl.Event) -> None:
    world.handle(tl.EntryHeard(A, leader_of(world).write(closed())))
    assert world.handle(event) == []
    assert world.ledger.tasks[A].is_settled
    assert world.handle(tl.CoordinatorDeclined(A, 1, "late")) == []
    assert world.handle(tl.CancelAsked(A, "late")) == []


# --- restarts and the disk ----------------------------------------------------------------------


def test_after_a_restart_a_higher_term_continues_from_what_was_stored(world: LedgerWorld) -> None:
    world.handle(tl.EntryHeard(A, leader_of(world).write(OPENED)))
    world.restart()
    world.pass_time()
    task = running(world)
    assert (task.term, task.entries) == (2, 1)
    assert task.why_waiting == "restarted"


def test_after_a_restart_an_ended_task_stays_as_it_was(world: LedgerWorld) -> None:
    world.handle(tl.EntryHeard(A, leader_of(world).write(closed("42"))))
    world.restart()
    assert world.ledger.tasks[A].state == "answered"
    assert tl.wake_at(world.ledger) == inf


def test_after_a_restart_a_task_whose_cancel_was_stored_is_cancelled(world: LedgerWorld) -> None:
    world.handle(tl.CancelAsked(A, "enough"))
    world.restart()
    world.pass_time()
    assert world.ledger.tasks[A].state == "cancelled"


def test_many_tasks_that_lose_their_coordinator_get_new_ones_one_write_a_step() -> None:
    world = LedgerWorld()
    world.weights(PEERS[:1])
    for number in range(20):
        world.submit(f"t{number}", spec())
    world.weights(PEERS[1:])
    steps = 0
    while tl.wake_at(world.ledger) <= world.now:
        world.pass_time()
        assert kinds(world.effects).count("Save") == 1
        steps += 1
    assert steps == 20
    assert {task.term for task in world.ledger.tasks.values()} == {2}


def test_while_the_disk_is_full_the_tasks_that_are_well_are_renewed(world: LedgerWorld) -> None:
    world.submit("b", spec())
    leader_of_b = running(world, "b").coordinator
    world.is_disk_full = True
    world.handle(tl.CancelAsked(TaskId("b"), "x"))  # not stored: not asked
    first = running(world).coordinator
    renewed = 0
    for _ in range(12):
        if leader_of_b != first:
            world.weights(peer for peer in PEERS if peer != first)
        world.pass_time()
        renewed += sum(
            isinstance(effect, tl.Renew) and effect.task == "b" for effect in world.effects
        )
        world.now += 0.5
        world.handle(tl.CoordinatorHeard(TaskId("b"), 1))
    assert leader_of_b != first, "the names were chosen so"
    assert renewed >= 5
    assert running(world, "b").term == 1
    assert world.rows[A].term == 1
