"""Asking a few peers for offers, and taking the one that is done first, as far as can be told.

One machine for one piece of work: `begin`, then offers and refusals as they come, until it says
`Take` or `NobodyFree`. Late binding by reservation (K. Ousterhout et al., "Sparrow", SOSP 2013):
the place is held while we decide, so that two askers are not promised the same one. Where a slot is
free but held for somebody else, who may go elsewhere, we give back what we hold, and ask again a
moment later.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

from kowalski.mesh.core.placement import Choice, Need, Ranking, choice_of, round_trip_s
from kowalski.mesh.core.shortlist import ASKED, shortlist, uniform, widened
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.placement import Offer
from kowalski.protocol.messages.telemetry import Occupancy

ROUND_S_MIN = 0.01
ROUND_S_MAX = 0.05
ROUND_TRIPS = 3
"""How long the slower of those asked are waited for, once the first has answered."""

SLOW_S = 0.25
"""And how much longer at most, where all that have answered would let us wait."""

AGAIN_S = 0.01
"""Until those who held places have decided; spread, so that not all ask again at one instant.

Twice as long each time: where many choose at once, as many have decided by then.
"""

WORTH = 4
"""So many times as long as what is spent on asking must the wait be that it may save."""

AGAIN_TIMES = 4
"""The last of as many as are placed at one instant on as many idle devices need them all."""

LONG_WAIT_S = 0.05
"""Where even the best would let us wait longer, as many others are asked, once."""

SILENCE_S_MAX = 1.0
"""How long to wait where not even one answers."""

RESERVE_S = 2.0

WAIT_WEIGHT = 1.5
"""Of a second of waiting, where one of work is 1. What is waited for is the work of others, whose
length nobody knows, and who has queued cannot go elsewhere: behind one slot of a slow machine a
wait of seconds may well become half a minute. Measured with `simulations.placement`, six seeds: ten
workers of 2 s jobs had a p99 of 1.30 times the omniscient one at 90 % load with 1, 1.2 with 1.5 and
2; with 2 it grows at 70 % load, since slow machines are taken only because they are free.
"""

TRANSFER_BYTES_PER_S = 50e6
"""What the work reads and the peer does not hold crosses the network first; 112 MB/s at best."""

RETRY_AFTER_S = 0.2
"""Where those who refuse do not say."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`retry_after_s` None: asking again is no use, or nobody knows."""

    why: str
    retry_after_s: float | None = None


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OfferHeard:
    peer: PeerId
    offer: Offer


@dataclass(frozen=True, slots=True)
class OfferRefused:
    """Or lost: whatever came instead of an offer."""

    peer: PeerId
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = OfferHeard | OfferRefused | TimePassed


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskOffers:
    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Hold no place at these any more: they are asked again later, like everybody else.

    Two who held theirs meanwhile would each wait for the other.
    """

    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Take:
    """Send the work there. Final; offers of others are given back."""

    choice: Choice
    offer: Offer
    expected_s: float
    why: str


@dataclass(frozen=True, slots=True)
class NobodyFree:
    """All refused, or none answered. Final."""

    retry_after_s: float | None
    why: str


Effect = AskOffers | GiveBack | Take | NobodyFree


# --- the machine --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choosing:
    """`content_bytes`: sizes of what the work reads, in the order in which it was asked for."""

    need: Need
    ranking: Ranking
    draw: str
    content_bytes: tuple[int, ...] = ()
    asked: tuple[Choice, ...] = ()
    offers: dict[PeerId, Offer] = field(default_factory=dict)
    refusals: dict[PeerId, Refusal] = field(default_factory=dict)
    is_widened: bool = False
    again: tuple[Choice, ...] = ()
    """Not asked now, but at `again_at`."""
    again_at: float = inf
    asked_again: int = 0
    decide_at: float = inf
    give_up_at: float = inf
    is_over: bool = False

    @property
    def waiting(self) -> frozenset[PeerId]:
        """Those who have not answered yet."""
        return frozenset(
            choice.peer
            for choice in self.asked
            if choice.peer not in self.offers and choice.peer not in self.refusals
        )


def wake_at(state: Choosing) -> float:
    if state.is_over:
        return inf
    if state.again:
        return state.again_at
    return _decide_at(state) if state.offers else state.give_up_at


def begin(
    need: Need,
    ranking: Ranking,
    draw: str,
    now: float,
    *,
    content_bytes: tuple[int, ...] = (),
) -> tuple[Choosing, tuple[Effect, ...]]:
    """Ask the first few. `ranking` must not be empty."""
    state = Choosing(need, ranking, draw, content_bytes)
    return _ask(state, shortlist(need, ranking, draw), now)


def step(state: Choosing, event: Event, now: float) -> tuple[Choosing, tuple[Effect, ...]]:
    if state.is_over:
        return state, ()
    match event:
        case OfferHeard(peer=peer, offer=offer):
            if peer in state.waiting:
                state = replace(state, offers={**state.offers, peer: offer})
        case OfferRefused(peer=peer, refusal=refusal):
            if peer in state.waiting:
                state = replace(state, refusals={**state.refusals, peer: refusal})
        case TimePassed():
            pass
    if state.again:
        return _while_pausing(state, now)
    if state.offers and (not state.waiting or now >= _decide_at(state)):
        return _decide(state, now)
    if not state.offers and (not state.waiting or now >= state.give_up_at):
        return _widen(state, now)
    return state, ()


def expected_s(state: Choosing, choice: Choice, offer: Offer) -> float:
    """When the work would be done there."""
    return believed_s(choice, offer, state.content_bytes)


def weighed_s(state: Choosing, choice: Choice, offer: Offer) -> float:
    """What offers are compared by: the expected completion, waiting weighted by `WAIT_WEIGHT`."""
    extra_s = (WAIT_WEIGHT - 1.0) * offer.wait_s * choice.candidate.slowness
    return expected_s(state, choice, offer) + extra_s


def believed_s(choice: Choice, offer: Offer, content_bytes: tuple[int, ...]) -> float:
    """A promise as far as it is believed, and the way of what the peer does not hold yet."""
    held = frozenset(offer.held)
    missing = sum(size for at, size in enumerate(content_bytes) if at not in held)
    return promise_s(choice, offer) * choice.candidate.slowness + missing / TRANSFER_BYTES_PER_S


def promise_s(choice: Choice, offer: Offer) -> float:
    """What the peer says, and two round trips."""
    return offer.wait_s + offer.service_s + 2 * round_trip_s(choice.candidate)


def _ask(
    state: Choosing, choices: tuple[Choice, ...], now: float
) -> tuple[Choosing, tuple[Effect, ...]]:
    slowest_s = max(round_trip_s(choice.candidate) for choice in choices)
    round_s = min(ROUND_S_MAX, max(ROUND_S_MIN, ROUND_TRIPS * slowest_s))
    state = replace(
        state,
        asked=(*state.asked, *choices),
        decide_at=now + round_s,
        give_up_at=now + max(SILENCE_S_MAX, ROUND_TRIPS * slowest_s),
    )
    return state, (AskOffers(tuple(choice.peer for choice in choices)),)


def _widen(state: Choosing, now: float) -> tuple[Choosing, tuple[Effect, ...]]:
    silent = {peer: Refusal("no answer to a request for an offer") for peer in state.waiting}
    state = replace(state, refusals={**state.refusals, **silent})
    others = widened(state.need, state.ranking, state.asked, state.draw)
    if others and not state.is_widened:
        return _ask(replace(state, is_widened=True), others, now)
    waits = [no.retry_after_s for no in state.refusals.values() if no.retry_after_s is not None]
    names = {choice.peer: choice.name or choice.peer[-6:] for choice in state.asked}
    why = "; ".join(f"{names[peer]}: {no.why}" for peer, no in list(state.refusals.items())[:8])
    return replace(state, is_over=True), (NobodyFree(min(waits, default=None), why),)


def _decide_at(state: Choosing) -> float:
    soonest_s = min(
        _experienced_wait_s(state.need, choice, state.offers[choice.peer])
        for choice in state.asked
        if choice.peer in state.offers
    )
    return state.decide_at + min(soonest_s / WORTH, SLOW_S)


def _pause(state: Choosing, until: float) -> tuple[Choosing, tuple[Effect, ...]]:
    """Give back all places, and ask again then."""
    again = tuple(choice for choice in state.asked if choice.peer in state.offers)
    others = tuple(choice for choice in state.asked if choice.peer not in state.offers)
    state = replace(
        state,
        asked=others,
        offers={},
        again=(*state.again, *again),
        again_at=until,
        asked_again=state.asked_again + 1,
    )
    return state, (GiveBack(tuple(choice.peer for choice in again)),)


def _while_pausing(state: Choosing, now: float) -> tuple[Choosing, tuple[Effect, ...]]:
    """Somebody slow may still offer what the others did not."""
    if any(offer.wait_s <= LONG_WAIT_S for offer in state.offers.values()):
        return _decide(state, now)
    if now >= state.again_at:
        return _ask(replace(state, again=()), state.again, now)
    return state, ()


def _again_after_s(state: Choosing, wait_s: float) -> float | None:
    """When to ask once more, where a free slot is promised to others; None where not to."""
    is_any_held = any(
        offer.wait_s > 0 and offer.running < offer.slots for offer in state.offers.values()
    )
    if not is_any_held or state.asked_again == AGAIN_TIMES:
        return None
    spread = 0.5 + uniform(state.draw, f"again {state.asked_again}")
    after_s = AGAIN_S * 2**state.asked_again * spread
    return after_s if wait_s > WORTH * after_s else None


def _experienced_wait_s(need: Need, choice: Choice, offer: Offer) -> float:
    """The wait that is offered, by what such work took there before, if we know."""
    unit_s = choice.candidate.unit_s
    if unit_s is None or not offer.service_s:
        return offer.wait_s
    return offer.wait_s * unit_s * need.units / offer.service_s


def _decide(state: Choosing, now: float) -> tuple[Choosing, tuple[Effect, ...]]:
    need, offers = state.need, state.offers
    choices = [choice for choice in state.asked if choice.peer in offers]
    fresh = {one.peer: _refreshed(need, one, offers[one.peer]) for one in choices}

    def order(choice: Choice) -> tuple[float, float, float]:
        return (
            round(weighed_s(state, choice, offers[choice.peer]), 3),
            -round(fresh[choice.peer].score, 6),
            uniform(state.draw, choice.peer),
        )

    best = min(choices, key=order)
    offer = offers[best.peer]
    if offer.wait_s > LONG_WAIT_S and not state.is_widened:
        known = (*state.asked, *state.again)
        more = widened(need, state.ranking, known, state.draw)[:ASKED]
        if more:
            return _ask(replace(state, is_widened=True), more, now)
    again_after_s = _again_after_s(state, _experienced_wait_s(need, best, offer))
    if again_after_s is not None:
        return _pause(state, now + again_after_s)
    expected = expected_s(state, best, offer)
    took = Take(fresh[best.peer], offer, expected, _why(state, best, offer, expected))
    return replace(state, is_over=True), (took,)


def _refreshed(need: Need, choice: Choice, offer: Offer) -> Choice:
    """The choice as it looks with what the offer says."""
    at = Occupancy(running=offer.running, queued=offer.queued, slots=offer.slots)
    one = choice.candidate
    speeds = one.tokens_per_s
    if offer.tokens_per_s is not None and need.model is not None:
        speeds = {**speeds, need.model: offer.tokens_per_s}
    return choice_of(
        need,
        replace(
            one,
            occupancy={**one.occupancy, need.kind: at},
            memory_used=offer.memory_used,
            tokens_per_s=speeds,
            own_in_flight={**one.own_in_flight, need.kind: 0},
        ),
    )


def _why(state: Choosing, best: Choice, offer: Offer, expected: float) -> str:
    words = [f"offers to be done in {offer.wait_s + offer.service_s:.3g} s"]
    if offer.wait_s:
        words.append(f"of which {offer.wait_s:.3g} s waiting")
    if offer.cached_tokens:
        words.append(f"{offer.cached_tokens} tokens cached")
    if best.candidate.slowness != 1.0:
        words.append(f"believed to be {expected:.3g} s")
    others = len(state.asked) - 1
    if others:
        words.append(f"best of {len(state.offers)} offers from {len(state.asked)} peers")
    return ", ".join(words)


def check(state: Choosing) -> None:
    """What must hold after every step."""
    asked = [choice.peer for choice in state.asked]
    assert len(set(asked)) == len(asked)
    assert set(state.offers) | set(state.refusals) <= set(asked)
    assert not set(state.offers) & set(state.refusals)
    assert not set(asked) & {choice.peer for choice in state.again}
    assert state.is_over or state.waiting or state.again
