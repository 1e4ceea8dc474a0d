"""Work done too often, and what is left over, is seen."""

from __future__ import annotations

import pytest

from kowalski.node.repl.scripted_sessions import ScriptedState
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Refused
from kowalski.protocol.messages.repl import CellAsked, CellDone
from simulations.checkers.work import EXECUTIONS_MAX, Executions, check_calls, leftovers
from simulations.plan import Ask
from simulations.virtual_time import JumpingClock
from simulations.world import Part, open_world
from tests.simulations.looking import broken, said, witness_of

CODE = "say it\nask part 7"
ASK = Ask("submit", 0.0, 0, "task-7", "prompt", "blocks", (("python", CODE),), ())


def state(*codes: str) -> ScriptedState:
    return ScriptedState("python", {}, 0, codes)


def test_once_is_right_where_nothing_went_wrong() -> None:
    witness = witness_of()
    executions = Executions(witness, [ASK])
    executions.began_cell(0, f"{CODE}\n", state())
    executions.check_all([ASK], is_quiet=True)
    assert not broken(witness)


def test_twice_is_not_unless_something_went_wrong() -> None:
    witness = witness_of()
    executions = Executions(witness, [ASK])
    for number in (0, 1):
        executions.began_cell(number, CODE, state())
    executions.check_all([ASK], is_quiet=False)
    assert not broken(witness)
    executions.check_all([ASK], is_quiet=True)
    assert broken(witness) == ["attempt_budget"]


def test_twice_is_right_where_a_worker_was_full_and_the_session_moved() -> None:
    witness = witness_of()
    executions = Executions(witness, [ASK])
    for number in (0, 1):
        executions.began_cell(number, CODE, state())
    executions.said(said(Refused(reason="stale"), by_asker=False))
    executions.check_all([ASK], is_quiet=True)
    assert broken(witness) == ["attempt_budget"]
    executions.said(said(Refused(reason="busy"), by_asker=False))
    executions.check_all([ASK], is_quiet=True)
    assert broken(witness) == ["attempt_budget"]


def test_never_is_never_right() -> None:
    witness = witness_of()
    Executions(witness, [ASK]).check_all([ASK], is_quiet=False)
    assert broken(witness) == ["attempt_budget"]


def test_twice_in_one_session_and_too_often_at_all() -> None:
    witness = witness_of()
    executions = Executions(witness, [ASK])
    executions.began_cell(0, CODE, state("x", CODE))
    assert broken(witness) == ["session_is_whole", "attempt_budget"]
    for _ in range(EXECUTIONS_MAX):
        executions.began_cell(0, CODE, state())
    assert len(broken(witness)) == 3


@pytest.mark.parametrize(
    ("ran", "is_whole"),
    [(("a", "b"), True), (("b",), True), ((), True), (("a",), False), (("a", "x"), False)],
)
def test_a_cell_runs_after_those_just_before_it(ran: tuple[str, ...], *, is_whole: bool) -> None:
    witness = witness_of()
    cells = (("python", "a"), ("bash", "z"), ("python", "b"), ("python", "c"))
    executions = Executions(witness, [Ask("submit", 0.0, 0, "t", cells=cells)])
    executions.began_cell(0, "c", state(*ran))
    assert broken(witness) == ([] if is_whole else ["session_is_whole"])


@pytest.mark.parametrize("has_died", [True, False])
def test_a_cell_that_died_with_its_session_is_not_missed_in_the_next(*, has_died: bool) -> None:
    witness = witness_of()
    cells = (("python", "a"), ("python", "b"), ("python", "c"))
    executions = Executions(witness, [Ask("submit", 0.0, 0, "t", cells=cells)])
    asked = CellAsked(
        task=TaskId("t"),
        term=1,
        cell=1,
        language="python",
        code="b",
        timeout_s=1.0,
        remaining_s=1.0,
    )
    done = CellDone(
        task=TaskId("t"),
        cell=1,
        status="died",
        stdout="",
        stderr="",
        stdout_bytes=0,
        stderr_bytes=0,
        is_session_alive=not has_died,
        duration_s=1.0,
        held_s=1.0,
    )
    executions.said(said(asked, by_asker=True))
    executions.said(said(done, by_asker=False))
    executions.began_cell(0, "c", state("a"))
    assert broken(witness) == ([] if has_died else ["session_is_whole"])
    executions.began_cell(0, "c", state("b"))
    executions.began_cell(0, "c", state())
    assert len(broken(witness)) == (0 if has_died else 1)


def test_what_a_stranger_runs_is_not_counted() -> None:
    witness = witness_of()
    Executions(witness, [ASK]).began_cell(0, "say hello", state("say hello"))
    assert not broken(witness)


@pytest.mark.trio
async def test_calls_and_leftovers_of_a_world(virtual_time: JumpingClock) -> None:
    async with open_world([Part(models=("m",))]) as world:
        witness = world.witness
        assert not leftovers(world)
        world.places[0].calls += ["part 7"]
        check_calls(world, [ASK], is_quiet=True)
        assert not broken(witness)
        world.places[0].calls += ["part 7"]
        check_calls(world, [ASK], is_quiet=True)
        assert broken(witness) == ["calls_budget"]
        hands = world.places[0].hands
        assert hands is not None
        assert hands.host is not None
        await hands.host.open("python", {}, 0)
        world.places[0].backend.in_flight = 1
        assert leftovers(world) == ["node 0: 1 sessions", "node 0: 1 model calls"]
