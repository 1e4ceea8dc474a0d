"""Which model calls of tasks go on without an asker, and whose answers are remembered.

A coordinator that dies takes its askers with it, not the task: whoever leads next asks the same
calls. So a call whose asker is lost goes on for a while, and an answer is kept for a while; who
asks the same joins it, or is answered again. A call is the same by its name in the task and by what
it asks, whatever the term. While one is under way or kept, none like it begins.

An asker that takes its request back ends the call, unless others ask as well, or a later term than
its own was heard: who was replaced takes nothing away from who follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import NamedTuple

from kowalski.node.core.fences import Fences, Stale, TaskKey
from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages.calls import CallName

ORPHAN_S = 20.0
"""How long a call goes on for nobody, as a cell does: another coordinator is there sooner."""

ORPHANS_MAX = 64

KEPT_S = 120.0
"""How long an answer is kept: a cell that asked for it may have to be replayed elsewhere first."""

KEPT_MAX = 512
KEPT_BYTES_MAX = 16 * 1024 * 1024
"""Of all of them together."""


class CallKey(NamedTuple):
    """`request` is a digest of all that is asked, but for who asks, when and in which term."""

    task: TaskKey
    call: CallName
    request: ContentHash


@dataclass(frozen=True, slots=True)
class Running:
    """`askers` by number, with their terms; `orphaned_at`: since when there are none."""

    run: int
    askers: dict[int, int]
    orphaned_at: float = inf


@dataclass(frozen=True, slots=True)
class Kept:
    size: int
    until: float


def _nothing_heard() -> Fences[TaskKey]:
    return Fences()


@dataclass(frozen=True, slots=True)
class KeptCalls:
    """`kept` has the oldest first."""

    fences: Fences[TaskKey] = field(default_factory=_nothing_heard)
    running: dict[CallKey, Running] = field(default_factory=dict)
    kept: dict[CallKey, Kept] = field(default_factory=dict)
    runs: int = 0


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody asks; `asker` is a number of its own."""

    key: CallKey
    asker: int
    term: int


@dataclass(frozen=True, slots=True)
class Sought:
    """Somebody who leads the task wants to know what is here of it."""

    task: TaskKey
    term: int


@dataclass(frozen=True, slots=True)
class Left:
    """An asker is gone: it has its answer, was lost, or `takes_back` what it asked."""

    key: CallKey
    asker: int
    takes_back: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """`size` in bytes of the answer; None where there is none."""

    key: CallKey
    run: int
    size: int | None


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = Asked | Sought | Left | Ended | TimePassed


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    key: CallKey
    run: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The asker comes too late: `term` was heard."""

    term: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody wants it any more, whatever comes of it."""

    key: CallKey


@dataclass(frozen=True, slots=True)
class Forget:
    key: CallKey


Effect = Begin | Refuse | Stop | Forget


# --- the machine --------------------------------------------------------------------------------


def wake_at(state: KeptCalls) -> float:
    orphaned_at = min((one.orphaned_at for one in state.running.values()), default=inf)
    oldest = next(iter(state.kept.values()), None)
    return min(orphaned_at + ORPHAN_S, oldest.until if oldest else inf)


def held(state: KeptCalls, task: TaskKey) -> tuple[CallName, ...]:
    """Calls of a task that are here, the latest last."""
    keys = [key for key in (*state.kept, *state.running) if key.task == task]
    return tuple(dict.fromkeys(key.call for key in keys))


def step(state: KeptCalls, event: Event, now: float) -> tuple[KeptCalls, tuple[Effect, ...]]:
    match event:
        case Asked():
            return _ask(state, event)
        case Sought(task, term):
            return _hear(state, task, term)
        case Left():
            return _leave(state, event, now)
        case Ended():
            return _end(state, event, now)
        case TimePassed():
            return _pass_time(state, now)


def _hear(state: KeptCalls, task: TaskKey, term: int) -> tuple[KeptCalls, tuple[Effect, ...]]:
    fences, stale = state.fences.hear(task, term)
    if isinstance(stale, Stale):
        return state, (Refuse(stale.term),)
    return (state if fences is state.fences else replace(state, fences=fences)), ()


def _ask(state: KeptCalls, asked: Asked) -> tuple[KeptCalls, tuple[Effect, ...]]:
    key = asked.key
    state, refused = _hear(state, key.task, asked.term)
    if refused or key in state.kept:
        return state, refused
    running = state.running.get(key)
    if running is not None:
        askers = {**running.askers, asked.asker: asked.term}
        joined = replace(running, askers=askers, orphaned_at=inf)
        return replace(state, running={**state.running, key: joined}), ()
    run = state.runs + 1
    begun = Running(run, {asked.asker: asked.term})
    return replace(state, running={**state.running, key: begun}, runs=run), (Begin(key, run),)


def _leave(state: KeptCalls, left: Left, now: float) -> tuple[KeptCalls, tuple[Effect, ...]]:
    key = left.key
    running = state.running.get(key)
    if running is None or left.asker not in running.askers:
        return state, ()
    term = running.askers[left.asker]
    askers = {one: of for one, of in running.askers.items() if one != left.asker}
    if askers:
        return replace(state, running={**state.running, key: replace(running, askers=askers)}), ()
    if left.takes_back and term >= state.fences.highest(key.task):
        return _stop(state, key)
    orphan = replace(running, askers={}, orphaned_at=now)
    state = replace(state, running={**state.running, key: orphan})
    orphans = [one for one, of in state.running.items() if of.orphaned_at < inf]
    if len(orphans) > ORPHANS_MAX:
        return _stop(state, min(orphans, key=lambda one: state.running[one].orphaned_at))
    return state, ()


def _stop(state: KeptCalls, *keys: CallKey) -> tuple[KeptCalls, tuple[Effect, ...]]:
    running = {key: one for key, one in state.running.items() if key not in keys}
    return replace(state, running=running), tuple(Stop(key) for key in keys)


def _end(state: KeptCalls, ended: Ended, now: float) -> tuple[KeptCalls, tuple[Effect, ...]]:
    key, running = ended.key, state.running.get(ended.key)
    if running is None or running.run != ended.run:
        return state, ()
    running_else = {one: of for one, of in state.running.items() if one != key}
    state = replace(state, running=running_else)
    if ended.size is None:
        return state, (Forget(key),)
    kept = {**state.kept, key: Kept(ended.size, now + KEPT_S)}
    size = sum(one.size for one in kept.values())
    forgotten: list[CallKey] = []
    while len(kept) > KEPT_MAX or size > KEPT_BYTES_MAX:
        oldest = next(iter(kept))
        size -= kept.pop(oldest).size
        forgotten.append(oldest)
    return replace(state, kept=kept), tuple(map(Forget, forgotten))


def _pass_time(state: KeptCalls, now: float) -> tuple[KeptCalls, tuple[Effect, ...]]:
    overdue = [key for key, one in state.running.items() if one.orphaned_at + ORPHAN_S <= now]
    state, effects = _stop(state, *overdue)
    old = [key for key, one in state.kept.items() if one.until <= now]
    if not old:
        return state, effects
    kept = {key: one for key, one in state.kept.items() if key not in old}
    return replace(state, kept=kept), (*effects, *map(Forget, old))


def check(state: KeptCalls) -> None:
    """What must hold after every step."""
    assert not state.running.keys() & state.kept.keys(), "one of a kind at a time"
    for one in state.running.values():
        assert bool(one.askers) == (one.orphaned_at == inf)
    assert sum(one.orphaned_at < inf for one in state.running.values()) <= ORPHANS_MAX
    assert len(state.kept) <= KEPT_MAX
    assert sum(one.size for one in state.kept.values()) <= KEPT_BYTES_MAX
