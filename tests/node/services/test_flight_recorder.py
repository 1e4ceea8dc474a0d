"""What a ledger remembers of a task, as lines."""

from __future__ import annotations

from kowalski.node.core import task_ledger as tl
from kowalski.node.services import flight_recorder
from kowalski.protocol.ids import TaskId
from tests.node.core.ledger_world import OPENED, PEERS, LedgerWorld, leader_of, spec

A = TaskId("a")


class Recording(LedgerWorld):
    """Keeps what the driver would keep."""

    def handle(self, event: tl.Event, *, crash_after: float = 1e9) -> list[tl.Effect]:
        effects = super().handle(event, crash_after=crash_after)
        self.recorder.append((self.now, event, tuple(effects)))
        return effects


def recorded() -> Recording:
    world = Recording()
    world.recorder: list[flight_recorder.Step] = []  # type: ignore[misc]
    world.now = 100.0
    world.weights(PEERS)
    world.submit("a", spec())
    world.submit("b", spec())
    world.now = 101.5
    world.handle(tl.EntryHeard(A, leader_of(world).write(OPENED)))
    world.handle(tl.CoordinatorDeclined(A, 1, "it broke"))
    return world


def test_each_step_of_a_task_is_a_line_with_its_time_and_what_followed() -> None:
    lines = flight_recorder.lines(recorded().recorder, A)
    assert len(lines) == 3
    assert lines[0].startswith("    0.000 s  Submitted  ->  Save running term 1, GrantTerm 1 to ..")
    assert lines[1].startswith(
        "    1.500 s  EntryHeard 0 of term 1  ->  Append 0 of term 1, Accept"
    )
    assert "CoordinatorDeclined (failed: it broke)  ->  Revoke, Save running term 2" in lines[2]


def test_steps_of_others_are_left_out_unless_they_did_something_to_it() -> None:
    world = recorded()
    lines = flight_recorder.lines(world.recorder, TaskId("b"))
    assert len(lines) == 1
    world.now = 102.0
    world.handle(tl.TimePassed())
    assert "TimePassed" in flight_recorder.lines(world.recorder, TaskId("b"))[-1]


def test_of_a_task_that_it_does_not_remember_there_are_none() -> None:
    assert flight_recorder.lines(recorded().recorder, TaskId("x")) == ()
