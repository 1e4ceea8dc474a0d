"""Whether the others are there: SWIM probes, with Lifeguard's modesty about our own health.

Members are probed in turn. One that gives no sign of life is probed again, and by helpers; if they
hear nothing either, it is suspect, the mesh is told, and it has some time to contradict before it
is `failed`. Suspects hear of it first, and a few others look for themselves. Who said anything of
its own meanwhile is not accused. A node that was late, asleep, heard answers when they were
overdue, or heard from none of its helpers, trusts itself less: it waits longer, gives suspects more
time, and says less, since where all are short of time news is what they drown in.

Sources: SWIM (Das, Gupta, Motivala, DSN 2002), Lifeguard (arXiv 1707.00788); the constants that are
not ours are those of hashicorp/memberlist. What a claim is worth stands in `membership`, how long a
suspect has in `suspicion`.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from kowalski.mesh.core import membership, rumours
from kowalski.mesh.core.evolving import evolve
from kowalski.mesh.core.failure_detector_events import (
    Answer,
    AnswerHelp,
    AnswerSync,
    AskHelp,
    AskSync,
    CheckConnections,
    Claims,
    ConnectionLost,
    Effect,
    Event,
    Heard,
    HelpAnswered,
    HelpAsked,
    HelpFailed,
    Leave,
    LookAtTheClock,
    MemberExpelled,
    MemberMet,
    PeerMissed,
    Probe,
    ProbeAnswered,
    ProbeFailed,
    ProbeHeard,
    RequestUnanswered,
    SpokenBy,
    SyncAnswered,
    SyncAsked,
    Tell,
    TimePassed,
    Told,
    Woke,
)
from kowalski.mesh.core.failure_detector_state import (
    FailureDetector,
    Probing,
    Step,
    draw,
    interval_s,
    pick,
    say,
    shuffled,
    suspicions_changed,
    sync_s,
    timeout_s,
    worse,
)
from kowalski.mesh.core.hearsay import hear, pronounce, settle, spoke
from kowalski.mesh.core.membership import Claim, Held
from kowalski.protocol.ids import PeerId

PROBES_MAX = 64
"""Under way at a time, ours and those for others."""

ROWS_PER_MESSAGE = 1024
"""Claims in one message of a comparison of tables."""

GOODBYES = 16
"""Members who are told themselves that we leave; they tell the rest."""

HELP_SHARE = 0.8
"""Of the asker's patience: a helper says in time that it heard nothing (Lifeguard's nack)."""


def wake_at(state: FailureDetector) -> float:
    if state.table.has_left:
        return inf
    at = min(state.probe_at, state.gossip_at, state.sync_at, state.verdict_at)
    for probing in state.probes.values():
        at = min(at, probing.due_at)
    return at


def step(state: FailureDetector, event: Event, now: float) -> Step:
    if isinstance(event, SpokenBy):
        state = spoke(state, event.peer, now)
    match event:
        case (
            ProbeHeard(number=number, peer=peer, claims=claims)
            | Told(number=number, peer=peer, claims=claims)
        ):
            state, effects = hear(state, claims, now)
            state, words = say(state, peer)
            return state, (*effects, Answer(number, words))
        case ProbeAnswered():
            return _answered(state, event, now)
        case TimePassed():
            return _time_passed(state, now)
        case Heard(claims=claims):
            return hear(state, claims, now)
        case ProbeFailed(number=number):
            return _sending_failed(state, number, now)
        case HelpAsked():
            return _help_asked(state, event, now)
        case HelpAnswered() | HelpFailed():
            return _help_came(state, event, now)
        case MemberMet():
            return _met(state, event, now)
        case MemberExpelled(peer=peer):
            return settle(_expelled(state, peer, now), now)
        case ConnectionLost(peer=peer):
            return _look_closer(state, peer, now)
        case RequestUnanswered(peer=peer):
            return _look(state, peer, now)
        case SyncAsked(number=number, digest=digest):
            rows = () if digest == state.table.digest else _some_rows(state)
            return state, (AnswerSync(number, state.table.digest, rows),)
        case SyncAnswered():
            return _synced(state, event, now)
        case Woke():
            return _came_back(state, now)
        case Leave():
            return _left(state)


# --- time -----------------------------------------------------------------------------------------


def _time_passed(state: FailureDetector, now: float) -> Step:
    due_at = wake_at(state)
    if due_at > now:
        return state, ()
    effects: list[Effect] = []
    if now - due_at >= state.params.away_s:
        state, more = _came_back(state, now)
        effects += more
    elif now - due_at > state.params.late_s:
        state = _excused(state, now - due_at, now)
    for number, probing in tuple(state.probes.items()):
        if probing.due_at <= now:
            state, more = _silence(state, number, probing, now)
            effects += more
    while state.verdict_at <= now:  # fewer members, shorter waits
        state, more = pronounce(state, now)
        effects += more
    if state.is_partition:
        state, more = settle(state, now)
        effects += more
    if state.probe_at <= now:
        state, more = _probe_next(state, now)
        effects += more
    if state.gossip_at <= now:
        state, more = _gossip(state, now)
        effects += more
    if state.sync_at <= now:
        state, more = _sync_next(state, now)
        effects += more
    return state, tuple(effects)


def _excused(state: FailureDetector, late_s: float, now: float) -> FailureDetector:
    """We were late: answers may lie unread. Wait for them once more, and trust ourselves less."""
    state = worse(state, 1)
    until = now + timeout_s(state)
    probes = {
        number: replace(each, due_at=max(each.due_at, until))
        for number, each in state.probes.items()
    }
    suspicions = {
        peer: replace(each, since=min(now, each.since + late_s))
        for peer, each in state.suspicions.items()
    }
    return suspicions_changed(evolve(state, probes=probes), suspicions, now)


def _came_back(state: FailureDetector, now: float) -> Step:
    """From sleep, or a long stop. Hear how we stand with the others before we say anything."""
    state = _excused(state, inf, now)
    state, asked = pick(state, state.params.helpers)
    syncs = tuple(AskSync(peer, state.table.digest) for peer in asked)
    return state, (CheckConnections(), *syncs)


# --- probing --------------------------------------------------------------------------------------


def _probe_next(state: FailureDetector, now: float) -> Step:
    table, turns, turn = state.table, state.turns, state.turn
    while turn < len(turns) and not table.is_living(turns[turn]):
        turn += 1
    if turn == len(turns):
        state = shuffled(state)
        turns, turn = state.turns, 0
        if not turns:
            later = evolve(state, probe_at=now + state.params.alone_s)
            return later, (LookAtTheClock(),)
    period_s = interval_s(state) * (state.health + 1)
    state = evolve(state, turn=turn + 1, probe_at=now + period_s)
    return _look(state, turns[turn], now)


def _is_probing(state: FailureDetector, peer: PeerId) -> bool:
    return any(one.peer == peer and one.for_number is None for one in state.probes.values())


def _look(state: FailureDetector, peer: PeerId, now: float) -> Step:
    """Probe a peer now, unless it is being probed."""
    if (
        not state.table.is_living(peer)
        or len(state.probes) >= PROBES_MAX
        or _is_probing(state, peer)
    ):
        return state, ()
    return _send(state, Probing(peer, now + timeout_s(state)), 2 * timeout_s(state))


def _send(state: FailureDetector, probing: Probing, patience_s: float) -> Step:
    state, words = say(state, probing.peer)
    number = state.number + 1
    state = evolve(state, number=number, probes={**state.probes, number: probing})
    return state, (Probe(number, probing.peer, words, patience_s),)


def _look_closer(state: FailureDetector, peer: PeerId, now: float) -> Step:
    """Probe at once, directly and through helpers: there is evidence already."""
    state, sent = _look(state, peer, now)
    effects: list[Effect] = list(sent)
    for number, probing in tuple(state.probes.items()):
        if probing.peer == peer and probing.for_number is None and not probing.is_indirect:
            state, more = _call_for_help(state, number, probing, now)
            effects += more
    return state, tuple(effects)


def _call_for_help(state: FailureDetector, number: int, probing: Probing, now: float) -> Step:
    patience_s = timeout_s(state)
    # Of one that has spoken meanwhile there is nothing to learn from others.
    count = 0 if probing.is_heard else state.params.helpers
    state, helpers = pick(state, count, but=probing.peer)
    asked = replace(probing, is_indirect=True, asked=len(helpers), due_at=now + patience_s)
    state = evolve(state, probes={**state.probes, number: asked})
    effects: list[Effect] = []
    for helper in helpers:
        state, words = say(state, helper)
        effects.append(AskHelp(number, helper, probing.peer, words, patience_s))
    return state, tuple(effects)


def _silence(state: FailureDetector, number: int, probing: Probing, now: float) -> Step:
    """No sign of life by the time it was due."""
    if probing.for_number is not None:
        return _no_help(state, number, probing)
    missed = PeerMissed(probing.peer)
    if probing.is_indirect:
        state, effects = _accuse_missing(state, number, probing, now)
        return state, (missed, *effects)
    state, effects = _call_for_help(state, number, probing, now)
    state, words = say(state, probing.peer)
    retry = Probe(number, probing.peer, words, timeout_s(state))
    return state, (missed, retry, *effects)


def _sending_failed(state: FailureDetector, number: int, now: float) -> Step:
    probing = state.probes.get(number)
    if probing is None:
        return state, ()
    if not probing.is_indirect or probing.for_number is not None:
        return _silence(state, number, probing, now)
    failed = replace(probing, retry_failed=True)
    return _if_hopeless(evolve(state, probes={**state.probes, number: failed}), number, now)


def _help_came(state: FailureDetector, event: HelpAnswered | HelpFailed, now: float) -> Step:
    effects: tuple[Effect, ...] = ()
    if isinstance(event, HelpAnswered):
        state, effects = hear(state, event.claims, now)
    probing = state.probes.get(event.number)
    if probing is None or probing.for_number is not None:
        return state, effects
    if isinstance(event, HelpFailed):
        probing = replace(probing, unasked=probing.unasked + 1)
    elif event.has_reached:
        # That they reached it and we did not is no sign of our health.
        return _without_probe(state, event.number), effects
    else:
        probing = replace(probing, told=probing.told + 1)
    state = evolve(state, probes={**state.probes, event.number: probing})
    state, more = _if_hopeless(state, event.number, now)
    return state, (*effects, *more)


def _if_hopeless(state: FailureDetector, number: int, now: float) -> Step:
    """Nobody is left of whom a sign of life could come."""
    probing = state.probes[number]
    if probing.retry_failed and probing.told + probing.unasked >= probing.asked:
        state, effects = _accuse_missing(state, number, probing, now)
        return state, (PeerMissed(probing.peer), *effects)
    return state, ()


def _answered(state: FailureDetector, event: ProbeAnswered, now: float) -> Step:
    state, effects = hear(state, event.claims, now)
    probing = state.probes.get(event.number)
    if probing is None:
        return state, effects
    state = _without_probe(state, event.number)
    if probing.for_number is not None:
        state, words = say(state, probing.peer)
        return state, (*effects, AnswerHelp(probing.for_number, has_reached=True, claims=words))
    # Overdue: it, or we, or what is between us has less time than we thought.
    return worse(state, 1 if probing.is_indirect else -1), effects


def _without_probe(state: FailureDetector, number: int) -> FailureDetector:
    return evolve(state, probes={key: one for key, one in state.probes.items() if key != number})


# --- helping others -------------------------------------------------------------------------------


def _help_asked(state: FailureDetector, event: HelpAsked, now: float) -> Step:
    state, effects = hear(state, event.claims, now)
    target = event.target
    if target not in state.table.members or len(state.probes) >= PROBES_MAX:
        has_reached = target == state.me
        state, words = say(state, event.peer)
        return state, (*effects, AnswerHelp(event.number, has_reached, words))
    patience_s = HELP_SHARE * min(event.within_s, timeout_s(state))
    helping = Probing(target, now + patience_s, for_number=event.number)
    state, sent = _send(state, helping, patience_s)
    return state, (*effects, *sent)


def _no_help(state: FailureDetector, number: int, probing: Probing) -> Step:
    assert probing.for_number is not None
    state = _without_probe(state, number)
    state, words = say(state, probing.peer)
    return state, (AnswerHelp(probing.for_number, has_reached=False, claims=words),)


# --- suspicion ------------------------------------------------------------------------------------


def _accuse_missing(state: FailureDetector, number: int, probing: Probing, now: float) -> Step:
    """Neither we nor any helper heard from it: suspect it, unless we are the one that is ill."""
    state = _without_probe(state, number)
    if probing.is_heard:
        return worse(state, 1), ()
    known = state.table.members.get(probing.peer)
    if known is None or not known.is_living:
        return state, ()
    already = state.suspicions.get(probing.peer)
    if already is None or state.me not in already.accusers:
        # Helpers that did not even say no: rather our link than all of theirs. Where nobody could
        # be asked, silence may be our own fault, and a connection that is refused is not.
        silent = probing.asked - probing.told
        unsure = 0 if probing.retry_failed else 1
        state = worse(state, silent if probing.asked else unsure)
    return hear(state, (Claim(probing.peer, "suspect", known.incarnation, state.me),), now)


# --- passing news on ------------------------------------------------------------------------------


def _gossip(state: FailureDetector, now: float) -> Step:
    """Pass news on to a few, again and again until it is old."""
    state, peers = pick(state, state.params.gossip_peers)
    effects: list[Effect] = []
    for peer in peers:
        if state.rumours.waiting:
            state, words = say(state, peer)
            effects.append(Tell(peer, words))
    is_done = not state.rumours.waiting or not peers
    at = inf if is_done else now + state.params.gossip_s * (state.health + 1)
    return evolve(state, gossip_at=at), tuple(effects)


# --- comparing tables -----------------------------------------------------------------------------


def _sync_next(state: FailureDetector, now: float) -> Step:
    table = membership.bury(state.table, now, after_s=state.params.bury_s)
    state, lot = draw(evolve(state, table=table), 1024)
    state = evolve(state, sync_at=now + sync_s(state) * (0.9 + 0.2 * lot / 1024))
    state, peers = pick(state, 1)
    return state, tuple(AskSync(peer, table.digest) for peer in peers)


def _some_rows(state: FailureDetector) -> Claims:
    rows = tuple(membership.rows(state.table))
    if len(rows) <= ROWS_PER_MESSAGE:
        return rows
    # A window that moves with the state of chance; over time all rows have their turn.
    start = state.chance % len(rows)
    return (*rows[start:], *rows[:start])[:ROWS_PER_MESSAGE]


def _synced(state: FailureDetector, event: SyncAnswered, now: float) -> Step:
    if not event.rows:
        return state, ()
    state, effects = hear(state, event.rows, now)
    ours = membership.better_rows(state.table, event.rows)[:ROWS_PER_MESSAGE]
    return state, (*effects, Tell(event.peer, ours)) if ours else effects


# --- coming and going -----------------------------------------------------------------------------


def _met(state: FailureDetector, event: MemberMet, now: float) -> Step:
    peer = event.peer
    state, effects = hear(state, (Claim(peer, "alive", event.incarnation),), now)
    if state.table.state_of(peer) not in {"alive", None}:
        # It was given up, and is here: it shall know, and contradict.
        state, words = say(state, peer)
        effects = (*effects, Tell(peer, words))
    if state.me < peer:
        effects = (*effects, AskSync(peer, state.table.digest))
    return state, effects


def _expelled(state: FailureDetector, peer: PeerId, now: float) -> FailureDetector:
    gone = evolve(
        state,
        table=membership.expel(state.table, peer),
        rumours=rumours.drop(state.rumours, peer),
        probes={
            number: one
            for number, one in state.probes.items()
            if one.peer != peer or one.for_number is not None
        },
    )
    others = {name: one for name, one in state.suspicions.items() if name != peer}
    return suspicions_changed(gone, others, now)


def _left(state: FailureDetector) -> Step:
    state = evolve(state, table=membership.leave(state.table))
    state, peers = pick(state, GOODBYES)
    goodbye = (state.table.own_claim(),)
    return state, tuple(Tell(peer, goodbye) for peer in peers)


def check(state: FailureDetector) -> None:
    """What must hold after every step."""
    check_news(state, None)


def check_news(state: FailureDetector, held: Held | None) -> Held:
    """`check`, given what has held of the same node's table; see `membership.check_news`."""
    held = membership.check_news(state.table, held)
    assert 0 <= state.health <= state.params.health_max
    assert len(state.probes) <= PROBES_MAX
    assert state.suspicions.keys() == held.suspects
    for peer, each in state.suspicions.items():
        assert each.incarnation == state.table.members[peer].incarnation
        assert len(each.accusers) <= state.params.suspicion.confirmations + 1
    assert held.living.issubset(state.turns) or state.table.has_left
    assert not held.living or state.probe_at < inf or state.table.has_left
    return held
