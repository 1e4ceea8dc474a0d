"""The matrix of round trips: what each peer measured to each other one, as it gossiped it.

A row is its origin's word, for choosing and for people to look at; nothing is granted on it. When
our own row goes out is decided here too: soon when a peer came, went or moved, seldom otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    nearest = sorted(latencies.items(), key=lambda item: (item[1].smooth_s, item[0]))
    return tuple(
        RoundTripTo(
            peer=peer,
            smooth_s=_rounded(latency.smooth_s),
            least_s=_rounded(latency.least_s(now)),
            jitter_s=_rounded(latency.jitter_s),
        )
        for peer, latency in nearest[:ROUND_TRIPS_MAX]
    )


def row_due_from(params: Params, said_at: float, *, times: float = 1.0) -> float:
    """`row_due_at` is never before this, whatever the row is; there is no need to make one."""
    return said_at + times * params.row_s_min


def row_due_at(
    params: Params,
    said: Iterable[RoundTripTo] | None,
    ours: Iterable[RoundTripTo],
    said_at: float,
    *,
    times: float = 1.0,
) -> float:
    """When our row should go out, given what was last said at `said_at`; inf: nothing to say.

    So many `times` later than in a small mesh, see `announcements.stretch`.
    """
    before = {path.peer: path.smooth_s for path in said or ()}
    now = {path.peer: path.smooth_s for path in ours}
    if said is None:
        return -inf if now else inf
    if not now and not before:
        return inf
    has_moved = before.keys() != now.keys() or any(
        abs(smooth_s - before[peer]) > max(params.moved * before[peer], params.moved_s_min)
        for peer, smooth_s in now.items()
    )
    return said_at + times * (params.row_s_min if has_moved else params.row_s_max)


def _rounded(seconds: float) -> float:
    """To microseconds: digits beyond are noise."""
    return round(min(max(seconds, 0.0), RTT_S_MAX), 6)
