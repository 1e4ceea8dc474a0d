"""The submitter's book: the only issuer of terms and the only acceptor of entries.

With one consumer of each result there is nothing to agree on: whoever submitted a task appoints
its coordinator, and takes what that one sends if it fits what was taken before. A term is saved
before it is granted, an entry before it is visible (docs/decisions/0004-the-submitter-issues-
terms.md).
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from kowalski.node.core import task_ledger_terms as terms
from kowalski.node.core.invariants import must
from kowalski.node.core.resuming import written_anew
from kowalski.node.core.task_ledger_events import (
    Accept,
    Append,
    CancelAsked,
    CoordinatorDeclined,
    CoordinatorHeard,
    CoordinatorLost,
    Decline,
    Effect,
    EntryHeard,
    Event,
    GrantTerm,
    PassCancel,
    Renew,
    Restored,
    ResumeAsked,
    Revoke,
    Save,
    SaveWithPast,
    SettledHeard,
    SettleTask,
    Show,
    Submitted,
    Task,
    TaskState,
    TimePassed,
    WeightsChanged,
)
from kowalski.node.core.task_ledger_state import (
    Params,
    Step,
    TaskLedger,
    check,
    due,
    end_by,
    next_turn,
    put,
    wake_at,
    why_refused,
)
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.task import Entry
from kowalski.rlm.journal import digest, event_of
from kowalski.rlm.references import refs_of

__all__ = [
    "Accept",
    "Append",
    "CancelAsked",
    "CoordinatorDeclined",
    "CoordinatorHeard",
    "CoordinatorLost",
    "Decline",
    "Effect",
    "EntryHeard",
    "Event",
    "GrantTerm",
    "Params",
    "PassCancel",
    "Renew",
    "Restored",
    "ResumeAsked",
    "Revoke",
    "Save",
    "SaveWithPast",
    "SettleTask",
    "SettledHeard",
    "Show",
    "Submitted",
    "Task",
    "TaskLedger",
    "TaskState",
    "TimePassed",
    "WeightsChanged",
    "check",
    "step",
    "wake_at",
    "why_refused",
]


def step(state: TaskLedger, event: Event, now: float) -> Step:
    match event:
        case Submitted():
            return _submitted(state, event, now)
        case Restored(task=task):
            return _restored(state, task, now)
        case WeightsChanged():
            return _weights_changed(state, event, now)
        case TimePassed():
            return _time_passed(state, now)
        case _:
            known = state.tasks.get(event.task)
            return (state, ()) if known is None else _about(state, known, event, now)


EventOfTask = (
    CoordinatorHeard
    | EntryHeard
    | CoordinatorLost
    | CoordinatorDeclined
    | CancelAsked
    | ResumeAsked
    | SettledHeard
)


def _about(state: TaskLedger, task: Task, event: EventOfTask, now: float) -> Step:
    match event:
        case EntryHeard(entry=entry):
            return _entry_heard(state, task, entry, now)
        case CancelAsked(reason=reason):
            return _cancel_asked(state, task, reason, now)
        case ResumeAsked():
            return _resume_asked(state, task, now)
        case _ if event.term != task.term or task.coordinator is None:
            return state, ()
        case CoordinatorHeard():
            return put(state, replace(task, heard_at=now, declined=0)), ()
        case CoordinatorLost(why=why):
            return _conversation_lost(state, task, why, now)
        case CoordinatorDeclined():
            return (state, ()) if task.is_over else terms.decline(state, task, event, now)
        case SettledHeard():
            return _settled(state, task)


# --- the life of a task -------------------------------------------------------------------------


def _submitted(state: TaskLedger, event: Submitted, now: float) -> Step:
    if event.task in state.tasks or why_refused(state, event.task, event.spec):
        return state, ()  # the same task, or the shell should have asked
    task = Task(
        id=event.task,
        spec=event.spec,
        submitted_unix_s=event.unix_s,
        client=event.client,
        act_at=now,
        waiting_since=now,
        deadline_at=now + event.spec.timeout_s,
    )
    if event.past:
        return _with_past(state, task, event.past)
    state = put(state, task)
    if next_turn(state, now) is not task and state.weights:
        words = f"its turn has not come: {state.running} tasks are led"
        task = replace(task, why_waiting=words)
        return put(state, task), (Save(task), Show(task))
    state, effects = terms.elect(state, task, "", now)
    # One write, so that a submit that fails has left nothing behind.
    is_saved = any(isinstance(effect, Save) for effect in effects)
    return state, effects if is_saved else (Save(task), *effects)


def _with_past(state: TaskLedger, task: Task, past: tuple[journal.SessionEvent, ...]) -> Step:
    """In the first term we wrote the journal ourselves; in the next somebody goes on with it."""
    entries, marks = written_anew(task.id, past, term=1)
    task = replace(
        task,
        term=1,
        entries=len(entries),
        digests=marks,
        why_waiting="to be gone on with",
    )
    contents = tuple(ref for event in past for ref in refs_of(event))
    return put(state, task), (SaveWithPast(task, entries, contents), Show(task))


def _resume_asked(state: TaskLedger, task: Task, now: float) -> Step:
    if task.state != "waiting":
        return state, ()
    task = replace(task, act_at=now, excluded=(), is_pausing=False)
    return put(state, task), ()


def _restored(state: TaskLedger, task: Task, now: float) -> Step:
    if task.is_over:
        return put(state, replace(task, is_settled=True)), ()
    former = task.holders[0] if task.holders else None
    is_awaited = former is not None and former not in state.weights
    task = replace(
        task,
        state="waiting",
        coordinator=None,
        former=former,
        act_at=now + (state.params.reunion_s if is_awaited else 0.0),
        is_pausing=is_awaited,
        waiting_since=now,
        deadline_at=now + task.spec.timeout_s,
        why_waiting="restarted",
    )
    return put(state, task), ()


def _weights_changed(state: TaskLedger, event: WeightsChanged, now: float) -> Step:
    """Who has lost its coordinator is due from now on, and so is who waits for somebody to come."""
    has_come = bool(event.weights.keys() - state.weights.keys())
    is_deserted = not event.weights
    state = replace(state, weights=event.weights, hosts=event.hosts, silent=event.silent)
    for task in tuple(state.tasks.values()):
        if task.state == "running" and not state.is_here(task.coordinator):
            state = put(state, replace(task, act_at=min(task.act_at, now)))
        elif task.state == "waiting":
            since = min(task.nobody_since, now) if is_deserted else inf
            is_reunited = task.former is not None and task.former in state.weights
            may_go = is_reunited or (has_come and not task.is_pausing)
            act_at = min(task.act_at, now) if may_go else task.act_at
            if (since, act_at) != (task.nobody_since, task.act_at):
                state = put(state, replace(task, nobody_since=since, act_at=act_at))
    return state, ()


def _conversation_lost(state: TaskLedger, task: Task, why: str, now: float) -> Step:
    if task.is_over:
        return _settled(state, task)
    if not state.is_here(task.coordinator):
        return terms.lose(state, task, why, now)
    # It is still there: grant the same term again, until silence has lasted too long.
    task = replace(task, is_in_talks=False, act_at=now + state.params.retry_s, why_waiting=why)
    return put(state, task), ()


# --- entries ------------------------------------------------------------------------------------


def _entry_heard(state: TaskLedger, task: Task, entry: Entry, now: float) -> Step:
    if task.state != "running" or entry.term != task.term:
        return _fence(state, task, entry, now)
    if entry.index != task.entries or entry.parent != task.last_digest:
        return _fence(state, task, entry, now)
    try:
        event = event_of(entry)
    except RemoteProtocolError as broken:
        return terms.lose(state, task, f"its coordinator sent nonsense: {broken}", now)
    mark = digest(task.id, entry)
    after = replace(
        task,
        entries=task.entries + 1,
        digests=(*task.digests, mark),
        heard_at=now,
        declined=0,
    )
    _check_accepted(task, after, entry)
    accept = Accept(task.id, entry.term, entry.index, mark)
    contents = tuple(refs_of(event))
    if not isinstance(event, journal.Closed):
        return put(state, after), (Append(after, entry, contents), accept, Show(after, entry))
    after = replace(after, state=event.outcome, answer=event, act_at=now + state.params.renewal_s)
    settle = SettleTask(task.id, task.term)
    written = Append(after, entry, contents)
    return put(state, after), (written, accept, Show(after, entry), settle)


def _check_accepted(before: Task, after: Task, entry: Entry) -> None:
    """What is about to become visible follows what is, was made in this term, and is new."""
    name = before.id
    must(before.answer is None, "visible_once", f"{name}: entry {entry.index} after the end")
    must(entry.index == before.entries, "visible_once", f"{name}: entry {entry.index} again")
    must(entry.parent == before.last_digest, "prefix_chain", f"{name}: entry {entry.index}")
    must(entry.term == after.term, "no_stale_visible", f"{name}: of term {entry.term}")


def _fence(state: TaskLedger, task: Task, entry: Entry, now: float) -> Step:
    """An entry that does not fit. One that is here already is acknowledged again."""
    is_known = entry.index < task.entries and digest(task.id, entry) == task.digests[entry.index]
    if is_known and entry.term == task.term and task.coordinator is not None:
        task = replace(task, heard_at=now)
        again = Accept(task.id, entry.term, entry.index, task.digests[entry.index])
        return put(state, task), (again,)
    return replace(state, fenced=state.fenced + 1), ()


# --- ends ---------------------------------------------------------------------------------------


def _cancel_asked(state: TaskLedger, task: Task, reason: str, now: float) -> Step:
    if task.is_over or task.cancel_reason is not None:
        return state, ()
    task = replace(task, cancel_reason=reason)
    if task.state == "waiting":
        return terms.end_here(state, task, "cancelled", reason)
    # The coordinator records it, with what there is of an answer; if it cannot, we do.
    task = replace(task, cancelled_at=now)
    return put(state, task), (Save(task), PassCancel(task.id, task.term, reason))


def _settled(state: TaskLedger, task: Task) -> Step:
    if not task.is_over:
        return state, ()
    return put(state, replace(task, is_settled=True, act_at=inf)), ()


# --- time ---------------------------------------------------------------------------------------


def _time_passed(state: TaskLedger, now: float) -> Step:
    """Everything that is due, but at most one thing for the disk, as the last.

    If that write fails, nothing of the step has happened that could not happen again; what is
    still due comes with the next step, at once.
    """
    effects: list[Effect] = []
    last: Task | None = None
    for name in [name for name, at in state.dues.items() if at <= now]:
        task = state.tasks[name]
        if _may_write(state, task, now):
            last = last or task
            continue
        state, more = _due_now(state, task, now)
        effects += more
    if last is not None:
        state, more = _due_now(state, last, now)
        return state, (*effects, *more)
    if turn := next_turn(state, now):
        state, more = terms.elect(state, turn, turn.why_waiting, now)
        return state, (*effects, *more)
    return state, tuple(effects)


def _may_write(state: TaskLedger, task: Task, now: float) -> bool:
    if task.is_over:
        return False
    is_silent = task.heard_at + state.params.silence_s <= now
    is_left = not state.is_here(task.coordinator)  # that of a waiting task is None
    return is_left or is_silent or end_by(state, task) <= now


def _due_now(state: TaskLedger, task: Task, now: float) -> Step:
    params = state.params
    if task.is_over:
        # Settled was never heard; the coordinator's own patience will end it.
        return put(state, replace(task, is_settled=True, act_at=inf)), (Revoke(task.id),)
    if end_by(state, task) <= now:
        if task.cancel_reason is not None:
            return terms.end_here(state, task, "cancelled", task.cancel_reason)
        return terms.end_here(state, task, "failed", _why_out_of_time(state, task, now))
    assert due(state, task) <= now
    if not state.is_here(task.coordinator):
        return terms.lose(state, task, "its coordinator has left", now)
    if task.heard_at + params.silence_s <= now:
        silent_s = now - task.heard_at
        return terms.lose(state, task, f"its coordinator was silent for {silent_s:.1f} s", now)
    if task.is_in_talks:
        task = replace(task, act_at=now + params.renewal_s)
        return put(state, task), (Renew(task.id, task.term),)
    return terms.grant_again(state, task, now)


def _why_out_of_time(state: TaskLedger, task: Task, now: float) -> str:
    if task.nobody_since + state.params.nobody_s <= now and task.spec.failover == "fail":
        return f"no_coordinator: {task.why_waiting}"
    return f"timeout: no end within {task.spec.timeout_s:g} s"
