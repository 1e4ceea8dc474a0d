"""The submitter's book, by examples; histories of it are in `test_task_ledger_histories`."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from kowalski.node.core import task_ledger as tl
from kowalski.protocol.ids import PeerId, TaskId
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


def test_one_that_is_silent_for_a_moment_keeps_its_tasks_and_gets_no_others(
    world: LedgerWorld,
) -> None:
    first = running(world).coordinator
    assert first is not None
    others = {peer: 1.0 for peer in PEERS if peer != first}
    world.handle(tl.WeightsChanged(others, passed_over=frozenset({first})))
    for _ in range(3):
        world.pass_time(1.0)
        assert running(world).term == 1
    world.weights(PEERS)
    world.handle(tl.CoordinatorHeard(A, 1))
    assert running(world).term == 1
    # Its silence lasts too long, and another one gets the task.
    world.handle(tl.WeightsChanged(others, passed_over=frozenset({first})))
    while running(world).term == 1:
        world.pass_time()
    assert running(world).coordinator != first
    assert world.now <= 3.0 + 4.0


def test_one_that_left_when_its_conversation_broke_is_replaced_by_that(world: LedgerWorld) -> None:
    first = running(world).coordinator
    others = {peer: 1.0 for peer in PEERS if peer != first}
    world.ledger = replace(world.ledger, weights=others)
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
    assert (task.term, task.retries) == (16, 15)
    assert task.answer is not None
    assert task.answer.detail.startswith("no_coordinator: 16 coordinators")
    assert "cannot" in task.answer.detail


def test_while_all_are_full_the_last_is_asked_again_in_its_term_less_and_less_often(
    world: LedgerWorld,
) -> None:
    for term in range(1, 5):
        world.handle(tl.CoordinatorDeclined(A, term, "busy", how="busy"))
    waits = []
    for _ in range(8):
        before = world.now
        while kinds(world.effects) != ["GrantTerm"]:
            world.pass_time()
        waits.append(world.now - before)
        world.handle(tl.CoordinatorDeclined(A, 4, "busy", how="busy"))
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    assert running(world).term == 4
    world.pass_time()
    world.handle(tl.CoordinatorHeard(A, 4))
    assert running(world).declined == 0


def test_one_that_is_full_and_leaves_is_replaced_at_once() -> None:
    world = LedgerWorld()
    world.weights(PEERS[:1])
    world.submit("a", spec())
    world.handle(tl.CoordinatorDeclined(A, 1, "busy", how="busy"))
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


# --- turns --------------------------------------------------------------------------------------


def a_world_that_leads(running_max: int, peers: int = 4) -> LedgerWorld:
    made = LedgerWorld(ledger=tl.TaskLedger(tl.Params(running_max=running_max)))
    made.weights(PEERS[:peers])
    return made


def led(world: LedgerWorld) -> set[str]:
    return {name for name, task in world.ledger.tasks.items() if task.state == "running"}


def answer(world: LedgerWorld, name: str) -> None:
    world.handle(tl.EntryHeard(TaskId(name), leader_of(world, name).write(closed())))


def test_beyond_so_many_tasks_at_a_time_the_others_wait_and_say_why() -> None:
    world = a_world_that_leads(2)
    for name in "abc":
        world.submit(name, spec())
    assert led(world) == {"a", "b"}
    assert world.rows[TaskId("c")].state == "waiting", "it is on disk, like every task"
    assert "2 tasks are led" in world.ledger.tasks[TaskId("c")].why_waiting
    world.now += 1.0
    answer(world, "a")
    world.pass_time()
    assert led(world) == {"b", "c"}


def test_a_waiting_task_wants_nothing_until_somebody_has_room() -> None:
    world = a_world_that_leads(1)
    world.submit("a", spec(timeout_s=1000.0))
    world.submit("b", spec(timeout_s=1000.0))
    world.handle(tl.CoordinatorHeard(A, 1))
    assert tl.wake_at(world.ledger) == world.ledger.params.renewal_s


def test_the_next_is_that_of_the_highest_priority_then_of_the_client_who_had_least() -> None:
    world = a_world_that_leads(1)
    world.submit("first", spec(), client="busy")
    world.submit("busy1", spec(), client="busy")
    world.submit("busy2", spec(), client="busy")
    world.submit("other", spec(), client="other")
    world.submit("urgent", spec(priority="interactive"), client="busy")
    order = []
    for _ in range(4):
        (name,) = led(world)
        answer(world, name)
        world.pass_time()
        order += led(world)
    assert order == ["urgent", "other", "busy1", "busy2"]


def test_an_ended_task_is_forgotten_here_after_a_hundred_others(world: LedgerWorld) -> None:
    for number in range(world.ledger.params.ended_kept_max + 5):
        name = f"t{number}"
        world.submit(name, spec())
        answer(world, name)
        world.handle(tl.SettledHeard(TaskId(name), 1))
    assert len(world.ledger.tasks) == world.ledger.params.ended_kept_max + 1
    assert TaskId("t0") not in world.ledger.tasks
    assert A in world.ledger.tasks, "that is open"


def test_one_that_ended_long_ago_is_no_new_task_where_the_others_may_not_be_forgotten() -> None:
    """They have not heard yet that they are over; it has, and would have been the first to go."""
    world = LedgerWorld(ledger=tl.TaskLedger(tl.Params(ended_kept_max=1)))
    world.weights(PEERS)
    for name in ("old", "other", "another"):
        world.submit(name, spec())
        answer(world, name)
        if name == "old":
            world.handle(tl.SettledHeard(TaskId(name), 1))
    assert TaskId("old") not in world.ledger.tasks
    world.submit("old", spec())
    assert world.ledger.tasks[TaskId("old")].state == "answered"


# --- retries ------------------------------------------------------------------------------------


def fail(world: LedgerWorld, how: tl.Decline = "failed", why: str = "it broke") -> tl.Task:
    task = world.ledger.tasks[A]
    world.handle(tl.CoordinatorDeclined(A, task.term, why, how))
    return world.ledger.tasks[A]


def a_world_with(**policy: object) -> LedgerWorld:
    world = LedgerWorld()
    world.weights(PEERS)
    world.submit("a", spec(timeout_s=10_000.0, **policy))
    return world


def test_a_task_that_may_not_fail_over_fails_with_its_coordinator() -> None:
    task = fail(a_world_with(failover="fail"))
    assert task.answer is not None
    assert (task.state, task.answer.detail) == ("failed", "device_failed: it broke")


def test_a_task_that_may_not_fail_over_fails_soon_where_nobody_leads() -> None:
    world = LedgerWorld()
    world.submit("a", spec(failover="fail", timeout_s=1000.0))
    world.pass_time()
    task = world.ledger.tasks[A]
    assert (world.now, task.state) == (world.ledger.params.nobody_s, "failed")
    assert task.answer is not None
    assert task.answer.detail == "no_coordinator: no peer offers to coordinate"


def test_a_task_that_may_not_fail_over_is_led_by_whoever_comes_in_time() -> None:
    world = LedgerWorld()
    world.submit("a", spec(failover="fail", timeout_s=1000.0))
    world.now += 2.0
    world.weights(PEERS)
    world.pass_time()
    assert running(world).term == 1
    while world.now < 30.0:
        world.handle(tl.CoordinatorHeard(A, 1))
        world.pass_time()
    assert running(world).term == 1, "the moment has passed"


def test_as_many_coordinators_are_tried_as_the_policy_says() -> None:
    world = a_world_with(retry={"retries_max": 2})
    for _ in range(2):
        assert fail(world).state == "running"
    task = fail(world)
    assert task.answer is not None
    assert task.answer.detail.startswith("no_coordinator: 3 coordinators could not finish it")
    assert task.term == 3


def test_between_two_there_are_the_pauses_of_the_policy() -> None:
    world = a_world_with(retry={"delay_s": 3.0})
    pauses = []
    for _ in range(3):
        began = world.now
        fail(world)
        while world.ledger.tasks[A].state == "waiting":
            world.pass_time()
        pauses.append(world.now - began)
    assert pauses == [3.0, 6.0, 12.0]


def test_a_pause_is_not_cut_short_because_somebody_comes() -> None:
    world = a_world_with(retry={"delay_s": 3.0})
    fail(world)
    world.weights(PEERS[:2])
    world.weights(PEERS)
    world.pass_time()
    assert world.now == 3.0


def test_a_task_that_queues_is_tried_as_often_as_it_takes() -> None:
    world = a_world_with(failover="queue", retry={"retries_max": 1})
    for _ in range(40):
        fail(world)
        while world.ledger.tasks[A].state == "waiting":
            world.pass_time()
    assert running(world).term == 41


def test_a_task_for_which_nobody_is_able_waits_in_the_ledger_and_frees_its_place() -> None:
    world = a_world_that_leads(1)
    world.submit("a", spec(failover="queue"))
    world.submit("b", spec())
    task = fail(world, "unable", "no peer has model m")
    assert (task.state, task.why_waiting, task.retries) == ("waiting", "no peer has model m", 0)
    world.pass_time()
    assert led(world) == {"b"}
    answer(world, "b")
    began = world.now
    while not led(world):
        world.pass_time()
    assert world.now - began == world.ledger.params.unable_s
    assert running(world).term == 2


def test_it_is_tried_at_once_when_somebody_comes() -> None:
    world = a_world_that_leads(1, peers=2)
    world.submit("a", spec(failover="queue"))
    fail(world, "unable", "no peer has model m")
    world.weights(PEERS)
    world.pass_time()
    assert (world.now, led(world)) == (0.0, {"a"})


def test_a_coordinator_that_leaves_hands_over_and_nobody_has_failed(world: LedgerWorld) -> None:
    first = running(world).coordinator
    effects = world.handle(tl.CoordinatorDeclined(A, 1, "draining", "leaving"))
    assert kinds(effects) == ["Revoke", "Save", "GrantTerm", "Show"]
    task = running(world)
    assert (task.term, task.retries) == (2, 0)
    assert task.coordinator != first


def test_who_is_about_to_leave_goes_on_with_what_it_leads_and_gets_nothing_new(
    world: LedgerWorld,
) -> None:
    first = running(world).coordinator
    assert first is not None
    world.weights(PEERS, passed_over=[first])
    world.pass_time(seconds=0.5)
    assert running(world).coordinator == first
    for number in range(20):
        world.submit(f"other-{number}", spec())
        assert running(world, f"other-{number}").coordinator != first


def test_where_all_are_about_to_leave_a_task_waits_until_one_of_them_stays() -> None:
    world = LedgerWorld()
    world.weights(PEERS[:2], passed_over=PEERS[:2])
    world.submit("a", spec(timeout_s=600))
    for _ in range(5):
        world.pass_time(seconds=1.0)
    task = world.ledger.tasks[A]
    assert (task.state, task.term) == ("waiting", 0)
    assert "no peer offers to coordinate" in task.why_waiting
    world.weights(PEERS[:2], passed_over=PEERS[:1])
    world.pass_time(seconds=1.0)
    assert (running(world).coordinator, running(world).term) == (PEERS[1], 1)


# --- copies -------------------------------------------------------------------------------------


def test_the_next_coordinator_hears_who_may_hold_more_of_the_journal(world: LedgerWorld) -> None:
    granted = [effect for effect in world.effects if isinstance(effect, tl.GrantTerm)]
    assert granted[0].holders == ()
    first, standbys = granted[0].task.coordinator, granted[0].standbys
    world.handle(tl.CoordinatorDeclined(A, 1, "no"))
    again = [effect for effect in world.effects if isinstance(effect, tl.GrantTerm)]
    assert again[0].holders == (first, *standbys)
    assert again[0].task.coordinator == standbys[0], "it stood by"
    world.restart()
    world.pass_time()
    restarted = [effect for effect in world.effects if isinstance(effect, tl.GrantTerm)]
    assert set(restarted[0].holders) >= {first, *standbys}, "and that is on disk"


def test_standbys_are_on_other_devices_where_there_are_enough() -> None:
    world = LedgerWorld()
    hosts = dict.fromkeys(PEERS[:2], "box") | {PEERS[2]: "laptop"}
    world.handle(tl.WeightsChanged(dict.fromkeys(PEERS, 1.0), hosts))
    for number in range(20):
        world.submit(f"t{number}", spec())
        (grant,) = [effect for effect in world.effects if isinstance(effect, tl.GrantTerm)]
        names = [grant.task.coordinator, *grant.standbys]
        devices = [hosts.get(PeerId(str(peer)), str(peer)) for peer in names]
        assert len(set(devices)) == 3


def test_where_all_are_on_one_device_it_has_standbys_all_the_same() -> None:
    world = LedgerWorld()
    world.handle(tl.WeightsChanged(dict.fromkeys(PEERS, 1.0), dict.fromkeys(PEERS, "box")))
    world.submit("a", spec())
    (grant,) = [effect for effect in world.effects if isinstance(effect, tl.GrantTerm)]
    assert len(grant.standbys) == 2


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
    assert A not in world.ledger.tasks, "the disk has it"
    world.submit("a", spec())
    assert world.effects == []
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
