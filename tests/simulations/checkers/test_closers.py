"""A session that is closed by somebody else while a cell runs in it is seen."""

from __future__ import annotations

import pytest

from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Message, Refused
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import CellAsked, SessionClosed
from simulations.checkers.closers import Closers
from simulations.witness import Witness
from tests.simulations.looking import PEERS, broken, said, witness_of

TASK = TaskId("task")
ASKER, WORKER, OTHER = 0, 1, 2


class Seen:
    """A cell of node 3's task, in term 2, that node 0 has asked node 1 to run."""

    def __init__(self) -> None:
        self.witness: Witness = witness_of()
        self.closers = Closers(self.witness)
        cell = CellAsked(
            task=TASK,
            term=2,
            cell=0,
            language="python",
            code="say x",
            timeout_s=1.0,
            remaining_s=1.0,
            claim=Claim(submitter=PEERS[3]),
        )
        self.closers.heard(said(cell, speaker=ASKER, hearer=WORKER, request=1, own_s=4.9))

    def ends(self, answer: Message, *, at_s: float = 5.0) -> list[str]:
        told = said(answer, speaker=WORKER, hearer=ASKER, request=1, own_s=at_s, by_asker=False)
        self.closers.said(told._replace(is_last=True))
        return broken(self.witness)

    def closes(
        self, closer: int, *, term: int = 2, submitter: int = 3, at_s: float = 5.0
    ) -> list[str]:
        closed = SessionClosed(task=TASK, term=term, submitter=PEERS[submitter])
        told = said(closed, speaker=WORKER, hearer=closer, request=2, own_s=at_s, by_asker=False)
        self.closers.said(told._replace(is_last=True))
        return broken(self.witness)


LOST = Refused(reason="session_lost")


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_who_asked_may_close_and_is_looked_at(seen: Seen) -> None:
    assert seen.closes(ASKER) == seen.ends(LOST) == []
    assert seen.witness.evaluated["closed_by_its_leader"] == 2


@pytest.mark.parametrize("closer", [OTHER, -1])
def test_who_did_not_ask_may_not_whichever_is_said_first(closer: int) -> None:
    seen = Seen()
    seen.closes(closer)
    assert seen.ends(LOST) == ["closed_by_its_leader"]
    seen = Seen()
    seen.ends(LOST)
    assert seen.closes(closer) == ["closed_by_its_leader"]


def test_who_leads_a_later_term_may(seen: Seen) -> None:
    assert seen.closes(OTHER, term=3) == seen.ends(LOST) == []


def test_a_cell_that_ends_by_itself_or_at_another_time_was_not_stopped(seen: Seen) -> None:
    assert seen.closes(OTHER) == seen.ends(Refused(reason="busy")) == []
    assert Seen().closes(OTHER, at_s=1.0) == []
    later = Seen()
    later.closes(OTHER, at_s=1.0)
    assert later.ends(LOST) == []


def test_a_session_that_was_closed_before_the_cell_was_asked_for_is_lost_by_itself(
    seen: Seen,
) -> None:
    assert seen.closes(OTHER, at_s=4.85) == seen.ends(LOST) == []


def test_another_submitters_session_of_the_same_name_is_another(seen: Seen) -> None:
    assert seen.closes(OTHER, submitter=2) == seen.ends(LOST) == []
