"""The matrix of round trips: what each peer measured to each other one, as it gossiped it.

A row is its origin's word, for choosing and for people to look at; nothing is granted on it. When
our own row goes out is decided here too: soon when a peer came, went or moved, seldom otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from kowalski.mesh.core.latency import Latency
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import ROUND_TRIPS_MAX
from kowalski.protocol.messages.telemetry import RoundTrips, RoundTripTo

RTT_S_MAX = 3600.0


@dataclass(frozen=True, slots=True)
class Params:
    """A row is some 100 bytes a peer, and gossip costs CPU time on every node: hence rarely."""

    row_s_min: float = 10.0
    row_s_max: float = 60.0
    moved: float = 0.25
    """Of the last value told; below `moved_s_min` nothing has moved."""
    moved_s_min: float = 0.001


@dataclass(frozen=True, slots=True)
class Row:
    """One peer's round trips. `heard_at` is on the driver's clock."""

    boot: str
    sequence: int
    paths: dict[PeerId, RoundTripTo]
    heard_at: float


@dataclass(frozen=True, slots=True)
class Topology:
    rows: dict[PeerId, Row] = field(default_factory=dict)

    def hear(self, origin: PeerId, told: RoundTrips, now: float) -> Topology:
        """Take in a row, unless it is a replay or a straggler of the same boot."""
        known = self.rows.get(origin)
        if known is not None and known.boot == told.boot and told.sequence <= known.sequence:
            return self
        paths = {path.peer: path for path in told.paths if path.peer != origin}
        row = Row(told.boot, told.sequence, paths, now)
        return replace(self, rows={**self.rows, origin: row})

    def forget(self, peer: PeerId) -> Topology:
        if peer not in self.rows:
            return self
        return replace(self, rows={name: row for name, row in self.rows.items() if name != peer})


def own_paths(latencies: Mapping[PeerId, Latency], now: float) -> tuple[RoundTripTo, ...]:
    """What we measured, the nearest first, as many as fit into a message."""
    return tuple(
        RoundTripTo(
            peer=peer,
            smooth_s=_rounded(latency.smooth_s),
            least_s=_rounded(latency.least_s(now)),
            jitter_s=_rounded(latency.jitter_s),
        )
        for peer, latency in _nearest(latencies)
    )


def row_due_at(
    params: Params,
    said: Mapping[PeerId, float] | None,
    latencies: Mapping[PeerId, Latency],
    said_at: float,
    *,
    times: float = 1.0,
) -> float:
    """When our row should go out, given the smoothed seconds last said at `said_at`.

    inf: nothing to say. So many `times` later than in a small mesh, see `announcements.stretch`. It
    is asked at every look, and makes no row: most look like the one before.
    """
    if said is None:
        return -inf if latencies else inf
    if not latencies and not said:
        return inf
    has_moved = _has_moved(params, said, latencies)
    return said_at + times * (params.row_s_min if has_moved else params.row_s_max)


def _has_moved(
    params: Params, said: Mapping[PeerId, float], latencies: Mapping[PeerId, Latency]
) -> bool:
    if len(latencies) > ROUND_TRIPS_MAX:
        latencies = dict(_nearest(latencies))
    if said.keys() != latencies.keys():
        return True
    share, least_s = params.moved, params.moved_s_min
    for peer, before_s in said.items():
        moved_s = abs(latencies[peer].smooth_s - before_s)
        if moved_s > least_s and moved_s > share * before_s:
            return True
    return False


def _nearest(latencies: Mapping[PeerId, Latency]) -> list[tuple[PeerId, Latency]]:
    nearest = sorted(latencies.items(), key=lambda item: (item[1].smooth_s, item[0]))
    return nearest[:ROUND_TRIPS_MAX]


def _rounded(seconds: float) -> float:
    """To microseconds: digits beyond are noise."""
    return round(min(max(seconds, 0.0), RTT_S_MAX), 6)
