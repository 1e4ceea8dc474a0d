"""Whose tasks are led, whose wait, and who is refused."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from kowalski.node.core import coordinator_desk as cd
from kowalski.node.core.coordinator_desk import CoordinatorDesk
from kowalski.node.core.fences import TaskKey
from kowalski.protocol.ids import PeerId, TaskId

A, B = PeerId("12D3KooWaaaaaaaa"), PeerId("12D3KooWbbbbbbbb")


def key(submitter: PeerId, name: str) -> TaskKey:
    return submitter, TaskId(name)


def admitted(desk: CoordinatorDesk, *keys: TaskKey, rank: int = 1) -> CoordinatorDesk:
    for one in keys:
        desk, decision = cd.admit(desk, one, rank, 0.0)
        assert not isinstance(decision, cd.Refuse)
    return desk


def test_with_room_a_task_is_led_at_once() -> None:
    desk, decision = cd.admit(CoordinatorDesk(slots=1), key(A, "a"), 1, 0.0)
    assert decision == cd.Lead()
    _, decision = cd.admit(desk, key(B, "a"), 1, 0.0)
    assert decision == cd.Wait(0), "the same name is another submitter's task"


def test_a_later_term_of_a_task_that_is_led_needs_no_turn() -> None:
    desk = admitted(CoordinatorDesk(slots=1), key(A, "a"))
    assert cd.admit(desk, key(A, "a"), 1, 0.0) == (desk, cd.Lead())


def test_when_one_is_done_the_next_is_that_of_who_has_least() -> None:
    desk = admitted(
        CoordinatorDesk(slots=2, queue_max=8),
        *(key(A, f"a{n}") for n in range(4)),
        key(B, "b0"),
    )
    desk, next_up = cd.leave(desk, key(A, "a0"), 1.0)
    assert next_up == key(B, "b0")
    desk, next_up = cd.leave(desk, key(A, "a1"), 1.0)
    assert next_up == key(A, "a2")


def test_the_higher_priority_is_first() -> None:
    desk = admitted(CoordinatorDesk(slots=1), key(A, "a"), key(A, "b"))
    desk = admitted(desk, key(A, "urgent"), rank=2)
    assert cd.leave(desk, key(A, "a"), 1.0)[1] == key(A, "urgent")


def test_one_submitter_cannot_fill_the_queue_of_all() -> None:
    desk = admitted(CoordinatorDesk(slots=1, queue_max=4), *(key(A, str(n)) for n in range(3)))
    _, decision = cd.admit(desk, key(A, "one too many"), 1, 0.0)
    assert isinstance(decision, cd.Refuse)
    assert (decision.reason, decision.retry_after_s) == ("busy", cd.RETRY_AFTER_S)
    assert isinstance(cd.admit(desk, key(B, "b"), 1, 0.0)[1], cd.Wait)


def test_who_leaves_the_queue_makes_nobodys_turn_come() -> None:
    desk = admitted(CoordinatorDesk(slots=1), key(A, "a"), key(A, "b"), key(B, "c"))
    desk, next_up = cd.leave(desk, key(A, "b"), 1.0)
    assert next_up is None
    assert cd.leave(desk, key(A, "a"), 1.0)[1] == key(B, "c")


def test_a_node_that_is_about_to_leave_takes_nothing_new_and_keeps_what_it_leads() -> None:
    desk = cd.drain(CoordinatorDesk(leading={key(A, "a"): None}), is_on=True)
    _, decision = cd.admit(desk, key(A, "b"), 1, 0.0)
    assert isinstance(decision, cd.Refuse)
    assert decision.reason == "draining"
    assert cd.admit(desk, key(A, "a"), 1, 0.0)[1] == cd.Lead()
    assert cd.admit(cd.drain(desk, is_on=False), key(A, "b"), 1, 0.0)[1] == cd.Lead()


keys = st.tuples(st.sampled_from([A, B]), st.sampled_from("abcdef")).map(lambda one: key(*one))


class Desks(RuleBasedStateMachine):
    """Every task is led or waits exactly once, and nobody waits while there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = CoordinatorDesk(slots=2, queue_max=4)
        self.here: set[TaskKey] = set()
        self.now = 0.0

    @rule(one=keys, rank=st.integers(0, 2))
    def grant(self, one: TaskKey, rank: int) -> None:
        if one in self.here:
            return  # its coordination hears it
        self.desk, decision = cd.admit(self.desk, one, rank, self.now)
        if not isinstance(decision, cd.Refuse):
            self.here.add(one)
        self.look()

    @rule(one=keys)
    def end(self, one: TaskKey) -> None:
        if one in self.here:
            self.here.remove(one)
            self.desk, next_up = cd.leave(self.desk, one, self.now)
            assert next_up is None or next_up in self.here
        self.look()

    @rule(seconds=st.sampled_from([0.1, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def look(self) -> None:
        cd.check(self.desk)
        assert {*self.desk.leading, *self.desk.waiting} == self.here


TestDesks = Desks.TestCase
