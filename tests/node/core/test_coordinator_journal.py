"""What a coordinator has recorded, under one term and the next."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from kowalski.node.core import coordinator_journal as cj
from kowalski.node.core.coordinator_journal import CoordinatorJournal
from kowalski.node.core.invariants import InvariantError
from kowalski.protocol.codec import encode
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import CancelHeard
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import GENESIS, check_chain, digest

TASK = TaskId("task")


def body(words: str) -> bytes:
    return encode(CancelHeard(reason=words))


def journal_of(count: int, *, term: int = 1, accepted: int = 0) -> CoordinatorJournal:
    journal = CoordinatorJournal(TASK, term)
    for number in range(count):
        journal, _ = cj.record(journal, body(str(number)))
    return cj.accept(journal, accepted - 1)


def test_entries_stand_on_each_other_from_the_first_on() -> None:
    journal = journal_of(4)
    entries = [one.entry for one in journal.unaccepted]
    assert check_chain(TASK, entries) == journal.last_digest
    assert journal.entries == 4


def test_what_is_accepted_need_not_be_said_again() -> None:
    journal = journal_of(4, accepted=3)
    assert [one.entry.index for one in journal.unaccepted] == [3]
    assert (journal.accepted, journal.entries) == (3, 4)


@pytest.mark.parametrize("index", [-1, 0, 1, 4, 100])
def test_an_acceptance_twice_of_old_or_of_what_is_not_there_changes_nothing(index: int) -> None:
    journal = journal_of(4, accepted=2)
    assert cj.accept(journal, index) == journal


@pytest.mark.parametrize("accepted", [0, 2, 4])
@pytest.mark.parametrize("prefix", [2, 3, 4])
def test_a_higher_term_stands_on_what_the_submitter_has_and_repeats_the_rest(
    accepted: int, prefix: int
) -> None:
    journal = journal_of(4, accepted=min(accepted, prefix))
    known = journal.digest_at(prefix)
    assert known is not None
    anew = cj.adopt(journal, 5, prefix, known)
    assert anew is not None
    entries = [one.entry for one in anew.unaccepted]
    assert {entry.term for entry in entries} <= {5}
    assert [entry.body for entry in entries] == [body(str(n)) for n in range(prefix, 4)]
    assert check_chain(TASK, entries, parent=known, index=prefix) == anew.last_digest


def test_on_the_journal_of_somebody_else_it_cannot_stand() -> None:
    journal = journal_of(4, accepted=2)
    assert cj.adopt(journal, 2, 3, GENESIS) is None
    assert cj.adopt(journal, 2, 9, journal.last_digest) is None
    assert cj.adopt(journal, 2, 1, GENESIS) is None, "what was before what is accepted is forgotten"


def test_fence_monotone_a_lower_term_is_a_defect_of_ours() -> None:
    with pytest.raises(InvariantError, match="fence_monotone"):
        cj.adopt(journal_of(1, term=3), 3, 0, GENESIS)


class Journals(RuleBasedStateMachine):
    """A submitter that accepts, forgets its conversations, restarts; against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = CoordinatorJournal(TASK, 1)
        self.happened: list[bytes] = []
        self.accepted: list[Entry] = []

    @rule(words=st.text(max_size=3))
    def happen(self, words: str) -> None:
        self.journal, entry = cj.record(self.journal, body(words))
        self.happened.append(body(words))
        assert entry.term == self.journal.term

    @rule(count=st.integers(0, 3), is_heard=st.booleans())
    def accept(self, count: int, is_heard: bool) -> None:
        """By the submitter; whether its word reaches the coordinator is another matter."""
        offered = [one.entry for one in self.journal.unaccepted]
        fresh = [entry for entry in offered if entry.index >= len(self.accepted)][:count]
        self.accepted += fresh
        if is_heard:
            self.journal = cj.accept(self.journal, len(self.accepted) - 1)

    @rule()
    def restart(self) -> None:
        last = digest(TASK, self.accepted[-1]) if self.accepted else GENESIS
        anew = cj.adopt(self.journal, self.journal.term + 1, len(self.accepted), last)
        assert anew is not None
        self.journal = anew

    def teardown(self) -> None:
        everything = [*self.accepted, *(one.entry for one in self.journal.unaccepted)]
        chain = {entry.index: entry for entry in everything}
        assert [entry.body for entry in chain.values()] == self.happened, (
            "nothing lost, nothing twice"
        )
        check_chain(TASK, list(chain.values()))


TestJournals = Journals.TestCase
