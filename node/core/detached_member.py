"""One of the three peers that keep a detached task: who leads it, and what of its journal counts.

Its submitter has passed on what it alone has otherwise (docs/decisions/0004): from then on a term
wants two votes, and an entry counts, and is visible, once two hold it on disk. This is Raft with a
membership that never changes (Ongaro and Ousterhout, 2014), its log the journal of the task. A
leader adds nothing of its own to a journal, so it could not commit entries of earlier terms as
Raft does. Instead each member keeps the term in which a leader has last `confirmed` its log, and
votes compare that first (Liskov and Cowling, Viewstamped Replication Revisited, 2012, "last normal
view"). A vote is tried before a term is raised (Ongaro's thesis, 9.6), so that a member that was
cut off disturbs nobody when it comes back.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from kowalski.node.core import retries
from kowalski.node.core.detached_state import (
    Accept,
    Answer,
    AskVotes,
    CancelWanted,
    Close,
    CoordinatorLost,
    Effect,
    Event,
    Granted,
    Held,
    HeldHeard,
    Lead,
    LogOffered,
    Member,
    Note,
    Offer,
    OfferLost,
    PassCancel,
    Reachable,
    ResumeWanted,
    Retire,
    Show,
    Step,
    TimePassed,
    VoteHeard,
    VoteWanted,
    Write,
    Written,
    Yielded,
    check,
    wake_at,
)
from kowalski.node.core.invariants import must
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.task import Digest

__all__ = ["check", "step", "wake_at"]


def step(state: Member, event: Event, now: float) -> Step:
    match event:
        case TimePassed():
            return _time_passed(state, now)
        case Reachable(peers=peers):
            return _reachable(state, peers, now)
        case VoteWanted():
            return _vote_wanted(state, event, now)
        case VoteHeard():
            return _vote_heard(state, event, now)
        case LogOffered():
            return _log_offered(state, event, now)
        case HeldHeard():
            return _held_heard(state, event, now)
        case OfferLost(peer=peer):
            return replace(state, in_flight=state.in_flight - {peer}), ()
        case Written():
            return _written(state, event)
        case CoordinatorLost():
            return _coordinator_lost(state, event, now)
        case CancelWanted(reason=reason):
            return _cancel_wanted(state, reason, now)
        case ResumeWanted():
            is_pausing = now < state.lead_at < inf and state.closing is None
            return (replace(state, lead_at=now) if is_pausing else state), ()
        case Yielded():
            return _hand_over(state, now) if state.role == "leader" else (state, ())


# --- time ---------------------------------------------------------------------------------------


def _time_passed(state: Member, now: float) -> Step:
    led: tuple[Effect, ...] = ()
    if state.lead_at <= now and state.closing is not None:
        # Until it is written.
        led = (state.closing,)
        state = replace(state, lead_at=now + state.params.again_s)
    elif state.lead_at <= now:
        state, led = replace(state, lead_at=inf), (Lead(state.term),)
    if state.act_at > now:
        return state, led
    if state.role == "leader":
        state, effects = _pulse(state, now)
        return state, (*led, *effects)
    if not state.others & state.reachable:
        return replace(state, act_at=now + state.params.pulse_s), ()  # alone, nobody is elected
    state = replace(
        state,
        role="trial",
        leader=None,
        votes=frozenset({state.me}),
        act_at=now + state.params.vote_s + state.rank * state.params.stagger_s,
    )
    return state, (AskVotes(state.term + 1, state.confirmed, state.entries, is_trial=True),)


def _pulse(state: Member, now: float) -> Step:
    if state.is_over:
        is_known = all(state.told.get(one, 0) >= state.entries for one in state.others)
        if is_known:
            return replace(state, act_at=inf), ()
        return _offer(replace(state, act_at=now + state.params.over_pulse_s))
    if not any(now < at + state.params.silence_s for at in state.answered_at.values()):
        # Whoever has a majority may have elected another one.
        return _rest(state, now + state.timeout_s), (Retire(),)
    return _offer(replace(state, act_at=now + state.params.pulse_s))


def _rest(state: Member, act_at: float) -> Member:
    """No longer a leader, or a candidate."""
    return replace(
        state,
        role="follower",
        leader=None,
        votes=frozenset(),
        in_flight=frozenset(),
        lead_at=inf,
        closing=None,
        act_at=act_at,
    )


def _hand_over(state: Member, now: float) -> Step:
    """Another one of the group shall lead; we come last."""
    last = tuple(
        Offer(one, state.term, state.held.get(one, state.entries), is_leaving=True)
        for one in state.group
        if one != state.me
    )
    rested = _rest(state, now + 2 * state.params.silence_s)
    return replace(rested, losses=0, handed_over=state.term), (Retire(), *last)


def _reachable(state: Member, peers: frozenset[PeerId], now: float) -> Step:
    state = replace(state, reachable=peers)
    is_left = state.leader not in {None, state.me} and state.leader not in peers
    if state.role == "follower" and is_left and not state.is_over:
        # The mesh has given the leader up: earlier than its silence would tell.
        soon = now + (1 + state.rank) * state.params.stagger_s
        state = replace(state, act_at=min(state.act_at, soon))
    return state, ()


# --- votes --------------------------------------------------------------------------------------


def _raise(state: Member, term: int, act_at: float) -> tuple[Member, tuple[Effect, ...]]:
    """Follow in a higher term. What this leads to is not yet durable."""
    must(term > state.term, "term_monotone", f"{term} after {state.term}")
    was_leader = state.role == "leader"
    state = replace(_rest(state, act_at), term=term, voted_for=None)
    return state, (Retire(),) if was_leader else ()


def _vote_wanted(state: Member, wanted: VoteWanted, now: float) -> Step:
    is_current = (wanted.confirmed, wanted.entries) >= (state.confirmed, state.entries)
    effects: tuple[Effect, ...] = ()
    if state.is_over and not is_current:
        # It has not heard of the end: a leader has to tell, and if there is none, to be elected.
        state = replace(state, told={**state.told, wanted.peer: 0})
        act_at = now + (1 + state.rank) * state.params.stagger_s
        state = replace(state, act_at=min(state.act_at, act_at))
    if wanted.is_trial or _hears_leader(state, now):
        may = wanted.term > state.term and is_current and not _hears_leader(state, now)
        return state, (Answer(Granted(state.term, is_granted=may)),)
    if wanted.term > state.term:
        state, effects = _raise(state, wanted.term, now + state.timeout_s)
        effects = (Note(state), *effects)
    is_free = state.voted_for in {None, wanted.peer}
    if wanted.term < state.term or not is_current or not is_free:
        return state, (*effects, Answer(Granted(state.term, is_granted=False)))
    state = replace(state, voted_for=wanted.peer, act_at=now + state.timeout_s)
    retired = tuple(one for one in effects if isinstance(one, Retire))
    return state, (Note(state), *retired, Answer(Granted(state.term, is_granted=True)))


def _hears_leader(state: Member, now: float) -> bool:
    """A leader that is well is not voted out of office."""
    if state.role == "leader":
        return any(now < at + state.params.silence_s for at in state.answered_at.values())
    is_recent = now < state.heard_at + state.params.silence_s
    return state.leader in state.reachable and is_recent


def _vote_heard(state: Member, heard: VoteHeard, now: float) -> Step:
    if heard.term > state.term:
        state, effects = _raise(state, heard.term, now + (1 + state.rank) * state.params.stagger_s)
        return state, (Note(state), *effects)
    if not heard.is_granted or heard.peer not in state.others:
        return state, ()
    if heard.is_trial and state.role == "trial" and heard.asked_term == state.term + 1:
        votes = state.votes | {heard.peer}
        if len(votes) < state.majority:
            return replace(state, votes=votes), ()
        return _stand(state, now)
    if not heard.is_trial and state.role == "candidate" and heard.asked_term == state.term:
        votes = state.votes | {heard.peer}
        if len(votes) < state.majority:
            return replace(state, votes=votes), ()
        return _win(replace(state, votes=votes), now)
    return state, ()


def _stand(state: Member, now: float) -> Step:
    state = replace(
        state,
        role="candidate",
        term=state.term + 1,
        voted_for=state.me,
        votes=frozenset({state.me}),
        act_at=now + state.params.vote_s + state.rank * state.params.stagger_s,
    )
    ask = AskVotes(state.term, state.confirmed, state.entries, is_trial=False)
    return state, (Note(state), ask)


def _win(state: Member, now: float) -> Step:
    must(len(state.votes) >= state.majority, "detached_majority", f"term {state.term}")
    led_before = state.confirmed
    state = replace(
        state,
        role="leader",
        leader=state.me,
        confirmed=state.term,
        base=state.entries,
        held={},
        told={},
        answered_at=dict.fromkeys(state.votes - {state.me}, now),
        act_at=now + state.params.pulse_s,
    )
    lead: tuple[Effect, ...] = ()
    if state.ends_at is None:
        # Who was confirmed has led, unless that one has left it to others: it is lost.
        is_lost = led_before > state.handed_over
        if is_lost:
            state = _begin_again(state, "its leader was lost", now, 0.0)
        if not is_lost or (state.lead_at <= now and state.closing is None):
            state, lead = replace(state, lead_at=inf), (Lead(state.term),)
    noted = Note(state)
    state, offers = _offer(state)
    return state, (noted, *lead, *offers)


# --- the log, as a follower ---------------------------------------------------------------------


def _log_offered(state: Member, offered: LogOffered, now: float) -> Step:
    if offered.term < state.term or offered.peer not in state.others:
        return state, (Answer(Held(state.term, 0, 0)),)
    effects: tuple[Effect, ...] = ()
    must(
        offered.term > state.term or state.role != "leader",
        "one_coordinator_per_term",
        f"two leaders of term {offered.term}",
    )
    before = state
    if offered.term > state.term:
        state, effects = _raise(state, offered.term, now)
    state = replace(
        _rest(state, now + state.timeout_s),
        leader=offered.peer,
        heard_at=now,
        retries=max(state.retries, min(offered.retries, state.retries_max)),
    )
    if offered.is_leaving:
        state = _left(state, now)
    if state.mark_before(offered.start) != offered.parent:
        noted = (Note(state),) if state.durable != before.durable else ()
        held = Held(state.term, min(state.committed, offered.start), state.committed)
        return state, (*noted, *effects, Answer(held))
    state, written = _take(state, offered)
    is_noted = not written and state.durable != before.durable
    noted = (Note(state),) if is_noted else ()
    held_now = offered.start + len(offered.marks)
    committed = max(state.committed, min(offered.committed, held_now))
    shown: tuple[Effect, ...] = ()
    if committed > state.committed:
        shown = (Show(state.committed, committed),)
    was_over, state = state.is_over, replace(state, committed=committed)
    if state.is_over:
        state = replace(state, act_at=inf)
        shown = shown if was_over else (Note(state), *shown)
    answer = Answer(Held(state.term, held_now, committed))
    return state, (*written, *noted, *effects, *shown, answer)


def _left(state: Member, now: float) -> Member:
    """Our leader has handed over: we stand at once, unless that is the custom of late."""
    is_rare = now > state.handed_over_at + 2 * state.params.silence_s
    soon_s = (1 + state.rank) * state.params.stagger_s if is_rare else state.timeout_s
    return replace(
        state,
        leader=None,
        heard_at=-inf,
        handed_over=state.term,
        handed_over_at=now,
        act_at=now + soon_s,
    )


def _take(state: Member, offered: LogOffered) -> Step:
    """Entries that stand on ours: what we have already stays, what contradicts it goes.

    Once all is here that the leader began with, the rest of ours is of no term that counts.
    """
    same = 0
    for ours, theirs in zip(state.marks[offered.start :], offered.marks, strict=False):
        if ours != theirs:
            break
        same += 1
    end = offered.start + len(offered.marks)
    confirms = end >= offered.base and state.confirmed < offered.term
    keeps_rest = same == len(offered.marks) and not confirms
    rest = state.marks[end:] if keeps_rest else ()
    marks = (*state.marks[: offered.start], *offered.marks, *rest)
    state = replace(state, confirmed=offered.term if confirms else state.confirmed)
    if marks == state.marks:
        return state, ()
    cut_to = offered.start + same
    must(cut_to >= state.committed, "detached_majority", f"{cut_to} of {state.committed} stay")
    is_end = bool(offered.marks and offered.ends) or state.ends_at == len(marks) == end == cut_to
    state = replace(state, marks=marks, ends_at=len(marks) if is_end else None)
    return state, (Write(state, cut_to, offered.entries[same:]),)


# --- the log, as a leader -----------------------------------------------------------------------


def _offer(state: Member) -> Step:
    """To everybody who is not being offered something already."""
    idle = [one for one in state.group if one in state.others - state.in_flight]
    offers = tuple(Offer(one, state.term, state.held.get(one, state.entries)) for one in idle)
    return replace(state, in_flight=state.in_flight | set(idle)), offers


def _held_heard(state: Member, heard: HeldHeard, now: float) -> Step:
    if heard.term > state.term:
        state, effects = _raise(state, heard.term, now + state.timeout_s)
        return state, (Note(state), *effects)
    if state.role != "leader" or heard.term != state.term or heard.peer not in state.others:
        return state, ()
    peer = heard.peer
    state = replace(
        state,
        in_flight=state.in_flight - {peer},
        held={**state.held, peer: min(heard.held, state.entries)},
        told={**state.told, peer: heard.committed},
        answered_at={**state.answered_at, peer: now},
    )
    state, effects = _commit(state)
    lacks = state.held[peer] < state.entries or state.told[peer] < state.committed
    if lacks or effects:
        state, offers = _offer(state)
        effects = (*effects, *offers)
    return state, effects


def _commit(state: Member) -> Step:
    """What a majority holds, once it holds all that was there when our term began."""
    held = sorted((state.entries, *(state.held.get(one, 0) for one in state.others)), reverse=True)
    common = held[state.majority - 1]
    if common < state.base or common <= state.committed:
        return state, ()
    accepted = tuple(
        Accept(state.term, index, state.marks[index]) for index in range(state.committed, common)
    )
    shown = Show(state.committed, common)
    state = replace(state, committed=common)
    noted = (Note(state),) if state.is_over else ()
    return state, (*noted, *accepted, shown)


def _written(state: Member, written: Written) -> Step:
    """Take an entry of our coordinator's, if it fits."""
    entry = written.entry
    if state.role != "leader" or entry.term != state.term:
        return state, ()
    if entry.index < state.committed and state.marks[entry.index] == written.mark:
        return state, (Accept(state.term, entry.index, written.mark),)
    fits = entry.index == state.entries and entry.parent == state.mark_before(state.entries)
    if not fits or state.ends_at is not None:
        return state, ()
    marks: tuple[Digest, ...] = (*state.marks, written.mark)
    state = replace(state, marks=marks, ends_at=len(marks) if written.ends else None)
    if written.ends:
        state = replace(state, lead_at=inf, closing=None)
    write = Write(state, entry.index, (entry,))
    state, offers = _offer(state)
    return state, (write, *offers)


def _coordinator_lost(state: Member, lost: CoordinatorLost, now: float) -> Step:
    if state.role != "leader" or lost.term != state.term or state.ends_at is not None:
        return state, ()
    if lost.is_declined:
        return _hand_over(state, now)
    losses = state.losses + 1 if state.entries == state.lost_at else 1
    state = replace(state, losses=losses, lost_at=state.entries)
    state = _begin_again(state, lost.why, now, state.params.again_s * 2 ** (losses - 1))
    if state.closing is None and losses >= state.params.losses_max:
        state, effects = _hand_over(state, now)
        return state, (Note(state), *effects)
    return state, (Note(state),)


def _begin_again(state: Member, why: str, now: float, pause_s_min: float) -> Member:
    """A coordinator was lost: when there is another, if there may be one."""
    if not retries.may_retry(state, state.retries):
        detail = f"device_failed: {why}"
        if state.failover != "fail":
            tried = state.retries + 1
            detail = f"no_coordinator: {tried} coordinators could not finish it; the last: {why}"
        return replace(state, lead_at=now, closing=Close("failed", detail[:1024]))
    pause_s = max(pause_s_min, retries.pause_s(state.retry, state.retries))
    return replace(state, lead_at=now + pause_s, retries=min(state.retries + 1, state.retries_max))


def _cancel_wanted(state: Member, reason: str, now: float) -> Step:
    if state.role != "leader" or state.ends_at is not None or state.closing is not None:
        return state, ()
    if state.lead_at < inf:
        return replace(state, lead_at=now, closing=Close("cancelled", reason[:1024])), ()
    return state, (PassCancel(state.term, reason),)
