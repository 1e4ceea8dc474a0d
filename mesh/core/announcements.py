"""When to gossip our own telemetry: soon when something moved, seldom when nothing did.

Everybody hears everybody, so what a node hears grows with the mesh. Beyond `UNHURRIED` nodes all of
them speak so much more seldom that it does not: what one hears in a second stays what it is there.
Whoever uses a peer has its values with each offer and reply, whatever was gossiped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from kowalski.protocol.messages.telemetry import Condition, Hot, Occupancy

UNHURRIED = 50
"""Up to so many nodes nobody waits for the others' sake."""


@dataclass(frozen=True, slots=True)
class Params:
    """Gossip costs each node 7 to 13 ms of CPU a message (measured), hence `hot_s_min`.

    `hot_s_urgent`: after which it may be said that no work is taken any more, or again; that is
    rare, and never waits for a large mesh.
    """

    profile_s: float = 60.0
    hot_s_min: float = 1.0
    hot_s_max: float = 5.0
    hot_s_urgent: float = 1.0
    moved: float = 0.1


def stretch(mesh_size: int) -> float:
    """How many times as long as in a small mesh to wait in one of so many nodes."""
    return max(1.0, mesh_size / UNHURRIED)


def stretched(params: Params, mesh_size: int) -> Params:
    """The same, for a mesh of so many: nobody hears more in a second than in one of `UNHURRIED`."""
    times = stretch(mesh_size)
    if times == 1.0:
        return params
    return replace(
        params,
        profile_s=params.profile_s * times,
        hot_s_min=params.hot_s_min * times,
        hot_s_max=params.hot_s_max * times,
    )


def hot_due_at(params: Params, last: Hot | None, now_hot: Hot, last_at: float) -> float:
    """When the hot values should go out, given what was last said at `last_at`."""
    if last is None:
        return -inf
    if last is now_hot:
        return last_at + params.hot_s_max
    if takes_work_otherwise(last, now_hot):
        return last_at + params.hot_s_urgent
    return last_at + (params.hot_s_min if has_moved(params, last, now_hot) else params.hot_s_max)


def has_moved(params: Params, last: Hot, now_hot: Hot) -> bool:
    """Whether any value differs by a tenth: of its range, or of itself where it has none."""
    if takes_work_otherwise(last, now_hot):
        return True
    pairs = (
        (last.memory_used, now_hot.memory_used),
        (last.cpu_used, now_hot.cpu_used),
        (_load(last.repl), _load(now_hot.repl)),
        (_load(last.inference), _load(now_hot.inference)),
        (_load(last.folding), _load(now_hot.folding)),
    )
    if any(abs(one - other) >= params.moved for one, other in pairs):
        return True
    if _has_changed(params, last.condition, now_hot.condition):
        return True
    if last.tokens_per_s.keys() != now_hot.tokens_per_s.keys():
        return True
    return any(
        abs(speed - last.tokens_per_s[model]) >= params.moved * max(speed, 1.0)
        for model, speed in now_hot.tokens_per_s.items()
    )


def takes_work_otherwise(last: Hot, now_hot: Hot) -> bool:
    """Whether it began or ceased to take work, or says otherwise why it does not."""
    return last.paused != now_hot.paused or last.is_draining != now_hot.is_draining


def _has_changed(params: Params, last: Condition, now: Condition) -> bool:
    """Temperature and the room on the disk are no news: they go out with the others."""
    if (last.battery is None) != (now.battery is None) or len(last.gpus) != len(now.gpus):
        return True
    pairs = [(last.swap_used, now.swap_used)]
    if last.battery and now.battery:
        if last.battery.is_plugged != now.battery.is_plugged:
            return True
        pairs.append((last.battery.charge, now.battery.charge))
    if last.pressure and now.pressure:
        pairs += [
            (last.pressure.memory, now.pressure.memory),
            (last.pressure.io, now.pressure.io),
        ]
    for before, after in zip(last.gpus, now.gpus, strict=True):
        pairs += [(before.busy, after.busy), (before.memory_used, after.memory_used)]
    return any(abs((one or 0.0) - (other or 0.0)) >= params.moved for one, other in pairs)


def _load(at: Occupancy) -> float:
    return (at.running + at.queued) / max(at.slots, 1)
