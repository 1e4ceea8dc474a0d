"""What a holder of copies takes, shows and forgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from kowalski.node.core import copy_desk as cd
from kowalski.node.core.copy_desk import Behind, CopyDesk, Full, Keep, Offer
from kowalski.node.core.fences import TaskKey
from kowalski.protocol.codec import encode
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.journal import CancelHeard
from kowalski.protocol.messages.task import Digest, Entry
from kowalski.rlm.journal import GENESIS, digest

TASK = TaskId("task")
KEY: TaskKey = (PeerId("12D3KooWsubmitter"), TASK)


def chain(
    words: str, *, term: int = 1, start: int = 0, parent: Digest = GENESIS
) -> tuple[Entry, ...]:
    """One entry for each letter."""
    entries: list[Entry] = []
    for at, word in enumerate(words):
        body = encode(CancelHeard(reason=word))
        entries.append(Entry(term=term, index=start + at, parent=parent, body=body))
        parent = digest(TASK, entries[-1])
    return tuple(entries)


def offer(entries: tuple[Entry, ...], *, term: int = 1, key: TaskKey = KEY) -> Offer:
    first = entries[0]
    return Offer(key, term, first.index, first.parent, entries)


def kept(desk: CopyDesk, offered: Offer, now: float = 0.0) -> tuple[CopyDesk, Keep]:
    desk, decision = cd.hear_offer(desk, offered, now)
    assert isinstance(decision, Keep)
    cd.check(desk)
    return desk, decision


ABCD = chain("abcd")


def test_entries_are_appended_to_what_is_here() -> None:
    desk, keep = kept(CopyDesk(), offer(ABCD[:2]))
    assert (keep.cut_to, keep.entries) == (0, ABCD[:2])
    desk, keep = kept(desk, offer(ABCD[2:]))
    assert (keep.cut_to, keep.entries) == (2, ABCD[2:])
    assert desk.copies[KEY].entries == 4


def test_entries_that_are_here_are_not_taken_twice_and_cut_nothing_off() -> None:
    desk, _ = kept(CopyDesk(), offer(ABCD))
    again, keep = kept(desk, offer(ABCD[1:3]))
    assert (keep.cut_to, keep.entries) == (4, ())
    assert again.copies[KEY].digests == desk.copies[KEY].digests
    _, keep = kept(desk, offer((*ABCD[2:], *chain("e", start=4, parent=digest(TASK, ABCD[3])))))
    assert [entry.index for entry in keep.entries] == [4]


def test_another_coordinators_entries_replace_those_that_nobody_has_accepted() -> None:
    desk, _ = kept(CopyDesk(), offer(ABCD))
    other = chain("xy", term=2, start=2, parent=digest(TASK, ABCD[1]))
    desk, keep = kept(desk, offer(other, term=2))
    assert (keep.cut_to, keep.entries) == (2, other)
    copy = desk.copies[KEY]
    assert (copy.entries, copy.term) == (4, 2)
    assert copy.digest_before(4) == digest(TASK, other[1])


def test_what_does_not_stand_on_what_is_here_is_asked_for_from_where_it_may() -> None:
    assert cd.hear_offer(CopyDesk(), offer(ABCD[2:]), 0.0)[1] == Behind(0)
    desk, _ = kept(CopyDesk(), offer(ABCD[:2]))
    assert cd.hear_offer(desk, offer(ABCD[3:]), 0.0)[1] == Behind(2)
    stranger = chain("z", term=2, start=1, parent="f" * 64)  # type: ignore[arg-type]
    assert cd.hear_offer(desk, offer(stranger, term=2), 0.0)[1] == Behind(0)


def test_entries_that_are_no_chain_are_nonsense() -> None:
    with pytest.raises(RemoteProtocolError):
        cd.hear_offer(CopyDesk(), offer((ABCD[0], ABCD[2])), 0.0)


def test_an_offer_without_entries_tells_what_is_here_and_keeps_it_fresh() -> None:
    desk, _ = kept(CopyDesk(), offer(ABCD))
    last = digest(TASK, ABCD[3])
    desk, keep = kept(desk, Offer(KEY, 1, 4, last), now=1000.0)
    assert keep.entries == ()
    assert cd.expired(desk, cd.KEPT_S + 999.0) == ()
    assert cd.expired(desk, cd.KEPT_S + 1000.0) == (KEY,)


def test_who_has_less_of_the_same_chain_is_told_the_rest_and_nobody_else() -> None:
    desk, _ = kept(CopyDesk(), offer(ABCD))
    assert cd.has_more(desk, KEY, 0, GENESIS)
    assert cd.has_more(desk, KEY, 2, digest(TASK, ABCD[1]))
    assert not cd.has_more(desk, KEY, 4, digest(TASK, ABCD[3]))
    assert not cd.has_more(desk, KEY, 2, GENESIS)
    assert not cd.has_more(desk, (KEY[0], TaskId("other")), 0, GENESIS)


def test_one_journal_may_not_have_everything() -> None:
    small = CopyDesk(bytes_max=40)
    desk, decision = cd.hear_offer(small, offer(chain("abcdefgh")), 0.0)
    assert isinstance(decision, Full)
    assert desk == small


def test_beyond_a_bound_the_longest_unheard_are_forgotten() -> None:
    desk = CopyDesk(copies_max=2)
    for number in range(2):
        name: TaskKey = (KEY[0], TaskId(f"t{number}"))
        desk, _ = kept(desk, Offer(name, 1, 0, GENESIS), now=float(number))
    desk, keep = kept(desk, Offer(KEY, 1, 0, GENESIS), now=9.0)
    assert keep.forgotten == ((KEY[0], TaskId("t0")),)
    assert len(desk.copies) == 2
    assert cd.forget(desk, KEY).copies.keys() == {(KEY[0], TaskId("t1"))}


class Copies(RuleBasedStateMachine):
    """Coordinators of rising terms, each on some prefix of what was; offers repeat and cross."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = CopyDesk()
        self.disk: list[Entry] = []
        self.term = 1
        self.journal: list[Entry] = []

    @rule(word=st.sampled_from("abc"))
    def record(self, word: str) -> None:
        parent = digest(TASK, self.journal[-1]) if self.journal else GENESIS
        self.journal += chain(word, term=self.term, start=len(self.journal), parent=parent)

    @rule(keeps=st.integers(0, 5), word=st.sampled_from("xyz"))
    def be_followed(self, keeps: int, word: str) -> None:
        self.term += 1
        self.journal = self.journal[:keeps]
        self.record(word)

    @rule(start=st.integers(0, 6), count=st.integers(0, 4))
    def offer(self, start: int, count: int) -> None:
        start = min(start, len(self.journal))
        parent = digest(TASK, self.journal[start - 1]) if start else GENESIS
        entries = tuple(self.journal[start : start + count])
        offered = Offer(KEY, self.term, start, parent, entries)
        self.desk, decision = cd.hear_offer(self.desk, offered, 0.0)
        match decision:
            case Behind(entries=entries_here):
                assert entries_here <= len(self.disk)
            case Keep() as keep:
                self.disk = [*self.disk[: keep.cut_to], *keep.entries]
                held = start + count
                assert self.disk[start:held] == self.journal[start:held]
            case Full():
                raise AssertionError
        self.look()

    def look(self) -> None:
        cd.check(self.desk)
        copy = self.desk.copies.get(KEY)
        if copy is not None:
            assert copy.digests == tuple(digest(TASK, entry) for entry in self.disk)

    def teardown(self) -> None:
        """Whatever was, a few offers make the copy whole."""
        held = len(self.journal)
        for _ in range(4):
            parent = digest(TASK, self.journal[held - 1]) if held else GENESIS
            entries = tuple(self.journal[held:])
            self.desk, decision = cd.hear_offer(
                self.desk, Offer(KEY, self.term, held, parent, entries), 0.0
            )
            if isinstance(decision, Keep):
                self.disk = [*self.disk[: decision.cut_to], *decision.entries]
                break
            assert isinstance(decision, Behind)
            held = decision.entries
        assert self.disk[: len(self.journal)] == self.journal


TestCopies = Copies.TestCase


def test_a_copy_knows_what_its_entries_stand_on() -> None:
    copy = replace(cd.Copy(KEY, 1, 0.0), digests=(digest(TASK, ABCD[0]),))
    assert copy.digest_before(0) == GENESIS
    assert copy.digest_before(1) == digest(TASK, ABCD[0])
    assert copy.digest_before(2) is None
