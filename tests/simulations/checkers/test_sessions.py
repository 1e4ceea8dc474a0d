"""A cell that runs in a session with another past than its asker's journal has is seen."""

from __future__ import annotations

import pytest

from kowalski.node.repl.scripted_sessions import ScriptedState
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.base import Refused
from kowalski.protocol.messages.copies import CopyAsked, CopyFound, CopyOffered
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import CellAsked, CellDone
from kowalski.protocol.messages.task import Entry, EntryOffered, Grant, Prefix, TaskSpec
from kowalski.rlm.journal import GENESIS, entry_of
from simulations.checkers.sessions import Sessions
from simulations.witness import Said
from tests.simulations.looking import PEERS, broken, said, witness_of

TASK = TaskId("task")
FIRST, WORKER, NEXT, SUBMITTER = range(4)
"""Two that lead the task, one after the other, who runs its cells, and whose it is."""


def started(cell: int, code: str, language: str = "python") -> journal.CellStarted:
    return journal.CellStarted(cell=cell, language=language, code=code, peer=PEERS[WORKER])


def finished(cell: int, *, is_alive: bool = True) -> journal.CellFinished:
    return journal.CellFinished(
        cell=cell, peer=PEERS[WORKER], status="ok", output="", is_session_alive=is_alive
    )


def failed(cell: int) -> journal.CellFailed:
    return journal.CellFailed(cell=cell, code="no_peer", detail="nobody")


def entries(*events: journal.SessionEvent, term: int = 1) -> tuple[Entry, ...]:
    return tuple(entry_of(term, at, GENESIS, event) for at, event in enumerate(events))


class Seen:
    """What is said about one task, and what begins at its worker."""

    def __init__(self) -> None:
        self.witness = witness_of()
        self.sessions = Sessions(self.witness)
        self._requests = 100

    def grants(self, term: int, to: int = FIRST) -> None:
        grant = Grant(
            task=TASK,
            term=term,
            spec=TaskSpec(prompt="x", max_iterations=1, timeout_s=10.0),
            prefix_entries=0,
            last_digest=GENESIS,
            lease_s=3.0,
            remaining_s=10.0,
        )
        self.sessions.heard(said(grant, speaker=SUBMITTER, hearer=to, request=(to, term)))

    def accepted(self, *events: journal.SessionEvent, term: int, to: int = FIRST) -> None:
        prefix = Prefix(task=TASK, start=0, entries=entries(*events))
        self.sessions.heard(said(prefix, speaker=SUBMITTER, hearer=to, request=(to, term)))

    def offers(
        self, *events: journal.SessionEvent, term: int = 1, said_in: int = 1, by: int = FIRST
    ) -> None:
        for entry in entries(*events, term=term):
            offered = EntryOffered(task=TASK, entry=entry)
            self.sessions.said(
                said(offered, speaker=by, hearer=SUBMITTER, request=(by, said_in), by_asker=False)
            )

    def copied(self, *events: journal.SessionEvent, to: int) -> None:
        """To one that stands by."""
        offered = CopyOffered(
            task=TASK,
            term=1,
            submitter=PEERS[SUBMITTER],
            start=0,
            parent=GENESIS,
            entries=entries(*events),
        )
        self.sessions.heard(said(offered, speaker=FIRST, hearer=to))

    def finds(self, *events: journal.SessionEvent, by: int) -> None:
        """In a copy that another has."""
        asked = CopyAsked(task=TASK, term=2, submitter=PEERS[SUBMITTER], start=0, parent=GENESIS)
        self.sessions.said(said(asked, speaker=by, hearer=FIRST, request="copy"))
        found = CopyFound(task=TASK, entries=entries(*events))
        self.sessions.heard(said(found, speaker=FIRST, hearer=by, request="copy", by_asker=False))

    def asks(
        self,
        cell: int,
        code: str,
        *,
        term: int = 1,
        by: int = FIRST,
        language: str = "python",
        keeps_session: bool = True,
    ) -> int:
        self._requests += 1
        asked = CellAsked(
            task=TASK,
            term=term,
            cell=cell,
            language=language,
            code=code,
            keeps_session=keeps_session,
            timeout_s=1.0,
            remaining_s=1.0,
            claim=Claim(submitter=PEERS[SUBMITTER]),
        )
        one = said(asked, speaker=by, hearer=WORKER, request=self._requests)
        self.sessions.said(one)
        self.sessions.heard(one)
        return self._requests

    def begins(self, code: str, *ran: str, language: str = "python") -> list[str]:
        self.sessions.began_cell(WORKER, code, ScriptedState(language, {}, 0, ran))
        return broken(self.witness)

    def ends(self, request: int, cell: int, *, is_alive: bool = True, by: int = FIRST) -> None:
        done = CellDone(
            task=TASK,
            cell=cell,
            status="ok",
            stdout="",
            stderr="",
            stdout_bytes=0,
            stderr_bytes=0,
            is_session_alive=is_alive,
            duration_s=1.0,
            held_s=1.0,
        )
        self._answers(said(done, request=request, hearer=by)._replace(is_last=True))

    def is_refused(self, request: int, by: int = FIRST) -> None:
        no = said(Refused(reason="session_lost"), request=request, hearer=by)
        self._answers(no._replace(is_last=True))

    def runs(self, cell: int, code: str, *ran: str, term: int = 1, by: int = FIRST) -> list[str]:
        """Asked for, begun and ended."""
        request = self.asks(cell, code, term=term, by=by)
        found = self.begins(code, *ran)
        self.ends(request, cell, by=by)
        return found

    def _answers(self, one: Said) -> None:
        answer = one._replace(speaker=WORKER, by_asker=False)
        self.sessions.said(answer)
        self.sessions.heard(answer)


BROKEN = ["session_is_whole"]


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_each_cell_after_those_before_it_is_fine(seen: Seen) -> None:
    seen.grants(1)
    seen.runs(0, "a")
    seen.runs(1, "b", "a")
    assert not seen.runs(2, "c", "a", "b")
    assert seen.witness.evaluated["session_is_whole"] == 3


@pytest.mark.parametrize("ran", [(), ("a",), ("b",), ("b", "a"), ("a", "x"), ("a", "b", "x")])
def test_a_session_with_other_cells_or_not_all_of_them(seen: Seen, ran: tuple[str, ...]) -> None:
    seen.runs(0, "a")
    seen.runs(1, "b", "a")
    assert seen.runs(2, "c", *ran) == BROKEN


def test_the_code_that_a_leader_before_wrote_under_the_same_number(seen: Seen) -> None:
    seen.grants(1)
    seen.runs(0, "a")
    seen.runs(1, "old", "a")
    seen.grants(2, NEXT)
    seen.accepted(started(0, "a"), finished(0), term=2, to=NEXT)
    answered = seen.asks(1, "new", term=2, by=NEXT)  # with what the other's cell has left
    seen.ends(answered, 1, by=NEXT)
    assert seen.runs(2, "c", "a", "old", term=2, by=NEXT) == BROKEN


def test_what_the_leader_before_had_accepted_is_before_the_cells_of_the_next(seen: Seen) -> None:
    seen.runs(0, "a")
    seen.grants(2, NEXT)
    seen.accepted(started(0, "a"), finished(0), term=2, to=NEXT)
    assert not seen.runs(1, "b", "a", term=2, by=NEXT)
    assert seen.runs(2, "c", "b", term=2, by=NEXT) == BROKEN


def test_what_a_leader_has_lost_is_not(seen: Seen) -> None:
    seen.runs(0, "a")
    seen.grants(2, NEXT)
    assert not seen.runs(0, "other", term=2, by=NEXT)
    assert seen.runs(1, "b", "a", term=2, by=NEXT) == BROKEN


def test_cells_of_another_language_are_in_a_session_of_their_own(seen: Seen) -> None:
    seen.runs(0, "a")
    seen.asks(1, "sh", language="bash")
    assert not seen.begins("sh", language="bash")
    assert not seen.runs(2, "c", "a")


def test_cells_are_run_again_in_order_where_a_session_is_lost(seen: Seen) -> None:
    seen.runs(0, "a")
    seen.runs(1, "b", "a")
    seen.is_refused(seen.asks(2, "c"))
    seen.runs(0, "a")
    seen.runs(1, "b", "a")
    assert not seen.runs(2, "c", "a", "b")


@pytest.mark.parametrize("ran", [("a",), ("a", "b")])
@pytest.mark.parametrize("is_alive", [True, False])
def test_a_cell_that_died_with_its_session_is_not_in_the_next(
    seen: Seen, ran: tuple[str, ...], *, is_alive: bool
) -> None:
    seen.runs(0, "a")
    seen.ends(seen.asks(1, "b"), 1, is_alive=is_alive)
    assert seen.runs(2, "c", *ran) == ([] if is_alive == (len(ran) == 2) else BROKEN)


@pytest.mark.parametrize("end", [finished(1, is_alive=False), failed(1)])
def test_nor_is_one_of_which_the_journal_says_so(
    seen: Seen, end: journal.CellFinished | journal.CellFailed
) -> None:
    seen.grants(2)
    seen.accepted(started(0, "a"), finished(0), started(1, "b"), end, term=2)
    seen.asks(2, "c", term=2)
    seen.asks(2, "d", term=2)
    assert not seen.begins("c", "a")
    assert seen.begins("d", "a", "b") == BROKEN


def test_a_cell_that_nobody_has_run_after_all_is_not_in_the_session(seen: Seen) -> None:
    seen.grants(1)
    seen.runs(0, "a")
    seen.ends(seen.asks(1, "b"), 1)
    seen.offers(failed(1))
    assert not seen.runs(2, "c", "a")


@pytest.mark.parametrize(("term", "is_whole"), [(2, True), (1, False)])
def test_entries_that_are_offered_in_this_term_stand_in_the_journal(
    seen: Seen, term: int, *, is_whole: bool
) -> None:
    seen.grants(2)
    seen.offers(started(0, "a"), finished(0), term=term, said_in=2)
    assert seen.runs(1, "b", "a", term=2) == ([] if is_whole else BROKEN)


def test_what_was_found_in_a_copy_may_stand_in_the_journal(seen: Seen) -> None:
    seen.copied(started(0, "copied"), finished(0), to=NEXT)
    seen.grants(2, NEXT)
    seen.finds(started(0, "found"), finished(0), by=NEXT)
    for ordinal, before in enumerate(("copied", "found")):
        seen.asks(1, f"b {ordinal}", term=2, by=NEXT)
        assert not seen.begins(f"b {ordinal}", before)
    seen.asks(1, "b", term=2, by=NEXT)
    assert seen.begins("b", "a") == BROKEN


@pytest.mark.parametrize("ran", [(), ("a",)])
@pytest.mark.parametrize("end", [finished(0), failed(0)])
def test_how_a_cell_ended_that_stands_there_as_begun_may_be_known_from_a_copy(
    seen: Seen, end: journal.CellFinished | journal.CellFailed, ran: tuple[str, ...]
) -> None:
    """The next leader asks for the next cell before it has offered all that it has taken over."""
    seen.grants(2, NEXT)
    seen.accepted(started(0, "a"), term=2, to=NEXT)
    seen.finds(started(0, "a"), end, started(1, "b"), by=NEXT)
    is_whole = bool(ran) == isinstance(end, journal.CellFinished)
    assert seen.runs(1, "b", *ran, term=2, by=NEXT) == ([] if is_whole else BROKEN)


def test_that_a_cell_failed_in_this_term_stands_against_any_copy(seen: Seen) -> None:
    seen.copied(started(0, "a"), finished(0), to=NEXT)
    seen.grants(2, NEXT)
    seen.offers(started(0, "a"), failed(0), term=2, said_in=2, by=NEXT)
    assert seen.runs(1, "b", "a", term=2, by=NEXT) == BROKEN


def test_what_is_written_in_this_term_is_no_more_a_matter_of_copies(seen: Seen) -> None:
    seen.copied(started(0, "copied"), finished(0), to=NEXT)
    seen.grants(2, NEXT)
    seen.runs(0, "a", term=2, by=NEXT)
    assert seen.runs(1, "b", "copied", term=2, by=NEXT) == BROKEN


def test_a_leader_that_is_granted_the_next_term_goes_on(seen: Seen) -> None:
    request = seen.asks(0, "a")
    seen.grants(2)
    seen.ends(request, 0)
    assert not seen.runs(1, "b", "a", term=2)


@pytest.mark.parametrize("ran", [(), ("a",)])
def test_a_new_process_may_have_what_was_on_its_disk(seen: Seen, ran: tuple[str, ...]) -> None:
    seen.runs(0, "a")
    seen.sessions.began(FIRST)
    if not ran:
        seen.runs(0, "b")
    assert not seen.runs(1, "c", *(ran or ("b",)))


def test_a_cell_that_waits_begins_for_whoever_asked_for_it(seen: Seen) -> None:
    seen.runs(0, "a")
    seen.asks(1, "b")
    seen.runs(0, "other", term=2, by=NEXT)
    seen.asks(1, "b", term=2, by=NEXT)
    assert not seen.begins("b", "a")
    assert seen.begins("b", "a") == BROKEN  # now it is that of the other


def test_who_has_an_answer_waits_for_no_cell(seen: Seen) -> None:
    seen.runs(0, "a")
    seen.is_refused(seen.asks(1, "b"))
    seen.begins("b", "what", "ever")
    seen.asks(1, "b")
    seen.sessions.began(WORKER)
    assert not seen.begins("b", "what", "ever")


def test_programs_and_what_strangers_run_are_nobodys_past(seen: Seen) -> None:
    seen.asks(0, "program", keeps_session=False)
    seen.begins("program", "what", "ever")
    seen.asks(0, "order", by=-1)
    assert not seen.begins("order", "what", "ever")
    assert not seen.witness.evaluated["session_is_whole"]


def test_entries_that_are_none_are_passed_over(seen: Seen) -> None:
    noise = Entry(term=1, index=0, parent=GENESIS, body=b"\x83\x01\x74journal/cell-started?")
    prefix = Prefix(task=TASK, start=0, entries=(noise,))
    seen.sessions.heard(said(prefix, speaker=SUBMITTER, hearer=FIRST))
    assert not seen.runs(0, "a")
