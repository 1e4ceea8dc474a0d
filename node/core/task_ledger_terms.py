"""Who leads a task: appointing a coordinator, losing it, and the next one.

A term is saved before it is granted, and granted to one peer alone. Who failed at a task is not
asked again before everybody has; how often, and after what pause, its `RetryPolicy` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from typing import Literal

from kowalski.mesh.core import rendezvous
from kowalski.node.core import retries
from kowalski.node.core.invariants import must
from kowalski.node.core.task_ledger_events import (
    CoordinatorDeclined,
    GrantTerm,
    PassCancel,
    Revoke,
    Save,
    Show,
    Task,
)
from kowalski.node.core.task_ledger_state import Step, TaskLedger, put
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import TaskSpec

STANDBYS = 2
HOLDERS_MAX = 8


def elect(state: TaskLedger, task: Task, why: str, now: float) -> Step:
    """Appoint the next coordinator: save the higher term, then grant it."""
    if task.cancel_reason is not None:
        return end_here(state, task, "cancelled", task.cancel_reason)
    weights = weights_of(state, task.spec)
    order = rendezvous.order(task.id, weights, excluding=task.excluded)
    if not order:
        # Nobody is here, or everybody has failed once: then we start over, but not in a hurry.
        nobody_since = task.nobody_since if weights else min(task.nobody_since, now)
        task = replace(task, excluded=(), nobody_since=nobody_since)
        return _wait(state, task, why or "no peer offers to coordinate", now, state.params.retry_s)
    former = task.former
    chosen = former if former is not None and former in order else order[0]
    others = [peer for peer in order if peer != chosen]
    standbys = _standbys(chosen, others, state.hosts)
    term, before = task.term + 1, task.holders
    must(term > task.term, "term_monotone", f"{task.id}: {term} after {task.term}")
    task = replace(
        task,
        state="running",
        term=term,
        coordinator=chosen,
        former=None,
        holders=tuple(dict.fromkeys((chosen, *standbys, *before)))[:HOLDERS_MAX],
        is_in_talks=True,
        declined=0,
        heard_at=now,
        act_at=now + state.params.renewal_s,
        why_waiting=why,
        nobody_since=inf,
    )
    state = replace(state, order=state.order.served(task.client, now))
    return put(state, task), (Save(task), GrantTerm(task, standbys, before), Show(task))


def weights_of(state: TaskLedger, spec: TaskSpec) -> Mapping[PeerId, float]:
    """Who may lead a task, and with what weight."""
    if spec.devices == "all":
        return state.weights
    return {peer: weight for peer, weight in state.weights.items() if peer == state.me}


def _standbys(
    chosen: PeerId, others: Iterable[PeerId], hosts: Mapping[PeerId, str]
) -> tuple[PeerId, ...]:
    """The next in order, on devices of their own where there are enough."""
    others = tuple(others)
    taken = {hosts.get(chosen, chosen)}
    apart: list[PeerId] = []
    for peer in others:
        if (host := hosts.get(peer, peer)) not in taken:
            taken.add(host)
            apart.append(peer)
    return tuple([*apart, *(peer for peer in others if peer not in apart)][:STANDBYS])


def _wait(
    state: TaskLedger,
    task: Task,
    why: str,
    now: float,
    pause_s: float,
    *,
    is_pausing: bool = False,
) -> Step:
    task = replace(
        task,
        state="waiting",
        coordinator=None,
        is_in_talks=False,
        act_at=now + pause_s,
        is_pausing=is_pausing,
        waiting_since=now,
        why_waiting=why,
    )
    return put(state, task), (Show(task),)


def lose(state: TaskLedger, task: Task, why: str, now: float) -> Step:
    """Its coordinator has failed: the next one, now or after a pause, if there may be one."""
    assert task.coordinator is not None
    failed = task.coordinator
    task = replace(task, excluded=tuple(dict.fromkeys((*task.excluded, failed))), coordinator=None)
    if task.cancel_reason is not None:
        return end_here(state, task, "cancelled", task.cancel_reason)
    if not retries.may_retry(task.spec, task.retries):
        detail = f"device_failed: {why}"
        if task.spec.failover != "fail":
            tried = task.retries + 1
            detail = f"no_coordinator: {tried} coordinators could not finish it; the last: {why}"
        return end_here(state, task, "failed", detail)
    pause_s = retries.pause_s(task.spec.retry, task.retries)
    return _replace(state, replace(task, retries=task.retries + 1), why, now, pause_s)


def _replace(state: TaskLedger, task: Task, why: str, now: float, pause_s: float = 0.0) -> Step:
    """Another coordinator, whoever's fault it is that one is needed."""
    if pause_s:
        state, effects = _wait(state, task, why, now, pause_s, is_pausing=True)
    else:
        state, effects = elect(state, task, why, now)
    return state, (Revoke(task.id), *effects)


def decline(state: TaskLedger, task: Task, event: CoordinatorDeclined, now: float) -> Step:
    """Its coordinator does not lead it, or not to the end."""
    match event.how:
        case "failed":
            return lose(state, task, event.why, now)
        case "leaving":
            excluded = (*task.excluded, task.coordinator) if task.coordinator else task.excluded
            return _replace(state, replace(task, excluded=excluded), event.why, now)
        case "unable":
            state, effects = _wait(state, task, event.why, now, state.params.unable_s)
            return state, (Revoke(task.id), *effects)
        case "busy":
            return _busy(state, task, event.why, now)


def _busy(state: TaskLedger, task: Task, why: str, now: float) -> Step:
    """Another one leads; where everybody is full, the same term waits, longer every time."""
    assert task.coordinator is not None
    excluded = (*task.excluded, task.coordinator)
    others = rendezvous.order(task.id, state.weights, excluding=excluded)
    if others or not state.is_here(task.coordinator):
        return _replace(state, replace(task, excluded=excluded), why, now)
    params = state.params
    wait_s = min(params.busy_s_max, params.retry_s * 2.0 ** min(task.declined, 10))
    task = replace(
        task,
        is_in_talks=False,
        declined=task.declined + 1,
        heard_at=now + wait_s,
        act_at=now + wait_s,
        why_waiting=why,
    )
    return put(state, task), (Show(task),)


def grant_again(state: TaskLedger, task: Task, now: float) -> Step:
    """The same term to the same peer, over a new conversation."""
    leader = task.coordinator
    assert leader is not None
    order = rendezvous.order(task.id, state.weights, excluding=(*task.excluded, leader))
    task = replace(task, is_in_talks=True, act_at=now + state.params.renewal_s)
    again = GrantTerm(task, _standbys(leader, order, state.hosts), task.holders)
    if task.cancel_reason is None:
        return put(state, task), (again,)
    return put(state, task), (again, PassCancel(task.id, task.term, task.cancel_reason))


def end_here(
    state: TaskLedger, task: Task, outcome: Literal["failed", "cancelled"], detail: str
) -> Step:
    """End a task that no coordinator can end."""
    closed = journal.Closed(outcome=outcome, answer="", detail=detail[:1024])
    task = replace(task, state=outcome, answer=closed, is_settled=True, act_at=inf)
    return put(state, task), (Save(task), Revoke(task.id), Show(task))
