"""What a worker does with a cell that it is asked to run: once, again, elsewhere, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kowalski.node.core import worker_desk
from kowalski.node.core.fences import Stale
from kowalski.node.core.worker_desk import (
    FINISHED_MAX,
    AnswerAgain,
    RunAnew,
    RunOn,
    SessionLost,
    WorkerDesk,
)
from kowalski.protocol.ids import ContentHash, PeerId, TaskId
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import CellAsked, CellDone
from kowalski.protocol.session_past import NOTHING, past_with

TASK = TaskId("task")
MINE = (PeerId("12D3KooWMe"), TASK)
YOURS = PeerId("12D3KooWYou")


def asked(
    cell: int,
    after: tuple[int, ...] = (),
    *,
    term: int = 1,
    task: str = TASK,
    language: str = "python",
    keeps_session: bool = True,
    submitter: PeerId = MINE[0],
    code: str = "x",
    past: ContentHash | None = None,
) -> CellAsked:
    return CellAsked(
        task=TaskId(task),
        term=term,
        cell=cell,
        language=language,
        code=code,
        after=after,
        past=past,
        keeps_session=keeps_session,
        timeout_s=1.0,
        remaining_s=1.0,
        claim=Claim(submitter=submitter),
    )


def done(cell: int, *, text: str = "", is_session_alive: bool = True, task: str = TASK) -> CellDone:
    return CellDone(
        task=TaskId(task),
        cell=cell,
        status="ok",
        stdout=text,
        stderr="",
        stdout_bytes=len(text),
        stderr_bytes=0,
        is_session_alive=is_session_alive,
        duration_s=0.0,
        held_s=0.0,
    )


def past_of(*codes: str) -> ContentHash:
    """The past of a session whose cells, from 0 on, had this code."""
    return reduce(lambda past, cell: past_with(past, *cell), enumerate(codes), NOTHING)


def after_running(*cells: int, language: str = "python") -> WorkerDesk:
    desk = WorkerDesk()
    for at, cell in enumerate(cells):
        request = asked(cell, cells[:at], language=language)
        desk, _ = worker_desk.ask(desk, request)
        desk = worker_desk.finish(desk, request, done(cell))
    return desk


def test_a_first_cell_runs_in_a_new_session_and_the_next_in_that_one() -> None:
    desk, first = worker_desk.ask(WorkerDesk(), asked(0))
    assert first == RunAnew()
    desk = worker_desk.finish(desk, asked(0), done(0))
    assert worker_desk.ask(desk, asked(1, (0,)))[1] == RunOn()


def test_a_finished_cell_whose_answer_got_lost_is_answered_again() -> None:
    desk = after_running(0, 1)
    assert worker_desk.ask(desk, asked(1, (0,)))[1] == AnswerAgain(done(1))
    assert worker_desk.ask(after_running(0), asked(0))[1] == AnswerAgain(done(0))


def test_other_code_under_the_same_number_is_not_answered_with_what_ran() -> None:
    """A coordinator died before anybody heard of its cell; its heir's model wrote another one."""
    desk = after_running(0, 1)
    assert worker_desk.ask(desk, asked(1, (0,), term=2, code="y"))[1] == SessionLost((0, 1))
    assert worker_desk.ask(after_running(0), asked(0, term=2, code="y"))[1] == RunAnew()


def test_a_session_that_ran_other_code_under_the_same_numbers_is_not_the_one_that_is_meant() -> (
    None
):
    """The heir of a coordinator that died ran its own cell 1 elsewhere, and comes back here."""
    desk = after_running(0, 1)
    desk, decision = worker_desk.ask(desk, asked(2, (0, 1), term=2, past=past_of("x", "y")))
    assert decision == SessionLost((0, 1))
    assert worker_desk.ask(desk, asked(2, (0, 1), term=2, past=past_of("x", "x")))[1] == RunOn()
    assert worker_desk.ask(desk, asked(2, (0, 1), term=2))[1] == RunOn(), "an older asker"


def test_a_lost_answer_is_given_again_only_to_who_means_this_session() -> None:
    desk = after_running(0, 1)
    again = worker_desk.ask(desk, asked(1, (0,), term=2, past=past_of("x")))[1]
    assert again == AnswerAgain(done(1))
    other = worker_desk.ask(desk, asked(1, (0,), term=2, past=past_of("y")))[1]
    assert other == SessionLost((0, 1))


def test_a_higher_term_is_answered_again_and_the_lower_one_is_refused_from_then_on() -> None:
    desk = after_running(0)
    desk, decision = worker_desk.ask(desk, asked(0, term=2))
    assert decision == AnswerAgain(done(0))
    assert worker_desk.ask(desk, asked(1, (0,), term=1))[1] == Stale(2)
    assert worker_desk.hear_term(desk, MINE, 1)[1] == Stale(2)


@pytest.mark.parametrize("after", [(0,), (0, 1, 2), (1, 0), (2, 1)])
def test_who_thinks_of_another_session_than_the_one_here_is_told(after: tuple[int, ...]) -> None:
    assert worker_desk.ask(after_running(0, 1), asked(3, after))[1] == SessionLost((0, 1))


def test_who_thinks_of_a_session_where_none_is_is_told() -> None:
    assert worker_desk.ask(WorkerDesk(), asked(1, (0,)))[1] == SessionLost(None)


def test_a_replay_from_the_beginning_gets_a_new_session() -> None:
    assert worker_desk.ask(after_running(0, 1), asked(0))[1] == RunAnew()


def test_sessions_of_other_languages_and_tasks_are_others() -> None:
    desk = after_running(0)
    assert worker_desk.ask(desk, asked(1, (0,), language="bash"))[1] == SessionLost(None)
    assert worker_desk.ask(desk, asked(1, (0,), task="other"))[1] == SessionLost(None)


def test_a_session_that_died_is_forgotten_with_its_answers() -> None:
    desk = after_running(0)
    desk = worker_desk.finish(desk, asked(1, (0,)), done(1, is_session_alive=False))
    assert worker_desk.ask(desk, asked(2, (0,)))[1] == SessionLost(None)
    assert worker_desk.ask(desk, asked(0))[1] == RunAnew()
    worker_desk.check(desk)


def test_a_program_that_is_run_alone_leaves_nothing() -> None:
    request = asked(0, keeps_session=False)
    desk, decision = worker_desk.ask(WorkerDesk(), request)
    assert decision == RunAnew()
    desk = worker_desk.finish(desk, request, done(0))
    assert (desk.ran, desk.finished) == ({}, {})


def test_losing_one_session_keeps_the_other_of_the_task() -> None:
    desk = after_running(0)
    bash = asked(1, language="bash")
    desk = worker_desk.finish(worker_desk.ask(desk, bash)[0], bash, done(1))
    desk = worker_desk.lose(desk, (MINE, "python"))
    assert worker_desk.ask(desk, bash)[1] == AnswerAgain(done(1))
    assert worker_desk.ask(desk, asked(0))[1] == RunAnew()


def test_a_settled_task_is_forgotten_but_its_fence_stays() -> None:
    desk, _ = worker_desk.ask(after_running(0), asked(0, term=3))
    desk = worker_desk.forget(desk, MINE)
    assert (desk.ran, desk.finished) == ({}, {})
    assert worker_desk.ask(desk, asked(0, term=2))[1] == Stale(3)


def test_in_a_term_only_who_asked_in_it_closes_and_in_a_higher_one_whoever_leads() -> None:
    desk = worker_desk.begin(after_running(0, 1), (MINE, "python"), (2, YOURS))
    assert worker_desk.may_close(desk, MINE, 2, YOURS)
    assert not worker_desk.may_close(desk, MINE, 2, MINE[0])
    assert worker_desk.may_close(desk, MINE, 3, MINE[0])
    assert worker_desk.may_close(WorkerDesk(), MINE, 2, MINE[0])


def test_who_has_asked_for_what_is_under_way_leads_in_its_term_before_it_has_begun() -> None:
    desk, asked_in = (
        worker_desk.begin(after_running(0), (MINE, "python"), (1, MINE[0])),
        [(2, YOURS)],
    )
    assert worker_desk.may_close(desk, MINE, 2, YOURS, under_way=asked_in)
    assert not worker_desk.may_close(desk, MINE, 2, MINE[0], under_way=asked_in)
    assert worker_desk.may_close(desk, MINE, 3, MINE[0], under_way=asked_in)


def test_who_asked_is_forgotten_with_the_session() -> None:
    desk = worker_desk.begin(WorkerDesk(), (MINE, "python"), (1, YOURS))
    desk, decision = worker_desk.ask(desk, asked(1, language="bash"))
    assert decision == RunAnew(), "the first cell of the other session is still running"
    assert not worker_desk.may_close(desk, MINE, 1, MINE[0])
    assert not worker_desk.lose(desk, (MINE, "python")).askers


def test_of_too_many_finished_cells_the_oldest_are_run_again_if_asked() -> None:
    desk = after_running(*range(FINISHED_MAX + 1))
    worker_desk.check(desk)
    assert (MINE, 0) not in desk.finished
    newest = asked(FINISHED_MAX, tuple(range(FINISHED_MAX)))
    assert worker_desk.ask(desk, newest)[1] == AnswerAgain(done(FINISHED_MAX))


def test_two_submitters_that_call_their_tasks_the_same_share_no_session_and_no_fence() -> None:
    desk = after_running(0, 1)
    desk, _ = worker_desk.ask(desk, asked(2, (0, 1), term=5))
    desk, decision = worker_desk.ask(desk, asked(0, submitter=YOURS))
    assert decision == RunAnew(), "no answer of another's, and not stale"
    desk = worker_desk.forget(desk, (YOURS, TASK))
    assert worker_desk.ask(desk, asked(2, (0, 1), term=5))[1] == RunOn()


# --- histories ----------------------------------------------------------------------------------


@dataclass
class Session:
    """What a real session holds: the cells that ran in it, and their code."""

    cells: list[int] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


class Desks(RuleBasedStateMachine):
    """A worker, its sessions, and coordinators of several terms that ask in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = WorkerDesk()
        self.sessions: dict[str, Session] = {}
        self.highest = 0
        self.answers: dict[int, CellDone] = {}
        self.runs = 0

    @rule(
        cell=st.integers(0, 5),
        count=st.integers(0, 3),
        term=st.integers(1, 3),
        survives=st.booleans(),
        code=st.sampled_from("xxy"),
        others=st.sampled_from("xxxy"),
    )
    def ask(self, cell: int, count: int, term: int, survives: bool, code: str, others: str) -> None:
        # Even cells are python, odd ones bash; of those before it, some died with their session.
        language = "bash" if cell % 2 else "python"
        before_it = [number for number in range(cell) if number % 2 == cell % 2]
        after = tuple(before_it[len(before_it) - count :] if count < len(before_it) else before_it)
        past = NOTHING
        for number in after:
            past = past_with(past, number, others)
        request = asked(cell, after, term=term, language=language, code=code, past=past)
        before = self.sessions.get(language)
        self.desk, decision = worker_desk.ask(self.desk, request)
        if term < self.highest:
            assert decision == Stale(self.highest), "fence_monotone"
            return
        self.highest = term
        match decision:
            case AnswerAgain(done=again):
                assert before is not None
                assert cell in before.cells, "answered from a session that has run it"
                assert before.cells == [*after, cell] or before.cells == list(after)
                assert before.codes[: len(after)] == [others] * len(after)
                assert again.stdout == f"{language} {cell} {code} after {after}"
            case SessionLost():
                is_other = before is not None and before.codes[: len(after)] != [others] * len(
                    after
                )
                assert before is None or before.cells != list(after) or is_other
                assert after
            case RunAnew():
                assert not after
                self.run(request, Session(), survives)
            case RunOn():
                assert before is not None
                assert before.cells == list(after), "it runs on exactly what the asker thinks of"
                assert before.codes == [others] * len(after), "and on the same code"
                self.run(request, before, survives)
            case Stale():
                raise AssertionError("the term was high enough")

    def run(self, request: CellAsked, session: Session, survives: bool) -> None:
        session.cells.append(request.cell)
        session.codes.append(request.code)
        outcome = done(
            request.cell,
            text=f"{request.language} {request.cell} {request.code} after {request.after}",
            is_session_alive=survives,
        )
        self.desk = worker_desk.finish(self.desk, request, outcome)
        if survives:
            self.sessions[request.language] = session
        else:
            self.sessions.pop(request.language, None)

    @rule(language=st.sampled_from(["python", "bash"]))
    def evict(self, language: str) -> None:
        self.desk = worker_desk.lose(self.desk, (MINE, language))
        self.sessions.pop(language, None)

    @rule()
    def settle(self) -> None:
        self.desk = worker_desk.forget(self.desk, MINE)
        self.sessions.clear()

    @invariant()
    def books_agree(self) -> None:
        worker_desk.check(self.desk)
        held = {language: tuple(session.cells) for language, session in self.sessions.items()}
        assert {key[1]: cells for key, cells in self.desk.ran.items()} == held


Desks.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestDesks = Desks.TestCase
