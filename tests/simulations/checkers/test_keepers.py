"""Each promise about detached tasks, broken on purpose, is seen; kept, it is counted."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from kowalski.node.core.detached_state import Member
from kowalski.protocol import codec
from kowalski.protocol.ids import ContentHash, TaskId
from kowalski.protocol.messages import detached as wire
from kowalski.protocol.messages.task import Accepted, Grant, TaskSpec
from kowalski.rlm.journal import GENESIS
from simulations.checkers.keepers import Keepers
from simulations.witness import Witness
from tests.simulations.looking import PEERS, broken, said, witness_of

TASK = TaskId("task")
KEY = (PEERS[3], TASK)
SPEC = TaskSpec(prompt="x", max_iterations=1, timeout_s=10.0)
GROUP = PEERS[:3]
MARKS = tuple(ContentHash(f"{number:064x}") for number in range(1, 5))


class Seen:
    """What is seen of nodes 0, 1 and 2, which keep a task of node 3."""

    def __init__(self) -> None:
        self.witness: Witness = witness_of()
        self.keepers = Keepers(self.witness)
        delegation = wire.Delegation(
            task=TASK, submitter=PEERS[3], group=GROUP, submitted_unix_s=0, spec=SPEC
        )
        delegated = wire.Delegated(frame=codec.encode(delegation), signature=bytes(64))
        for number in (3, 0, 1, 2):
            self.keepers.stored(number, "detached.take", (KEY, delegated, 0))

    def writes(
        self, number: int, *, term: int, votes_for: int | None = None, holds: int = 0
    ) -> None:
        member = Member(PEERS[number], GROUP, term=term, marks=MARKS[:holds])
        voted_for = None if votes_for is None else PEERS[votes_for]
        self.keepers.stored(
            number, "detached.save", (KEY, replace(member, voted_for=voted_for), 0, ())
        )

    def asks_votes(self, candidate: int, term: int, *, voter: int, is_trial: bool = False) -> int:
        """Which request it is."""
        asked = wire.VoteAsked(
            task=TASK, submitter=KEY[0], term=term, confirmed=0, entries=0, is_trial=is_trial
        )
        request = 100 * term + 10 * candidate + voter
        self.keepers.said(said(asked, speaker=candidate, hearer=voter, request=request))
        return request

    def votes(self, voter: int, candidate: int, term: int, *, is_trial: bool = False) -> None:
        request = self.asks_votes(candidate, term, voter=voter, is_trial=is_trial)
        given = wire.VoteGiven(task=TASK, term=term, is_granted=True)
        self.keepers.said(
            said(given, speaker=voter, hearer=candidate, request=request, by_asker=False)
        )

    def is_elected(self, leader: int, term: int, *, voter: int, holds: int = 0) -> None:
        self.writes(leader, term=term, votes_for=leader, holds=holds)
        self.writes(voter, term=term, votes_for=leader)
        self.votes(voter, leader, term)

    def offers(self, leader: int, term: int, *, committed: int = 0, hearer: int = 1) -> None:
        offered = wire.LogOffered(
            task=TASK,
            submitter=KEY[0],
            term=term,
            base=0,
            start=0,
            parent=GENESIS,
            committed=committed,
        )
        self.keepers.said(said(offered, speaker=leader, hearer=hearer, request=7))

    def says_that_it_holds(self, number: int, held: int) -> None:
        answer = wire.LogHeld(task=TASK, term=1, held=held, committed=0)
        self.keepers.said(said(answer, speaker=number, request=7, by_asker=False))

    @property
    def broken(self) -> list[str]:
        return broken(self.witness)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_a_leader_that_two_elect_and_what_two_hold_are_fine_and_counted(seen: Seen) -> None:
    seen.is_elected(0, 1, voter=1, holds=2)
    seen.offers(0, 1)
    seen.writes(1, term=1, votes_for=0, holds=2)
    seen.says_that_it_holds(1, 2)
    seen.offers(0, 1, committed=2)
    assert seen.broken == []
    for promise in (
        "vote_is_given_once",
        "vote_is_saved_first",
        "leader_has_two_votes",
        "one_leader_per_term",
        "held_is_on_disk",
        "two_hold_what_counts",
        "what_counts_stays",
    ):
        assert seen.witness.evaluated[promise] > 0


def test_a_vote_for_two_in_one_term(seen: Seen) -> None:
    seen.is_elected(0, 1, voter=1)
    seen.writes(2, term=1, votes_for=2)
    seen.writes(1, term=1, votes_for=2)
    seen.votes(1, 2, 1)
    assert seen.broken == ["vote_is_given_once"]


def test_a_vote_that_is_not_on_disk(seen: Seen) -> None:
    seen.writes(0, term=1, votes_for=0)
    seen.votes(1, 0, 1)
    assert seen.broken == ["vote_is_saved_first"]


def test_a_vote_that_was_on_disk_and_is_told_when_the_next_is_there(seen: Seen) -> None:
    seen.writes(0, term=1, votes_for=0)
    seen.writes(1, term=1, votes_for=0)
    seen.writes(1, term=2, votes_for=0)
    seen.votes(1, 0, 1)
    assert not seen.broken


def test_a_term_for_which_one_stands_that_is_not_on_disk(seen: Seen) -> None:
    seen.asks_votes(0, 1, voter=1)
    assert seen.broken == ["vote_is_saved_first"]


def test_what_is_asked_on_trial_binds_nobody(seen: Seen) -> None:
    seen.votes(1, 0, 1, is_trial=True)
    seen.votes(1, 2, 1, is_trial=True)
    assert not seen.broken


def test_a_leader_without_two_votes(seen: Seen) -> None:
    seen.writes(0, term=1, votes_for=0)
    seen.asks_votes(0, 1, voter=1)
    seen.offers(0, 1)
    assert seen.broken == ["leader_has_two_votes"]


def test_two_leaders_of_one_term(seen: Seen) -> None:
    seen.is_elected(0, 1, voter=1)
    seen.offers(0, 1)
    seen.offers(2, 1)
    assert "one_leader_per_term" in seen.broken


def test_a_leader_has_its_task_led_at_home_with_two_votes_or_not_at_all(seen: Seen) -> None:
    grant = Grant(
        task=TASK,
        term=1,
        spec=SPEC,
        prefix_entries=0,
        last_digest=GENESIS,
        lease_s=3.0,
        remaining_s=9.0,
        submitter=KEY[0],
    )
    seen.keepers.said(said(grant, speaker=0, hearer=0))
    assert seen.broken == ["leader_has_two_votes"]


def test_an_entry_that_its_leader_alone_holds_does_not_count(seen: Seen) -> None:
    seen.is_elected(0, 1, voter=1, holds=1)
    seen.offers(0, 1, committed=1)
    assert seen.broken == ["two_hold_what_counts"]


def test_an_entry_that_is_accepted_at_home_is_held_by_two(seen: Seen) -> None:
    seen.is_elected(0, 1, voter=1, holds=1)
    grant = Grant(
        task=TASK,
        term=1,
        spec=SPEC,
        prefix_entries=0,
        last_digest=GENESIS,
        lease_s=3.0,
        remaining_s=9.0,
        submitter=KEY[0],
    )
    at_home = said(grant, speaker=0, hearer=0)
    seen.keepers.said(at_home)
    accepted = Accepted(task=TASK, term=1, index=0, digest=MARKS[0])
    seen.keepers.said(at_home._replace(message=accepted, is_first=False))
    assert seen.broken == ["two_hold_what_counts"]


def test_who_says_that_it_holds_more_than_is_on_its_disk(seen: Seen) -> None:
    seen.is_elected(0, 1, voter=1, holds=2)
    seen.offers(0, 1)
    seen.says_that_it_holds(1, 2)
    assert seen.broken == ["held_is_on_disk"]


def test_what_has_counted_and_is_replaced(seen: Seen) -> None:
    group = seen.keepers.groups[KEY]
    seen.keepers.counts(group, 0, MARKS[:3])
    seen.keepers.counts(group, 1, MARKS[:2])
    assert not seen.broken
    seen.keepers.counts(group, 1, (MARKS[0], MARKS[3]))
    assert seen.broken == ["what_counts_stays"]


def test_a_term_below_the_last_on_disk(seen: Seen) -> None:
    seen.writes(0, term=3)
    seen.writes(0, term=2)
    assert seen.broken == ["term_monotone"]


def test_who_had_not_heard_of_it_when_it_ended_need_not_once_its_leader_is_gone() -> None:
    seen = Seen()
    group = seen.keepers.groups[KEY]
    del group.disks[2]
    seen.is_elected(0, 1, voter=1)
    seen.offers(0, 1)
    assert group.ended_s == inf
    seen.keepers.stored(0, "detached.end", (KEY, 0))
    assert group.excused == set()
    seen.keepers.ended(1)
    assert group.excused == set()
    seen.keepers.ended(0)
    assert group.excused == {2}


def test_what_strangers_and_others_than_its_keepers_say_is_not_looked_at(seen: Seen) -> None:
    seen.offers(3, 1)
    seen.asks_votes(-1, 1, voter=1)
    assert not seen.witness.evaluated
