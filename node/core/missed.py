"""Nobody can do a piece of work just now, but somebody may be able to in a moment.

A peer that misses two signs of life is sent nothing until it answers (`mesh.core.connectivity`).
Mostly it is back within a second: on a loaded machine, or a bad wireless link. Where it is the only
one with a model or a language, that is worth a moment's wait, and no failure of what is asked.

A node that has just begun has not heard yet what the others are: a task that it takes up again from
its disk must not fail for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kowalski.mesh.core.placement import Candidate, Need, rank

MISSED_S = 5.0
"""How long such a peer is waited for: suspected and given up takes about as long."""

NEW_S = 5.0
"""How long a node has begun only just: dialled, proven and told takes a second or two."""

LOOK_S = 0.2
"""Between two looks."""

LOST_S = 30.0
"""How long whoever went away in the middle of an answer is waited for: a device that is started
anew is back by then."""

LOSSES_MAX = 3
"""Of one question: it may be what they die of."""


def is_worth_a_wait(
    need: Need, candidates: Iterable[Candidate], waited_s: float, up_s: float
) -> bool:
    """Whether one of `candidates` could do it, but that it cannot be reached just now.

    Or, where this node is up for `up_s` seconds only, somebody of whom it has not heard yet.
    """
    if up_s < NEW_S and need.devices != "local":
        return waited_s < MISSED_S
    silent = [one for one in candidates if not one.is_routable]
    back = (replace(one, is_routable=True) for one in silent)
    return waited_s < MISSED_S and bool(rank(need, back).choices)


def may_come_back(losses: int, gone_s: float) -> bool:
    """Whether to wait for those that are gone, of whom one was there so long ago.

    `losses`: how often all that could answer this one question were lost while it was under way.
    """
    return losses < LOSSES_MAX and gone_s < LOST_S
