"""What becomes of a cell whose peer did not bring it to its end: again elsewhere, or the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kowalski.node.core import retries
from kowalski.protocol.messages.repl import Variable
from kowalski.protocol.messages.task import TaskSpec

MOVES_MAX = 4
"""Peers that one cell may be moved to, whatever its task allows: it might be what ends them."""

NAMES_MAX = 64
"""Of variables that differ, as `journal.CellDiverged` holds them."""

How = Literal["busy", "refused", "forgotten", "lost"]
"""The peer is full; it will not, and nothing was done; it does not hold the session any more; or
nobody knows how far it came."""


@dataclass(frozen=True, slots=True)
class Cell:
    """`has_begun`: some peer may have run it; `has_past`: so have cells that it stands on."""

    has_begun: bool
    has_past: bool


@dataclass(frozen=True, slots=True)
class Again:
    pause_s: float
    is_move: bool = True


@dataclass(frozen=True, slots=True)
class GiveUp:
    """`code` as of `journal.CellFailed`."""

    code: str


def after(spec: TaskSpec, cell: Cell, how: How, moves: int) -> Again | GiveUp:
    """What to do after a try that ended so, and so many moves."""
    if how == "busy":
        return Again(0.0, is_move=False)
    if spec.side_effects == "at_most_once" and _may_run_twice(cell, how):
        return GiveUp("unknown")
    if how == "lost" and spec.failover == "fail":
        return GiveUp("device_failed")
    if moves >= MOVES_MAX or not (how != "lost" or retries.may_retry(spec, moves)):
        return GiveUp("peers_failed")
    return Again(retries.pause_s(spec.retry, moves) if how == "lost" else 0.0)


def may_replay(spec: TaskSpec) -> bool:
    """Whether cells may be run again to bring their variables back."""
    return spec.side_effects != "at_most_once"


def differing(before: Iterable[Variable], after: Iterable[Variable]) -> tuple[str, ...]:
    """Names that a cell left with other values than the first time, or left the one time only."""
    odd = set(before).symmetric_difference(after)
    return tuple(sorted({one.name for one in odd})[:NAMES_MAX])


def _may_run_twice(cell: Cell, how: How) -> bool:
    """Whether trying elsewhere could do something a second time."""
    return how == "lost" or (how == "forgotten" and (cell.has_begun or cell.has_past))
