"""Calls that outlive their askers: who joins, who may end one, how long anything is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kowalski.node.core import kept_calls
from kowalski.node.core.kept_calls import (
    KEPT_BYTES_MAX,
    KEPT_MAX,
    KEPT_S,
    ORPHAN_S,
    ORPHANS_MAX,
    Asked,
    Begin,
    CallKey,
    Effect,
    Ended,
    Event,
    Forget,
    KeptCalls,
    Left,
    Refuse,
    Sought,
    Stop,
    TimePassed,
)
from kowalski.protocol.ids import PeerId, TaskId, content_hash

TASK = (PeerId("12D3KooWabcdefgh"), TaskId("task"))


def key(name: str = "turn-1", question: str = "why?") -> CallKey:
    return CallKey(TASK, name, content_hash(question.encode()))


@dataclass
class Desk:
    """The machine with a clock."""

    state: KeptCalls = field(default_factory=KeptCalls)
    now: float = 0.0

    def do(self, event: Event) -> tuple[Effect, ...]:
        self.state, effects = kept_calls.step(self.state, event, self.now)
        kept_calls.check(self.state)
        return effects

    def wait(self, seconds: float) -> tuple[Effect, ...]:
        """Until then, waking whenever it wants to be woken."""
        until, effects = self.now + seconds, list[Effect]()
        while (wake_at := kept_calls.wake_at(self.state)) <= until:
            self.now = wake_at
            effects += self.do(TimePassed())
            assert kept_calls.wake_at(self.state) > wake_at, "progress"
        self.now = until
        return tuple(effects)


# --- by example ---------------------------------------------------------------------------------


def test_who_asks_the_same_joins_it_in_whatever_term() -> None:
    desk = Desk()
    assert desk.do(Asked(key(), 1, term=1)) == (Begin(key(), 1),)
    desk.do(Left(key(), 1, takes_back=False))
    assert desk.do(Asked(key(), 2, term=2)) == ()
    assert desk.wait(10 * ORPHAN_S) == (), "it has an asker again"


def test_another_question_under_the_same_name_is_another_call() -> None:
    desk = Desk()
    desk.do(Asked(key(), 1, term=1))
    other = key(question="why not?")
    assert desk.do(Asked(other, 2, term=2)) == (Begin(other, 2),)


def test_an_answer_is_given_again_for_a_while() -> None:
    desk = Desk()
    desk.do(Asked(key(), 1, term=1))
    assert desk.do(Ended(key(), 1, size=10)) == ()
    assert desk.wait(KEPT_S - 1) == ()
    assert desk.do(Asked(key(), 2, term=2)) == ()
    assert desk.wait(1) == (Forget(key()),)
    assert desk.do(Asked(key(), 3, term=2)) == (Begin(key(), 2),)


def test_what_came_to_nothing_is_not_kept() -> None:
    desk = Desk()
    desk.do(Asked(key(), 1, term=1))
    assert desk.do(Ended(key(), 1, size=None)) == (Forget(key()),)
    assert desk.do(Asked(key(), 2, term=1)) == (Begin(key(), 2),)


def test_an_orphan_goes_on_for_a_while_and_ends_for_nobody() -> None:
    desk = Desk()
    desk.do(Asked(key(), 1, term=1))
    desk.now = 5.0
    desk.do(Left(key(), 1, takes_back=False))
    assert desk.wait(ORPHAN_S - 0.1) == ()
    assert desk.wait(0.1) == (Stop(key()),)
    assert desk.do(Ended(key(), 1, size=None)) == (), "it has been forgotten already"


def test_who_takes_it_back_ends_it_unless_somebody_else_asks_too() -> None:
    desk = Desk()
    desk.do(Asked(key(), 1, term=1))
    desk.do(Asked(key(), 2, term=1))
    assert desk.do(Left(key(), 1, takes_back=True)) == ()
    assert desk.do(Left(key(), 2, takes_back=True)) == (Stop(key()),)


def test_an_older_term_ends_nothing_once_a_newer_one_was_heard() -> None:
    desk = Desk()
    desk.do(Asked(key(), 1, term=1))
    desk.do(Sought(TASK, 2))
    assert desk.do(Left(key(), 1, takes_back=True)) == (), "the new one will ask for it"
    assert desk.do(Asked(key(), 2, term=1)) == (Refuse(2),)
    assert desk.do(Sought(TASK, 1)) == (Refuse(2),)
    assert desk.do(Asked(key(), 3, term=2)) == ()


def test_an_end_that_comes_late_is_not_taken_for_that_of_the_next_run() -> None:
    desk = Desk()
    desk.do(Asked(key(), 1, term=1))
    desk.do(Left(key(), 1, takes_back=True))
    assert desk.do(Asked(key(), 2, term=1)) == (Begin(key(), 2),)
    assert desk.do(Ended(key(), 1, size=3)) == ()
    assert key() in desk.state.running


def test_too_many_orphans_cost_the_one_that_waits_longest() -> None:
    desk = Desk()
    for number in range(ORPHANS_MAX + 1):
        desk.now = float(number) / 100
        desk.do(Asked(key(f"turn-{number}"), number, term=1))
        effects = desk.do(Left(key(f"turn-{number}"), number, takes_back=False))
    assert effects == (Stop(key("turn-0")),)


def test_the_oldest_answers_make_room() -> None:
    desk = Desk()
    for number in range(KEPT_MAX + 1):
        desk.do(Asked(key(f"turn-{number}"), number, term=1))
        effects = desk.do(Ended(key(f"turn-{number}"), number + 1, size=1))
    assert effects == (Forget(key("turn-0")),)
    big = key("big")
    desk.do(Asked(big, KEPT_MAX + 1, term=1))
    effects = desk.do(Ended(big, KEPT_MAX + 2, size=KEPT_BYTES_MAX))
    assert list(desk.state.kept) == [big]
    assert len(effects) == KEPT_MAX


def test_it_tells_what_it_has_of_a_task_and_of_no_other() -> None:
    desk = Desk()
    desk.do(Asked(key("turn-1"), 1, term=1))
    desk.do(Ended(key("turn-1"), 1, size=1))
    desk.do(Asked(key("turn-2"), 2, term=1))
    assert kept_calls.held(desk.state, TASK) == ("turn-1", "turn-2")
    assert kept_calls.held(desk.state, (TASK[0], TaskId("other"))) == ()


# --- histories ----------------------------------------------------------------------------------

NAMES = st.sampled_from(["turn-1", "turn-2", "cell-0-ab-0"])


class Histories(RuleBasedStateMachine):
    """Coordinators in several terms ask, are lost and take back; models end or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.doing: dict[CallKey, int] = {}
        """What a model is at, by its run: what was begun, and neither ended nor was stopped."""
        self.known: set[CallKey] = set()
        self.askers: dict[int, tuple[CallKey, int, int]] = {}
        """What they ask, in which term, and of which run: one that failed has askers yet."""
        self.numbers = 0
        self.highest = 0

    def perform(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Begin(one, run):
                    assert one not in self.doing, "never two at a time"
                    assert one not in self.known, "nor one whose answer is known"
                    self.doing[one] = run
                case Stop(one):
                    run = self.doing.pop(one)
                    assert not any((of, at) == (one, run) for of, _, at in self.askers.values())
                case Forget(one):
                    self.known.discard(one)
                    self.doing.pop(one, None)
                case Refuse():
                    raise AssertionError("nobody came too late")

    @rule(name=NAMES, term=st.integers(1, 4))
    def ask(self, name: str, term: int) -> None:
        self.numbers += 1
        effects = self.desk.do(Asked(key(name), self.numbers, term))
        if term < self.highest:
            assert effects == (Refuse(self.highest),), "fence_monotone"
            return
        self.highest = term
        self.perform(effects)
        assert key(name) in self.doing or key(name) in self.known
        self.askers[self.numbers] = (key(name), term, self.doing.get(key(name), 0))

    @rule(term=st.integers(1, 4))
    def seek(self, term: int) -> None:
        effects = self.desk.do(Sought(TASK, term))
        assert effects == ((Refuse(self.highest),) if term < self.highest else ())
        self.highest = max(self.highest, term)

    @precondition(lambda self: self.askers)
    @rule(data=st.data(), takes_back=st.booleans())
    def leave(self, data: st.DataObject, takes_back: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.askers)))
        asked, term, _ = self.askers.pop(number)
        effects = self.desk.do(Left(asked, number, takes_back))
        if effects:
            assert takes_back
            assert term == self.highest, "an older term ends nothing"
        self.perform(effects)

    @precondition(lambda self: self.doing)
    @rule(data=st.data(), size=st.none() | st.integers(0, 100))
    def end(self, data: st.DataObject, size: int | None) -> None:
        ended = data.draw(st.sampled_from(sorted(self.doing)))
        self.perform(self.desk.do(Ended(ended, self.doing[ended], size)))
        self.doing.pop(ended, None)
        if size is not None:
            self.known.add(ended)

    @rule(seconds=st.floats(0.0, ORPHAN_S * 1.5))
    def wait(self, seconds: float) -> None:
        self.perform(self.desk.wait(seconds))

    @invariant()
    def books_agree(self) -> None:
        state = self.desk.state
        assert {one: of.run for one, of in state.running.items()} == self.doing
        assert set(state.kept) == self.known
        for one, of in state.running.items():
            if of.orphaned_at < inf:
                assert self.desk.now - of.orphaned_at <= ORPHAN_S
            asking = {
                number
                for number, (asked, _, run) in self.askers.items()
                if (asked, run) == (one, of.run)
            }
            assert set(of.askers) == asking


Histories.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase
