"""Whom to ask for an offer, and whom to send short work to without asking.

The view is a second old, and everybody has the same one: who always takes the best of it runs with
the herd (M. Mitzenmacher, "How useful is old information?", TPDS 2000). So the score only drops
the worst, and chance, weighted by capacity, picks among the rest. Measured in simulation
(`simulations.placement`): uniform chance overloads slow peers.

Chance is an argument: `draw` names one draw, and the same draw gives the same peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from math import ceil, log

from kowalski.mesh.core.placement import (
    Choice,
    Need,
    Ranking,
    capacity,
    load,
    round_trip_s,
    tie_breaker,
)

ASKED = 3
"""Offers for one piece of work; five are hardly better than three, one is much worse."""

ALL_UP_TO = 8
"""So few peers that can do it are all asked."""

KEPT_SHARE = 0.7
SHORT_S = 0.05
"""Work expected to take less than this is not worth a round of offers."""


def shortlist(need: Need, ranking: Ranking, draw: str) -> tuple[Choice, ...]:
    """The peers to ask for an offer, best score first; of those that are ready, if any is."""
    choices = ready_ones(ranking)
    if len(choices) <= ALL_UP_TO:
        return choices
    kept = choices[: max(ASKED, ceil(KEPT_SHARE * len(choices)))]
    return _in_order(choices, _with_affinity(kept, sample(need, kept, ASKED, draw)))


def ready_ones(ranking: Ranking) -> tuple[Choice, ...]:
    """Those that could begin at once; all where none could."""
    return tuple(choice for choice in ranking.choices if choice.is_ready) or ranking.choices


def widened(need: Need, ranking: Ranking, asked: Iterable[Choice], draw: str) -> tuple[Choice, ...]:
    """Twice as many others, once all that were asked have refused."""
    known = {choice.peer for choice in asked}
    left = tuple(choice for choice in ranking.choices if choice.peer not in known)
    return _in_order(ranking.choices, sample(need, left, 2 * ASKED, f"{draw} widened"))


def is_short(need: Need, usual_unit_s: float | None) -> bool:
    """Whether the work is over before offers would be in; work never seen before is not."""
    return usual_unit_s is not None and usual_unit_s * need.units < SHORT_S


def straight_to(need: Need, ranking: Ranking, usual_unit_s: float | None, draw: str) -> Choice:
    """The better of two that chance picks, without asking anybody.

    The power of two choices, with what was piggybacked on the last replies and what we sent since.
    """
    choices = ready_ones(ranking)
    assert choices
    two = _with_affinity(choices, sample(need, choices, 2, draw))
    expected = expectation(need, usual_unit_s)
    return min(two, key=lambda one: (expected(one), -one.score, tie_breaker(need, one.peer)))


def expectation(
    need: Need, usual_unit_s: float | None, *, by_its_word: bool = False
) -> Callable[[Choice], float]:
    """Seconds until the work would be done at a peer, as far as can be told without asking it.

    `by_its_word`: without what we know of it better.
    """
    usual_s = (usual_unit_s if usual_unit_s is not None else SHORT_S) * need.units

    def expected_s(choice: Choice) -> float:
        one = choice.candidate
        if by_its_word:
            alone_s = usual_s / max(one.speed, 1e-3)
        elif one.unit_s is None:
            alone_s = usual_s * one.slowness / max(one.speed, 1e-3)
        else:
            alone_s = one.unit_s * need.units
        slots = max(1, one.occupancy[need.kind].slots)
        # With n before us on c slots we share: each of the n + 1 gets c / (n + 1) of one.
        crowding = max(1.0, load(one, need.kind) + 1.0 / slots)
        return alone_s * crowding + round_trip_s(one)

    return expected_s


def sample(need: Need, choices: Sequence[Choice], count: int, draw: str) -> tuple[Choice, ...]:
    """So many different ones, each as likely as its share of the capacity.

    Weighted sampling without replacement: the smallest -ln(u) / weight (P. Efraimidis and P.
    Spirakis, "Weighted random sampling with a reservoir", 2006).
    """
    if len(choices) <= count:
        return tuple(choices)

    def lot(one: Choice) -> float:
        # Whoever is likelier to be here for its capacity must not be likelier once more.
        weight = capacity(need, one.candidate) / one.candidate.seen_chance
        return -log(uniform(draw, one.peer)) / weight

    return tuple(sorted(choices, key=lot)[:count])


def uniform(draw: str, name: str) -> float:
    """In (0, 1): what `draw` gives to `name`."""
    digest = blake2b(f"{draw}\0{name}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52


def _with_affinity(kept: Sequence[Choice], picked: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """Who holds the beginning of this already is always among those that are considered."""
    extra = [one for one in kept if one.candidate.holds_prefix and one not in picked]
    return (*picked, *extra[:1])


def _in_order(choices: Sequence[Choice], picked: Iterable[Choice]) -> tuple[Choice, ...]:
    peers = {one.peer for one in picked}
    return tuple(choice for choice in choices if choice.peer in peers)
