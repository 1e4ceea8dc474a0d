"""Which of very many peers to look at for one piece of work.

So that a choice costs no more among a thousand than among `LOOKED_AT`.

A stratified sample: the peers that could do it by their profiles stand in a row, each as wide as
its capacity; the row is cut into as many equal parts, and chance picks one point in each. So the
strong are nearly always looked at, and nobody never. What a choice weighs by capacity afterwards
must divide by how likely each was to be looked at (D. Horvitz and D. Thompson, "A generalization of
sampling without replacement", 1952), or the strong would count twice.

Chance is an argument, as in `shortlist`: the same draw looks at the same peers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate

from kowalski.protocol.ids import PeerId

LOOKED_AT = 64
"""Up to so many, all are looked at."""

PASSED_OVER_MAX = 16
"""Of those that take no work now, for each that is wanted."""

_POINT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """Peers in any order, and where each one's part of the row ends: sums of capacities."""

    peers: tuple[PeerId, ...]
    ends: tuple[float, ...]


def row(capacities: Mapping[PeerId, float]) -> Row:
    """Capacities are above zero, in any unit that all share."""
    return Row(tuple(capacities), tuple(accumulate(capacities.values())))


def glance(
    row: Row,
    draw: str,
    *,
    takes_work: Callable[[PeerId], bool],
    always: Iterable[PeerId] = (),
) -> dict[PeerId, float]:
    """Whom to look at, and how likely it was that each would be, in (0, 1].

    All, as certain, where they are few. Otherwise those of `always` that are in the row or not, and
    up to `LOOKED_AT` others that take work, as far as there are such not far from each point.
    """
    looked_at = dict.fromkeys(always, 1.0)
    peers, ends = row.peers, row.ends
    if len(peers) <= LOOKED_AT:
        return dict.fromkeys((*looked_at, *peers), 1.0)
    part = ends[-1] / LOOKED_AT
    for number, share in enumerate(_points(draw)):
        at = min(bisect_right(ends, (number + share) * part), len(peers) - 1)
        for step in range(PASSED_OVER_MAX):
            here = (at + step) % len(peers)
            peer = peers[here]
            if peer in looked_at and step == 0:
                break
            if peer not in looked_at and takes_work(peer):
                width = ends[here] - (ends[here - 1] if here else 0.0)
                looked_at[peer] = min(1.0, width / part)
                break
    return looked_at


def _points(draw: str) -> list[float]:
    """One number in [0, 1) for each part of the row."""
    noise = b"".join(
        blake2b(f"{draw}\0glance {number}".encode()).digest()
        for number in range(LOOKED_AT * _POINT_BYTES // 64)
    )
    return [
        int.from_bytes(noise[at : at + _POINT_BYTES], "big") / 2 ** (8 * _POINT_BYTES)
        for at in range(0, len(noise), _POINT_BYTES)
    ]
