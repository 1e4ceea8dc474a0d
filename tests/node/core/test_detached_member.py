"""A member of a detached task's group, by examples; histories are in `test_detached_histories`."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from kowalski.node.core import detached_member as machine
from kowalski.node.core import detached_state as ds
from kowalski.node.core.invariants import InvariantError
from kowalski.protocol.messages.journal import Closed
from kowalski.protocol.messages.task import Entry, RetryPolicy
from kowalski.rlm.journal import digest, event_of
from tests.node.core.detached_world import GROUP, TASK, GroupWorld
from tests.node.core.ledger_world import OPENED, Coordinator, closed

A, B, C = GROUP


def journal(*terms: int) -> tuple[list[Entry], tuple[str, ...]]:
    """Entries of these terms, one after the other, and their digests."""
    leading = Coordinator(TASK, 1, A, 0, "0" * 64)  # type: ignore[arg-type]
    entries: list[Entry] = []
    for term in terms:
        leading.term = term
        entries.append(leading.write(OPENED))
    return entries, tuple(digest(TASK, one) for one in entries)


def a_member(*terms: int, confirmed: int, term: int | None = None) -> ds.Member:
    _, marks = journal(*terms)
    return ds.Member(
        A,
        GROUP,
        term=confirmed if term is None else term,
        confirmed=confirmed,
        marks=marks,  # type: ignore[arg-type]
        reachable=frozenset(GROUP),
        act_at=10.0,
    )


def offer(*terms: int, term: int, base: int, start: int, committed: int = 0) -> ds.LogOffered:
    entries, marks = journal(*terms)
    parent = marks[start - 1] if start else "0" * 64
    return ds.LogOffered(
        B,
        term,
        base,
        start,
        parent,  # type: ignore[arg-type]
        tuple(entries[start:]),
        marks[start:],  # type: ignore[arg-type]
        committed,
    )


def kinds(effects: tuple[ds.Effect, ...]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def test_the_first_of_the_group_is_elected_at_once_and_the_task_ends_on_all() -> None:
    world = GroupWorld()
    world.settle(works=lambda _: None, seconds=2.0)
    assert world.granted == {1: A}
    world.write(A)
    world.write(A, ends=True)
    world.settle(works=lambda _: None, seconds=5.0)
    assert all(member.is_over for member in world.members.values())
    assert world.visible == dict.fromkeys(GROUP, 2)
    assert {machine.wake_at(one) for one in world.members.values()} == {inf}, "nothing is due"


def test_an_entry_counts_once_a_second_member_holds_it() -> None:
    world = GroupWorld()
    world.settle(works=lambda _: None, seconds=2.0)
    world.kill(B)
    world.kill(C)
    world.write(A)
    assert (world.members[A].entries, world.members[A].committed) == (1, 0)
    world.start(B)
    world.settle(works=lambda _: None, seconds=2.0)
    assert world.members[A].committed == 1


def test_what_a_leader_began_with_counts_only_once_another_holds_all_of_it() -> None:
    """Else a log of an earlier term could win over it afterwards (Raft, figure 8)."""
    leader = replace(
        a_member(1, 1, 1, confirmed=3),
        role="leader",
        leader=A,
        voted_for=A,
        base=3,
        act_at=1.0,
    )
    after, effects = machine.step(leader, ds.HeldHeard(B, 3, 2, 0), 0.0)
    assert after.committed == 0
    assert kinds(effects) == ["Offer", "Offer"]
    after, effects = machine.step(after, ds.HeldHeard(B, 3, 3, 0), 0.0)
    assert after.committed == 3


def test_what_no_leader_has_confirmed_goes_when_a_new_one_has_sent_all_of_its_own() -> None:
    """Kept, it would make our log look longer than it is in the next vote."""
    member = a_member(1, 1, 1, 1, confirmed=1)
    after, effects = machine.step(member, offer(1, 1, term=2, base=2, start=2), 0.0)
    assert (after.confirmed, after.entries) == (2, 2)
    assert kinds(effects) == ["Write", "Answer"]


def test_a_straggler_of_the_same_term_takes_nothing_away() -> None:
    member = a_member(1, 2, 2, confirmed=2)
    after, effects = machine.step(member, offer(1, 2, term=2, base=1, start=1), 0.0)
    assert after.entries == 3
    assert kinds(effects) == ["Answer"]


def test_a_vote_goes_to_no_log_that_lacks_what_ours_has() -> None:
    member = a_member(1, 1, confirmed=2)
    shorter = ds.VoteWanted(B, 3, 2, 1, is_trial=False)
    older = ds.VoteWanted(B, 3, 1, 9, is_trial=False)
    for wanted in (shorter, older):
        _, effects = machine.step(member, wanted, 0.0)
        assert effects[-1] == ds.Answer(ds.Granted(3, is_granted=False))
    _, effects = machine.step(member, ds.VoteWanted(B, 3, 2, 2, is_trial=False), 0.0)
    assert kinds(effects) == ["Note", "Answer"], "on disk before it is said"
    assert effects[-1] == ds.Answer(ds.Granted(3, is_granted=True))


def test_a_leader_that_is_well_is_not_voted_out() -> None:
    member = replace(a_member(1, confirmed=1), leader=B, heard_at=0.0)
    after, effects = machine.step(member, ds.VoteWanted(C, 7, 9, 9, is_trial=False), 1.0)
    assert (after.term, kinds(effects)) == (1, ["Answer"])
    after, _ = machine.step(member, ds.VoteWanted(C, 7, 9, 9, is_trial=False), 4.5)
    assert after.term == 7


def test_two_leaders_of_a_term_are_a_defect_that_is_named() -> None:
    leader = replace(a_member(1, confirmed=2), role="leader", leader=A, voted_for=A)
    with pytest.raises(InvariantError, match="one_coordinator_per_term"):
        machine.step(leader, offer(1, term=2, base=1, start=1), 0.0)


def test_what_counts_is_never_cut_away() -> None:
    member = replace(a_member(1, 1, confirmed=1), committed=2)
    with pytest.raises(InvariantError, match="detached_majority"):
        machine.step(member, offer(1, 2, term=2, base=2, start=1), 0.0)


def test_a_leader_without_a_majority_steps_down_in_time() -> None:
    world = GroupWorld()
    world.settle(works=lambda _: None, seconds=2.0)
    world.cut = {frozenset((A, B)), frozenset((A, C))}
    world.settle(works=lambda _: None, seconds=20.0)
    assert A not in world.coordinators
    assert world.members[A].term == 1, "a trial is no term"
    assert len([one for term, one in world.granted.items() if term > 1 and one != A]) == 1


def test_who_has_not_heard_of_the_end_is_told() -> None:
    world = GroupWorld()
    world.settle(works=lambda _: None, seconds=2.0)
    world.kill(C)
    leading = world.coordinators[A]
    world.handle(A, ds.Written(entry := leading.write(closed()), digest(TASK, entry), ends=True))
    world.settle(works=lambda _: None, seconds=5.0)
    world.start(C)
    world.settle(works=lambda _: None, seconds=60.0)
    assert world.members[C].is_over
    assert len(world.granted) == 1, "nobody leads what is over"


def test_a_leader_whose_coordinators_write_nothing_has_another_one_lead() -> None:
    params = ds.Params()
    leader = replace(a_member(1, confirmed=1), role="leader", act_at=inf)
    pauses: list[float] = []
    for _ in range(params.losses_max - 1):
        leader, effects = machine.step(leader, ds.CoordinatorLost(1, is_declined=False), 100.0)
        assert kinds(effects) == ["Note"]
        pauses.append(leader.lead_at - 100.0)
    assert pauses == [params.again_s * 2**n for n in range(params.losses_max - 1)]
    rested, effects = machine.step(leader, ds.CoordinatorLost(1, is_declined=False), 100.0)
    assert (rested.role, kinds(effects)) == ("follower", ["Note", "Retire", "Offer", "Offer"])


def test_a_coordinator_that_wrote_something_is_followed_by_another_at_once() -> None:
    leader = replace(a_member(1, 1, confirmed=1), role="leader", losses=3, lost_at=1)
    leader, _ = machine.step(leader, ds.CoordinatorLost(1, is_declined=False), 100.0)
    assert leader.lead_at == 100.0 + ds.Params().again_s


# --- how often it is begun again, over all leaders ----------------------------------------------


def end_of(world: GroupWorld) -> Closed:
    """How the task ended, for all three."""
    for one in GROUP:
        if one not in world.members:
            world.start(one)
    world.settle(works=lambda _: None, seconds=60.0)
    assert all(member.is_over for member in world.members.values())
    event = event_of(world.disks[A].entries[-1])
    assert isinstance(event, Closed)
    return event


def lose_leader(world: GroupWorld) -> None:
    """Kill whoever leads, and have the two others elect one of them."""
    for one in GROUP:
        if one not in world.members:
            world.start(one)
    world.settle(works=lambda _: None, seconds=5.0)
    (leader,) = (one for one, member in world.members.items() if member.role == "leader")
    world.kill(leader)
    for one, member in list(world.members.items()):
        world.handle(one, ds.Reachable(member.reachable - {leader}))
    world.settle(works=lambda _: None, seconds=10.0)


def a_world(**policy: object) -> GroupWorld:
    world = GroupWorld(policy=policy)
    world.settle(works=lambda _: None, seconds=2.0)
    world.write(A)
    return world


def test_a_task_that_may_not_fail_over_fails_with_its_leader() -> None:
    world = a_world(failover="fail")
    lose_leader(world)
    assert len(world.granted) == 1, "nobody leads it any more"
    closed_ = end_of(world)
    assert (closed_.outcome, closed_.detail) == ("failed", "device_failed: its leader was lost")


def test_a_leader_is_begun_again_as_often_as_the_policy_says_whoever_leads() -> None:
    world = a_world(retry=RetryPolicy(retries_max=2))
    for number in (1, 2):
        lose_leader(world)
        assert {one.retries for one in world.members.values()} == {number}, "on both, and on disk"
    assert len(world.granted) == 3
    lose_leader(world)
    closed_ = end_of(world)
    assert closed_.outcome == "failed"
    assert closed_.detail.startswith("no_coordinator: 3 coordinators could not finish it")
    assert len(world.granted) == 3


def test_a_queued_task_is_begun_again_for_ever() -> None:
    world = a_world(failover="queue", retry=RetryPolicy(retries_max=0))
    for _ in range(4):
        lose_leader(world)
    assert len(world.granted) == 5
    assert not any(member.is_over for member in world.members.values())


def test_a_leader_that_leaves_loses_nothing_and_is_followed_soon() -> None:
    world = a_world(failover="fail")
    world.handle(A, ds.Yielded())
    began = world.now
    world.settle(works=lambda _: None, seconds=2.0)
    assert len(world.granted) == 2, "long before its silence would have told"
    assert world.now - began <= 2.1
    assert world.granted[max(world.granted)] != A
    assert {one.retries for one in world.members.values()} == {0}
    assert not any(member.is_over for member in world.members.values())


def test_where_leaders_leave_one_after_the_other_the_group_takes_its_time() -> None:
    world = a_world()
    terms: list[int] = []
    for _ in range(20):
        for one, member in list(world.members.items()):
            if member.role == "leader":
                world.handle(one, ds.CoordinatorLost(member.term, is_declined=True))
        world.settle(works=lambda _: None, seconds=1.0)
        terms.append(max(member.term for member in world.members.values()))
    assert terms[-1] <= 8, "twenty seconds are not twenty elections"


def test_the_pause_before_the_next_coordinator_is_the_policys_and_doubles() -> None:
    policy = RetryPolicy(retries_max=9, delay_s=30.0, is_exponential=True)
    leader = replace(a_member(1, confirmed=1), role="leader", act_at=inf, retry=policy)
    for pause_s in (30.0, 60.0, 120.0):
        leader, _ = machine.step(leader, ds.CoordinatorLost(1, why="lost"), 100.0)
        assert leader.lead_at == 100.0 + pause_s
    now, effects = machine.step(leader, ds.ResumeWanted(), 101.0)
    assert (now.lead_at, effects) == (101.0, ()), "its owner does not want to wait"
    _, effects = machine.step(now, ds.TimePassed(), 101.0)
    assert kinds(effects) == ["Lead"]


def test_a_cancel_goes_to_the_coordinator_and_where_there_is_none_ends_it() -> None:
    world = a_world(retry=RetryPolicy(delay_s=500.0))
    world.handle(A, ds.CancelWanted("enough"))
    assert world.cancels == ["enough"]
    world.handle(B, ds.CancelWanted("from one that does not lead"))
    world.coordinators.clear()
    world.handle(A, ds.CoordinatorLost(1, why="lost"))
    world.settle(works=lambda _: None, seconds=5.0)
    assert not world.coordinators, "it waits out its pause"
    world.handle(A, ds.CancelWanted("enough"))
    closed_ = end_of(world)
    assert (closed_.outcome, closed_.detail) == ("cancelled", "enough")
    assert world.cancels == ["enough"]


def test_an_end_that_the_disk_did_not_take_is_written_again() -> None:
    leader = replace(
        a_member(1, confirmed=1), role="leader", act_at=inf, failover="fail", voted_for=A
    )
    leader, _ = machine.step(leader, ds.CoordinatorLost(1, why="lost"), 100.0)
    leader, effects = machine.step(leader, ds.TimePassed(), 100.0)
    assert kinds(effects) == ["Close"]
    leader, effects = machine.step(leader, ds.TimePassed(), machine.wake_at(leader))
    assert kinds(effects) == ["Close"]
