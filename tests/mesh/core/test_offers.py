"""Offers and refusals in, one decision out."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kowalski.mesh.core.offers import (
    AGAIN_S,
    AGAIN_TIMES,
    LONG_WAIT_S,
    ROUND_S_MAX,
    SILENCE_S_MAX,
    SLOW_S,
    TRANSFER_BYTES_PER_S,
    AskOffers,
    Choosing,
    Effect,
    Event,
    GiveBack,
    NobodyFree,
    OfferHeard,
    OfferRefused,
    Refusal,
    Take,
    TimePassed,
    begin,
    check,
    step,
    wake_at,
)
from kowalski.mesh.core.placement import Candidate, Need, rank
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.placement import Offer
from tests.mesh.core.test_placement import PYTHON, candidate

ONE, TWO, THREE = (PeerId(f"peer{name}") for name in ("one", "two", "three"))


class Asking:
    """A machine under test, checked after every step; `now` is the caller's to move."""

    def __init__(
        self,
        *candidates: Candidate,
        need: Need = PYTHON,
        sizes: tuple[int, ...] = (),
        draw: str = "draw",
    ) -> None:
        self.now = 100.0
        self.state, effects = begin(
            need, rank(need, candidates), draw, self.now, content_bytes=sizes
        )
        self.effects = list(effects)
        check(self.state)

    def happens(self, event: Event) -> tuple[Effect, ...]:
        self.state, effects = step(self.state, event, self.now)
        check(self.state)
        self.effects += effects
        return effects

    def offers(
        self, peer: PeerId, wait_s: float = 0.0, service_s: float = 1.0, **more: object
    ) -> tuple[Effect, ...]:
        running = 4 if wait_s else 0
        offer = Offer.model_validate(
            {"wait_s": wait_s, "service_s": service_s, "slots": 4, "running": running, **more}
        )
        return self.happens(OfferHeard(peer, offer))

    def refuses(self, peer: PeerId, retry_after_s: float | None = None) -> tuple[Effect, ...]:
        return self.happens(OfferRefused(peer, Refusal("busy", retry_after_s)))

    def waits(self) -> tuple[Effect, ...]:
        self.now = wake_at(self.state)
        return self.happens(TimePassed())

    @property
    def taken(self) -> Take:
        (take,) = [effect for effect in self.effects if isinstance(effect, Take)]
        return take


def three(**changes: object) -> tuple[Candidate, ...]:
    return tuple(candidate(name, **changes) for name in ("one", "two", "three"))


def test_all_of_a_few_are_asked_and_the_one_that_is_done_first_is_taken() -> None:
    asking = Asking(*three())
    (ask,) = asking.effects
    assert isinstance(ask, AskOffers)
    assert set(ask.peers) == {ONE, TWO, THREE}
    assert asking.offers(ONE, wait_s=0.5) == ()
    assert asking.offers(TWO, wait_s=0.1) == ()
    asking.offers(THREE, wait_s=2.0)
    assert asking.taken.choice.peer == TWO
    assert asking.taken.expected_s == pytest.approx(1.102)
    assert wake_at(asking.state) == inf


def test_a_wait_weighs_more_than_as_much_work_since_it_is_the_work_of_others() -> None:
    asking = Asking(*three())
    asking.offers(ONE, wait_s=3.0, service_s=1.0)
    asking.offers(TWO, wait_s=0.0, service_s=5.0)
    asking.offers(THREE, wait_s=3.0, service_s=2.0)
    assert asking.taken.choice.peer == TWO
    assert asking.taken.expected_s == pytest.approx(5.002)  # what is told is not weighed


def test_a_slow_one_that_is_only_free_is_not_taken_where_a_fast_one_is_free_soon() -> None:
    asking = Asking(*three())
    asking.offers(ONE, wait_s=3.0, service_s=1.0)
    asking.offers(TWO, wait_s=0.0, service_s=6.0)
    asking.offers(THREE, wait_s=0.0, service_s=7.0)
    assert asking.taken.choice.peer == ONE


@given(
    st.lists(st.tuples(st.floats(0.0, 60.0), st.floats(0.01, 60.0)), min_size=3, max_size=3),
    st.floats(1.0, 8.0),
)
def test_nobody_else_would_both_begin_and_be_done_earlier(
    offered: list[tuple[float, float]], slowness: float
) -> None:
    asking = Asking(candidate("one", slowness=slowness), candidate("two"), candidate("three"))
    for peer, (wait_s, service_s) in zip((ONE, TWO, THREE), offered, strict=True):
        asking.offers(peer, wait_s=wait_s, service_s=service_s)
    taken, ways = asking.taken, dict(zip((ONE, TWO, THREE), offered, strict=True))
    times = slowness if taken.choice.peer == ONE else 1.0
    begins_s = ways[taken.choice.peer][0] * times
    for peer, (wait_s, service_s) in ways.items():
        times = slowness if peer == ONE else 1.0
        begins_later = wait_s * times >= begins_s - 0.002
        assert begins_later or (wait_s + service_s) * times >= taken.expected_s - 0.01


def test_the_way_there_counts_twice() -> None:
    asking = Asking(candidate("one", rtt_s=0.2), candidate("two", rtt_s=0.001))
    asking.offers(ONE)
    asking.offers(TWO, wait_s=0.2)
    assert asking.taken.choice.peer == TWO


def test_who_is_silent_is_not_waited_for_once_somebody_has_offered() -> None:
    asking = Asking(*three())
    asking.offers(ONE)
    assert 0.01 <= wake_at(asking.state) - asking.now <= 0.05
    asking.waits()
    assert asking.taken.choice.peer == ONE


def test_where_nobody_has_answered_the_first_offer_is_taken() -> None:
    asking = Asking(*three())
    assert wake_at(asking.state) == asking.now + SILENCE_S_MAX
    asking.now += 0.4
    asking.offers(TWO)
    assert asking.taken.choice.peer == TWO


def test_a_peer_that_was_found_slow_is_not_believed() -> None:
    asking = Asking(candidate("one", slowness=10.0), candidate("two"))
    asking.offers(ONE, service_s=1.0)
    asking.offers(TWO, service_s=5.0)
    assert asking.taken.choice.peer == TWO


def test_what_has_to_cross_the_network_first_takes_its_time() -> None:
    size = int(TRANSFER_BYTES_PER_S * 3)
    asking = Asking(candidate("one"), candidate("two"), sizes=(10, size))
    asking.offers(ONE, service_s=1.0, held=(0,))
    asking.offers(TWO, service_s=2.0, held=(0, 1))
    assert asking.taken.choice.peer == TWO


def test_among_equals_the_better_score_on_fresh_values_wins_and_then_a_hash() -> None:
    asking = Asking(candidate("one"), candidate("two"))
    asking.offers(ONE, running=3, queued=1)
    asking.offers(TWO, running=1)
    assert asking.taken.choice.peer == TWO
    assert asking.taken.choice.candidate.occupancy["code"].running == 1
    winners = set()
    for number in range(8):
        asking = Asking(candidate("one"), candidate("two"), draw=f"{number}")
        asking.offers(ONE)
        asking.offers(TWO)
        winners.add(asking.taken.choice.peer)
    assert winners == {ONE, TWO}


def test_where_a_free_slot_is_held_for_others_they_are_given_a_moment_to_decide() -> None:
    asking = Asking(*three())
    asking.offers(ONE, wait_s=1.0, running=0, queued=1)
    asking.offers(TWO, wait_s=1.0, running=0, queued=1)
    (given_back,) = asking.refuses(THREE)
    assert isinstance(given_back, GiveBack)
    assert set(given_back.peers) == {ONE, TWO}, "or they would wait for us"
    assert AGAIN_S / 2 <= wake_at(asking.state) - asking.now <= 1.5 * AGAIN_S
    assert asking.offers(ONE) == (), "too early"
    (again,) = asking.waits()
    assert isinstance(again, AskOffers)
    assert set(again.peers) == {ONE, TWO}
    asking.offers(ONE, wait_s=1.0, running=0, queued=1)
    asking.offers(TWO)
    assert asking.taken.choice.peer == TWO


def test_a_full_one_is_not_preferred_to_one_whose_free_slot_is_only_held() -> None:
    asking = Asking(*three())
    asking.offers(ONE, wait_s=0.9, running=4)
    asking.offers(TWO, wait_s=1.0, running=0, queued=1)
    (given_back,) = asking.refuses(THREE)
    assert isinstance(given_back, GiveBack)


def test_a_slow_one_may_still_offer_a_free_slot_while_others_are_given_their_moment() -> None:
    asking = Asking(*three())
    asking.offers(ONE, wait_s=1.0, running=0, queued=1)
    asking.offers(TWO, wait_s=1.0, running=0, queued=1)
    asking.waits()
    assert asking.state.again
    asking.offers(THREE)
    assert asking.taken.choice.peer == THREE


def test_a_slow_one_that_offers_a_wait_as_well_keeps_its_place_and_the_others_are_asked_again() -> (
    None
):
    asking = Asking(*three())
    asking.offers(ONE, wait_s=1.0, running=0, queued=1)
    asking.offers(TWO, wait_s=1.0, running=0, queued=1)
    asking.waits()
    asking.offers(THREE, wait_s=0.5)
    (again,) = asking.waits()
    assert isinstance(again, AskOffers)
    assert set(again.peers) == {ONE, TWO}
    asking.offers(ONE, wait_s=1.0)
    asking.offers(TWO, wait_s=1.0)
    assert asking.taken.choice.peer == THREE


def test_who_is_to_be_asked_again_is_not_forgotten_for_a_slow_one_whose_slot_is_held_too() -> None:
    asking = Asking(*three(), draw="draw3")
    asking.offers(ONE, wait_s=9.0, running=0, queued=1)
    asking.offers(TWO, wait_s=9.0, running=0, queued=1)
    asking.waits()
    assert asking.state.again
    (given_back,) = asking.offers(THREE, wait_s=LONG_WAIT_S, running=0, queued=1)
    assert given_back == GiveBack((THREE,))
    (again,) = asking.waits()
    assert isinstance(again, AskOffers)
    assert set(again.peers) == {ONE, TWO, THREE}


def test_slow_ones_are_waited_for_longer_where_the_others_are_full() -> None:
    asking = Asking(*three())
    asking.offers(ONE, wait_s=9.0)
    asking.offers(TWO, wait_s=8.0)
    assert wake_at(asking.state) - asking.now >= SLOW_S
    asking.now += SLOW_S / 2
    asking.offers(THREE)
    assert asking.taken.choice.peer == THREE


def test_but_no_longer_than_they_are_worth() -> None:
    asking = Asking(*three())
    asking.offers(ONE, wait_s=9.0)
    asking.offers(TWO, wait_s=0.1)
    assert wake_at(asking.state) - asking.now < 0.1 + ROUND_S_MAX
    asking.waits()
    assert asking.taken.choice.peer == TWO


def test_they_are_asked_again_a_few_times_more_and_more_seldom_and_then_it_is_enough() -> None:
    asking = Asking(candidate("one"))
    pauses: list[float] = []
    for _ in range(AGAIN_TIMES):
        asking.offers(ONE, wait_s=1.0, running=0, queued=1)
        pauses.append(wake_at(asking.state) - asking.now)
        asking.waits()
    for at, pause_s in enumerate(pauses):
        assert 0.5 <= pause_s / (AGAIN_S * 2**at) <= 1.5
    asking.offers(ONE, wait_s=2.0, running=0, queued=2)
    assert asking.taken.choice.peer == ONE


def test_nobody_is_asked_again_to_save_less_than_asking_takes() -> None:
    asking = Asking(candidate("one"))
    asking.offers(ONE, wait_s=AGAIN_S / 4, running=0, queued=1)
    assert asking.taken.choice.peer == ONE


def test_nobody_is_asked_again_for_a_wait_that_such_work_never_took_there() -> None:
    asking = Asking(candidate("one", unit_s=0.01))
    asking.offers(ONE, wait_s=10.0, service_s=10.0, running=0, queued=1)
    assert asking.taken.choice.peer == ONE


def test_nobody_waits_for_those_who_run_already() -> None:
    asking = Asking(candidate("one"))
    asking.offers(ONE, wait_s=1.0, running=4)
    assert asking.taken.choice.peer == ONE


def test_when_all_refuse_others_are_asked_once_and_then_it_is_told_when_to_come_back() -> None:
    many = [candidate(f"{number:02}") for number in range(12)]
    asking = Asking(*many)
    (first,) = asking.effects
    assert isinstance(first, AskOffers)
    for peer in first.peers:
        asking.refuses(peer, 3.0)
    (_, second) = asking.effects
    assert isinstance(second, AskOffers)
    assert len(second.peers) == 6
    assert not set(first.peers) & set(second.peers)
    for peer in second.peers[:-1]:
        asking.refuses(peer, 0.7)
    (last,) = asking.refuses(second.peers[-1], None)
    assert isinstance(last, NobodyFree)
    assert last.retry_after_s == 0.7
    assert "busy" in last.why


def test_an_offer_in_the_second_round_is_as_good() -> None:
    asking = Asking(*[candidate(f"{number:02}") for number in range(12)])
    (first,) = asking.effects
    assert isinstance(first, AskOffers)
    for peer in first.peers:
        asking.refuses(peer)
    second = asking.effects[1]
    assert isinstance(second, AskOffers)
    asking.offers(second.peers[0])
    asking.waits()
    assert asking.taken.choice.peer == second.peers[0]


def test_silence_is_a_refusal_in_the_end() -> None:
    asking = Asking(*three())
    (last,) = asking.waits()
    assert isinstance(last, NobodyFree)
    assert last.retry_after_s is None
    assert "no answer" in last.why


def test_what_comes_too_late_or_twice_or_unasked_changes_nothing() -> None:
    asking = Asking(*three())
    asking.offers(PeerId("peerstranger"), service_s=0.0)
    asking.offers(ONE, service_s=2.0)
    asking.offers(ONE, service_s=0.1)
    asking.refuses(ONE)
    asking.refuses(TWO)
    asking.offers(THREE, service_s=3.0)
    assert asking.taken.choice.peer == ONE
    before = asking.state
    assert asking.offers(TWO, service_s=0.0) == ()
    assert asking.happens(TimePassed()) == ()
    assert asking.state == before


def test_it_says_why_in_words() -> None:
    asking = Asking(candidate("one", slowness=2.0), candidate("two"))
    asking.offers(TWO, service_s=9.0)
    asking.offers(ONE, wait_s=0.5, service_s=1.0, cached_tokens=900)
    assert asking.taken.why == (
        "offers to be done in 1.5 s, of which 0.5 s waiting, 900 tokens cached, believed to be "
        "3 s, best of 2 offers from 2 peers"
    )


peers_of_twelve = st.integers(0, 11).map(lambda number: PeerId(f"peer{number:02}"))
events = st.one_of(
    st.builds(
        OfferHeard,
        peers_of_twelve,
        st.builds(
            Offer,
            wait_s=st.floats(0, 9),
            service_s=st.floats(0, 9),
            running=st.integers(0, 2),
            slots=st.just(2),
        ),
    ),
    st.builds(
        OfferRefused,
        peers_of_twelve,
        st.builds(Refusal, st.just("busy"), st.none() | st.floats(0, 9)),
    ),
    st.just(TimePassed()),
)


def held_at_the_end(effects: list[Effect]) -> set[PeerId]:
    """Where places may be held; nobody is asked while one is, or it would wait for itself."""
    held: set[PeerId] = set()
    for effect in effects:
        match effect:
            case AskOffers(peers=peers):
                assert not held & set(peers)
                held |= set(peers)
            case GiveBack(peers=peers):
                assert set(peers) <= held
                held -= set(peers)
            case Take() | NobodyFree():
                pass
    return held


@given(st.lists(st.tuples(events, st.floats(0, 0.1)), max_size=40), st.integers(1, 12))
@settings(deadline=None)
def test_any_history_ends_in_one_decision_within_two_silences(
    history: list[tuple[Event, float]], count: int
) -> None:
    asking = Asking(*[candidate(f"{number:02}") for number in range(count)])
    began, asked = asking.now, 0
    for event, passed_s in history:
        asking.now += passed_s
        before = asking.state
        effects = asking.happens(event)
        assert step(before, event, asking.now) == (asking.state, effects), "not a function"
    while (due := wake_at(asking.state)) < inf:
        asking.now = max(asking.now, due)
        asking.happens(TimePassed())
        assert wake_at(asking.state) > asking.now, "no progress"
    ends = [effect for effect in asking.effects if isinstance(effect, Take | NobodyFree)]
    assert len(ends) == 1
    held = held_at_the_end(asking.effects)
    asked = sum(len(one.peers) for one in asking.effects if isinstance(one, AskOffers))
    assert asked <= (1 + AGAIN_TIMES) * max(8, 3 + 6)
    pauses_s = 1.5 * AGAIN_S * 2**AGAIN_TIMES + (2 + AGAIN_TIMES) * (ROUND_S_MAX + SLOW_S)
    assert asking.now - began <= 0.1 * len(history) + 2 * SILENCE_S_MAX + pauses_s
    if isinstance(ends[0], Take):
        assert ends[0].choice.peer in asking.state.offers
        assert ends[0].choice.peer in held


def test_a_machine_that_is_over_asks_for_no_more_time() -> None:
    over = replace(Asking(*three()).state, is_over=True)
    assert isinstance(over, Choosing)
    assert wake_at(over) == inf
