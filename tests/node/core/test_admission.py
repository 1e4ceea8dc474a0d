"""What a worker takes on, in which order, and how it says no."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from kowalski.node.core.admission import (
    QUEUE_FACTOR,
    Admission,
    Arrived,
    Draining,
    Effect,
    Event,
    GivenBack,
    Left,
    Lent,
    OfferWanted,
    Paused,
    Promise,
    Refuse,
    RefuseOffer,
    Returned,
    Start,
    TimePassed,
    Wish,
    check,
    step,
    wake_at,
)
from kowalski.protocol.messages.placement import Priority


def wish(
    flow: str = "a",
    priority: Priority = "normal",
    *,
    slots: int = 2,
    cost_s: float = 10.0,
    remaining_s: float = 600.0,
    asker: str = "asker",
    lane: str = "code",
    is_own: bool = False,
) -> Wish:
    return Wish(lane, slots, asker, flow, priority, cost_s, remaining_s, is_own)


class Desk:
    """The machine under test, checked after every step."""

    def __init__(self) -> None:
        self.state = Admission()
        self.now = 1000.0
        self.tickets = 0

    def happens(self, event: Event) -> tuple[Effect, ...]:
        before = self.state
        self.state, effects = step(before, event, self.now)
        assert step(before, event, self.now) == (self.state, effects), "not a function"
        check(self.state)
        return effects

    def arrives(self, wanted: Wish, reservation: int | None = None) -> tuple[Effect, ...]:
        self.tickets += 1
        return self.happens(Arrived(self.tickets, wanted, reservation))

    def fills(self, count: int, flow: str = "a", **more: object) -> None:
        for _ in range(count):
            self.arrives(wish(flow, **more))  # type: ignore[arg-type]

    def offers(self, number: int, wanted: Wish, reserve_s: float = 2.0) -> Promise | RefuseOffer:
        (effect,) = self.happens(OfferWanted(number, wanted, reserve_s))
        assert isinstance(effect, Promise | RefuseOffer)
        return effect

    def passes(self, seconds: float) -> tuple[Effect, ...]:
        self.now += seconds
        return self.happens(TimePassed())


def refusal(effects: tuple[Effect, ...]) -> tuple[str, float | None]:
    (effect,) = effects
    assert isinstance(effect, Refuse)
    return effect.refusal.reason, effect.refusal.retry_after_s


def test_as_many_run_as_there_are_slots_and_the_others_wait() -> None:
    desk = Desk()
    assert desk.arrives(wish()) == (Start(1),)
    assert desk.arrives(wish()) == (Start(2),)
    assert desk.arrives(wish()) == ()
    assert desk.happens(Left(1)) == (Start(3),)
    assert desk.state.lanes["code"].busy == 2


def test_a_line_twice_as_long_as_the_slots_is_full_and_says_when_to_come_back() -> None:
    desk = Desk()
    desk.fills(2 + 2 * QUEUE_FACTOR)
    assert refusal(desk.arrives(wish())) == ("busy", 10.0)
    desk.now += 9.0
    assert refusal(desk.arrives(wish())) == ("busy", 5.0)


def test_who_leaves_while_it_waits_leaves_no_gap() -> None:
    desk = Desk()
    desk.fills(4)
    assert desk.happens(Left(3)) == ()
    assert desk.happens(Left(1)) == (Start(4),)
    assert desk.happens(Left(99)) == ()


def test_what_could_only_begin_too_late_is_refused_at_once() -> None:
    desk = Desk()
    desk.fills(4)
    assert refusal(desk.arrives(wish(remaining_s=9.0)))[0] == "busy"
    assert desk.arrives(wish(remaining_s=30.0)) == ()


def test_who_waited_all_the_time_it_had_is_told_so() -> None:
    desk = Desk()
    desk.fills(2)
    desk.arrives(wish(remaining_s=15.0))
    assert wake_at(desk.state) == desk.now + 15.0
    (sent_away,) = desk.passes(15.0)
    assert isinstance(sent_away, Refuse)
    assert sent_away.ticket == 3
    assert desk.passes(1.0) == ()


def test_the_other_lane_has_slots_of_its_own() -> None:
    desk = Desk()
    desk.fills(3)
    assert desk.arrives(wish(lane="folding", slots=1)) == (Start(4),)


def test_a_lane_that_got_more_slots_uses_them() -> None:
    desk = Desk()
    desk.fills(4)
    assert desk.arrives(wish(slots=4)) == (Start(3), Start(4))


def test_a_lane_without_slots_is_always_full() -> None:
    assert refusal(Desk().arrives(wish(slots=0)))[0] == "busy"


def test_a_newcomer_from_a_quiet_submitter_takes_a_place_from_the_flood() -> None:
    desk = Desk()
    desk.fills(6, "flood")
    (sent_away,) = desk.arrives(wish("quiet"))
    assert isinstance(sent_away, Refuse)
    assert sent_away.ticket == 6
    desk.now += 10.0
    assert desk.happens(Left(1)) == (Start(7),), "and it is its turn"


def test_an_interactive_request_passes_those_of_a_batch() -> None:
    desk = Desk()
    desk.fills(6, priority="batch")
    (sent_away,) = desk.arrives(wish(priority="interactive"))
    assert isinstance(sent_away, Refuse)
    assert desk.happens(Left(1)) == (Start(7),)


# --- offers -------------------------------------------------------------------------------------


def test_an_idle_worker_promises_to_begin_at_once() -> None:
    assert Desk().offers(1, wish()) == Promise(1, 0.0)


def test_a_promise_counts_what_runs_and_waits_and_is_promised_already() -> None:
    desk = Desk()
    desk.fills(2)
    desk.now += 4.0
    assert desk.offers(1, wish()) == Promise(1, 6.0)
    assert desk.offers(2, wish()) == Promise(2, 6.0), "the other slot"
    assert desk.offers(3, wish()) == Promise(3, 16.0)
    desk.happens(GivenBack(1))
    assert desk.offers(4, wish()) == Promise(4, 16.0)


def test_work_that_has_run_longer_than_expected_is_not_expected_to_end_at_once() -> None:
    desk = Desk()
    desk.fills(2)
    desk.now += 100.0
    assert desk.offers(1, wish()) == Promise(1, 5.0)


def test_a_reserved_place_is_kept_for_who_reserved_it_and_for_nobody_else() -> None:
    desk = Desk()
    desk.fills(2 + 2 * QUEUE_FACTOR - 1)
    assert isinstance(desk.offers(1, wish()), Promise)
    assert refusal(desk.arrives(wish(asker="thief"), reservation=1))[0] == "busy"
    assert desk.arrives(wish(), reservation=1) == ()
    assert refusal(desk.arrives(wish(), reservation=1))[0] == "busy", "spent"


def test_a_reservation_ends_after_its_time_and_the_place_is_free_again() -> None:
    desk = Desk()
    desk.fills(2 + 2 * QUEUE_FACTOR - 1)
    desk.offers(1, wish(), reserve_s=2.0)
    assert wake_at(desk.state) == desk.now + 2.0
    assert desk.passes(2.0) == ()
    assert desk.arrives(wish()) == ()


def test_a_mere_question_holds_no_place() -> None:
    desk = Desk()
    desk.offers(1, wish(), reserve_s=0.0)
    assert desk.state.lanes == {}


def test_a_reservation_does_not_leave_a_slot_idle() -> None:
    desk = Desk()
    desk.offers(1, wish(slots=1))
    assert desk.arrives(wish("b", slots=1)) == (Start(1),)
    assert desk.arrives(wish(slots=1), reservation=1) == ()


def test_a_full_worker_offers_nothing_and_says_when_to_come_back() -> None:
    desk = Desk()
    desk.fills(2 + 2 * QUEUE_FACTOR)
    no = desk.offers(1, wish())
    assert isinstance(no, RefuseOffer)
    assert no.refusal.retry_after_s == 10.0


def test_who_reserves_everything_shares_with_who_comes_later() -> None:
    desk = Desk()
    desk.fills(2, "hog")
    for number in range(2 * QUEUE_FACTOR):
        desk.offers(number, wish("hog"))
    assert isinstance(desk.offers(90, wish("hog")), RefuseOffer)
    assert isinstance(desk.offers(91, wish("quiet")), Promise)
    assert len(desk.state.lanes["code"].reserved) == 2 * QUEUE_FACTOR


# --- lending, pausing ---------------------------------------------------------------------------


def test_work_that_waits_for_something_outside_lends_its_slot() -> None:
    desk = Desk()
    desk.fills(3, slots=2)
    assert desk.happens(Lent(1)) == (Start(3),)
    assert desk.happens(Returned(1)) == ()
    assert desk.state.lanes["code"].busy == 3
    desk.arrives(wish())
    assert desk.happens(Left(2)) == (), "one too many ran"
    assert desk.happens(Left(3)) == (Start(4),)


def test_what_has_left_meanwhile_neither_lends_nor_returns() -> None:
    desk = Desk()
    desk.fills(2)
    desk.happens(Left(1))
    assert desk.happens(Lent(1)) == desk.happens(Returned(1)) == ()


def test_a_worker_that_is_about_to_leave_takes_on_nothing_but_what_can_go_nowhere_else() -> None:
    desk = Desk()
    desk.fills(2)
    desk.arrives(wish())
    desk.arrives(replace(wish(), is_bound=True))
    (sent_away,) = desk.happens(Draining(is_on=True))
    assert isinstance(sent_away, Refuse)
    assert (sent_away.ticket, sent_away.refusal.reason) == (3, "draining")
    assert desk.state.jobs == 3
    assert refusal(desk.arrives(wish(is_own=True))) == ("draining", None)
    assert isinstance(desk.offers(1, wish()), RefuseOffer)
    assert desk.happens(Left(1)) == (Start(4),)
    assert desk.happens(Left(2)) == ()
    assert desk.arrives(replace(wish(), is_bound=True)) == (Start(6),)
    desk.happens(Draining(is_on=False))
    desk.happens(Left(4))
    assert desk.arrives(wish()) == (Start(7),)


def test_a_paused_worker_sends_away_all_but_its_owner() -> None:
    desk = Desk()
    desk.fills(2)
    desk.arrives(wish("b"))
    desk.arrives(wish("owner", is_own=True))
    (sent_away,) = desk.happens(Paused("on battery"))
    assert isinstance(sent_away, Refuse)
    assert (sent_away.ticket, sent_away.refusal.reason) == (3, "paused")
    assert sent_away.refusal.detail == "on battery"
    assert refusal(desk.arrives(wish()))[0] == "paused"
    assert isinstance(desk.offers(1, wish()), RefuseOffer)
    assert desk.happens(Left(1)) == (Start(4),)
    assert desk.arrives(wish("owner", is_own=True)) == ()
    desk.happens(Paused(""))
    assert desk.arrives(wish()) == ()


def test_in_an_overload_the_newest_is_served_first() -> None:
    desk = Desk()
    desk.fills(1, slots=1)
    desk.arrives(wish(slots=1, remaining_s=15.0))
    desk.now += 8.0
    desk.arrives(wish(slots=1, remaining_s=15.0))
    assert desk.happens(Left(1)) == (Start(3),)


# --- any history --------------------------------------------------------------------------------

flows = st.sampled_from(["a", "b", "c"])
priorities = st.sampled_from(["batch", "normal", "interactive"])


class AnyHistory(RuleBasedStateMachine):
    """Watched from outside: who was let in, who was sent away, what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.under_way: dict[int, float] = {}
        """Tickets that have begun, waiting or running, with when they must have begun by."""
        self.running: set[int] = set()
        self.lent: set[int] = set()
        self.has_returned = False
        """What was lent and comes back may be one too many for a while."""
        self.reservations = 0
        self.slots = 2

    def watch(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Start(ticket=ticket):
                    assert ticket in self.under_way
                    assert ticket not in self.running
                    assert self.desk.now <= self.under_way[ticket], "begun after its deadline"
                    self.running.add(ticket)
                case Refuse(ticket=ticket):
                    assert ticket not in self.running, "sent away while it ran"
                    del self.under_way[ticket]
                case Promise(wait_s=wait_s):
                    assert wait_s >= 0
                case RefuseOffer():
                    pass
        if not self.has_returned:
            assert len(self.running - self.lent) <= self.slots

    @rule(flow=flows, priority=priorities, cost=st.floats(0.1, 20), left=st.floats(0.1, 60))
    def arrive(self, flow: str, priority: Priority, cost: float, left: float) -> None:
        wanted = wish(flow, priority, slots=self.slots, cost_s=cost, remaining_s=left)
        self.under_way[self.desk.tickets + 1] = self.desk.now + left
        self.watch(self.desk.arrives(wanted))

    @rule(flow=flows, which=st.integers(0, 5))
    def arrive_with_a_reservation(self, flow: str, which: int) -> None:
        self.under_way[self.desk.tickets + 1] = self.desk.now + 50.0
        wanted = wish(flow, slots=self.slots, remaining_s=50.0)
        self.watch(self.desk.arrives(wanted, self.reservations - which))

    @rule(flow=flows, priority=priorities, reserve_s=st.sampled_from([0.0, 2.0]))
    def ask_for_an_offer(self, flow: str, priority: Priority, reserve_s: float) -> None:
        self.reservations += 1
        wanted = wish(flow, priority, slots=self.slots)
        self.watch(self.desk.happens(OfferWanted(self.reservations, wanted, reserve_s)))

    @rule(which=st.integers(0, 5))
    def give_back(self, which: int) -> None:
        self.watch(self.desk.happens(GivenBack(self.reservations - which)))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 30))
    def leave(self, which: int) -> None:
        ticket = sorted(self.under_way)[which % len(self.under_way)]
        del self.under_way[ticket]
        self.running.discard(ticket)
        self.lent.discard(ticket)
        self.watch(self.desk.happens(Left(ticket)))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9))
    def lend(self, which: int) -> None:
        ticket = sorted(self.running)[which % len(self.running)]
        self.lent.add(ticket)
        self.watch(self.desk.happens(Lent(ticket)))

    @precondition(lambda self: self.lent)
    @rule(which=st.integers(0, 9))
    def return_(self, which: int) -> None:
        ticket = sorted(self.lent)[which % len(self.lent)]
        self.lent.discard(ticket)
        self.has_returned = True
        self.watch(self.desk.happens(Returned(ticket)))

    @rule(why=st.sampled_from(["", "on battery"]))
    def pause(self, why: str) -> None:
        self.watch(self.desk.happens(Paused(why)))

    @rule(is_on=st.booleans())
    def drain(self, is_on: bool) -> None:
        self.watch(self.desk.happens(Draining(is_on)))

    @rule(seconds=st.floats(0, 5))
    def time_goes_on(self, seconds: float) -> None:
        self.desk.now = min(self.desk.now + seconds, wake_at(self.desk.state))

    @precondition(lambda self: wake_at(self.desk.state) < inf)
    @rule()
    def the_timer_rings(self) -> None:
        self.desk.now = max(self.desk.now, wake_at(self.desk.state))
        self.watch(self.desk.happens(TimePassed()))
        assert wake_at(self.desk.state) > self.desk.now, "no progress"

    def teardown(self) -> None:
        """Everything that is let in ends, and then nothing is left."""
        for ticket in sorted(self.under_way):
            self.desk.happens(Left(ticket))
        for number in range(self.reservations + 1):
            self.desk.happens(GivenBack(number))
        assert self.desk.state.lanes == {}


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("event", [Left(7), GivenBack(7), Lent(7), Returned(7), TimePassed()])
def test_what_is_not_known_changes_nothing(event: Event) -> None:
    assert step(Admission(), event, 0.0) == (Admission(), ())
