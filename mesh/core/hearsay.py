"""What others say of members, and what follows from it.

News is passed on, suspicions begin and end, verdicts are pronounced; nobody is asked anything here.
See `failure_detector`.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from math import inf

from kowalski.mesh.core import membership, suspicion
from kowalski.mesh.core.evolving import evolve
from kowalski.mesh.core.failure_detector_events import (
    Claims,
    Effect,
    KeepIncarnation,
    MemberChanged,
    PartitionOver,
    PartitionSuspected,
)
from kowalski.mesh.core.failure_detector_state import (
    FailureDetector,
    Step,
    draw,
    interval_s,
    is_mass_failure,
    shuffled,
    spread,
    suspicions_changed,
    sync_s,
    worse,
)
from kowalski.mesh.core.membership import Claim
from kowalski.mesh.core.suspicion import Suspicion
from kowalski.protocol.ids import PeerId

FAILURES_KEPT_S = 120.0
"""Longer than any suspicion lasts."""

FAILURES_KEPT_MAX = 1024


def hear(state: FailureDetector, claims: Claims, now: float) -> Step:
    """Take in claims, whoever made them."""
    if not claims:
        return state, ()
    effects: list[Effect] = []
    for claim in claims:
        if claim.peer == state.me:
            state, more = _about_us(state, claim)
            effects += more
    before, suspicions = state.table.members, state.suspicions
    table, news = membership.learn(state.table, claims, now, members_max=state.params.members_max)
    if news:
        state = spread(evolve(state, table=table), news)
        suspicions = _suspicions(state, news, now)
        for claim in news:
            known = before.get(claim.peer)
            was = known.state if known else None
            effects.append(MemberChanged(claim.peer, was, claim.state, claim.incarnation))
            if known is None or not known.is_living:
                state = _welcome(state, claim.peer, now)
            if claim.state == "suspect" and _shall_verify(state, claim):
                state = _next_turn(state, claim.peer, now)
    confirmed, told = _confirmed(state, suspicions, claims)
    if news or told:
        state = _count_failures(suspicions_changed(spread(state, told), confirmed, now), news, now)
        state, more = settle(state, now)
        effects += more
    return _begin_gossip(state, now), tuple(effects)


def _about_us(state: FailureDetector, claim: Claim) -> Step:
    table = membership.refute(state.table, claim)
    if table is state.table:
        return state, ()
    # That we are doubted is a sign of our own ill health (Lifeguard).
    state = spread(worse(evolve(state, table=table), 1), (table.own_claim(),))
    return state, (KeepIncarnation(table.incarnation),)


def _suspicions(state: FailureDetector, news: Claims, now: float) -> dict[PeerId, Suspicion]:
    suspicions = dict(state.suspicions)
    # Whoever is not well itself gives others as much more time as it takes to ask them.
    patience = 1.0 + state.health
    for claim in news:
        suspicions.pop(claim.peer, None)
        if claim.state == "suspect":
            accusers = frozenset({claim.accuser}) if claim.accuser else frozenset[PeerId]()
            suspicions[claim.peer] = Suspicion(claim.incarnation, now, accusers, patience)
    return suspicions


def _confirmed(
    state: FailureDetector, suspicions: dict[PeerId, Suspicion], claims: Claims
) -> tuple[dict[PeerId, Suspicion], Claims]:
    """The suspicions with their further accusers, and what of it is worth telling.

    That is as long as it shortens the wait.
    """
    told: list[Claim] = []
    for claim in claims:
        known = suspicions.get(claim.peer)
        if (
            known is None
            or claim.state != "suspect"
            or claim.incarnation != known.incarnation
            or claim.accuser is None
            or claim.accuser in known.accusers
            or len(known.accusers) > state.params.suspicion.confirmations
        ):
            continue
        if not told:
            suspicions = dict(suspicions)
        suspicions[claim.peer] = replace(known, accusers=known.accusers | {claim.accuser})
        told.append(claim)
    return suspicions, tuple(told)


def _welcome(state: FailureDetector, peer: PeerId, now: float) -> FailureDetector:
    """Give a living member its turns."""
    if not state.table.is_living(peer):
        return state
    state = _with_room(state)
    state, lot = draw(state, 1024)
    share = (lot + 1) / 1024
    return evolve(
        state,
        turns=(*state.turns, peer),
        probe_at=min(state.probe_at, now + interval_s(state) * share),
        sync_at=min(state.sync_at, now + sync_s(state) * share),
    )


def spoke(state: FailureDetector, peer: PeerId, now: float) -> FailureDetector:
    """It has said something itself, whatever it was: it is there, and slow to answer at worst.

    Nobody is accused for a probe during which it spoke, and a suspicion begins anew: the words it
    is told of that with are what it contradicts.
    """
    unheard = {
        number: replace(one, is_heard=True)
        for number, one in state.probes.items()
        if one.peer == peer and one.for_number is None and not one.is_heard
    }
    if unheard:
        state = evolve(state, probes={**state.probes, **unheard})
    if (known := state.suspicions.get(peer)) is None:
        return state
    doubted = replace(known, since=max(known.since, now), is_held=False)
    return suspicions_changed(state, {**state.suspicions, peer: doubted}, now)


def _shall_verify(state: FailureDetector, claim: Claim) -> bool:
    """Some of those who hear of a suspicion look for themselves; chosen by hash."""
    if claim.accuser == state.me:
        return False
    share = state.params.verifiers / state.mesh_size
    if share >= 1.0:
        return True
    name = f"{state.me} {claim.peer} {claim.incarnation}".encode()
    return int.from_bytes(blake2b(name, digest_size=4).digest(), "big") < share * 2**32


def _next_turn(state: FailureDetector, peer: PeerId, now: float) -> FailureDetector:
    """Probe this one before all others, now."""
    state = _with_room(state)
    turns = (*state.turns[: state.turn], peer, *state.turns[state.turn :])
    return evolve(state, turns=turns, probe_at=now)


def _with_room(state: FailureDetector) -> FailureDetector:
    """Begin a new round where this one has grown too long by newcomers and suspects."""
    return shuffled(state) if len(state.turns) > 2 * state.table.living + 16 else state


def _begin_gossip(state: FailureDetector, now: float) -> FailureDetector:
    """News goes out soon; a moment later, so that what belongs together travels together."""
    if state.gossip_at == inf and state.rumours.waiting and state.table.living:
        return evolve(state, gossip_at=now + state.params.gossip_s / 8)
    return state


# --- verdicts -------------------------------------------------------------------------------------


def pronounce(state: FailureDetector, now: float) -> Step:
    """Give up those whose time is over; where a third are suspect at once, wait once more."""
    if state.verdict_at > now:
        return state, ()
    waits = suspicion.waits(state.params.suspicion, interval_s(state), state.mesh_size)
    due = {p: each for p, each in state.suspicions.items() if suspicion.due_at(each, waits) <= now}
    if is_mass_failure(state, now):
        held = {peer: replace(each, is_held=True) for peer, each in due.items() if not each.is_held}
        if held:
            state = suspicions_changed(state, {**state.suspicions, **held}, now)
            due = {peer: each for peer, each in due.items() if peer not in held}
    claims = tuple(Claim(peer, "failed", each.incarnation) for peer, each in due.items())
    return hear(state, claims, now)


def settle(state: FailureDetector, now: float) -> Step:
    """Say when it begins, and when it ends, that too many are suspect at once."""
    is_partition = is_mass_failure(state, now)
    if is_partition == state.is_partition:
        return state, ()
    state = evolve(state, is_partition=is_partition)
    if is_partition:
        return state, (PartitionSuspected(len(state.suspicions), state.table.living),)
    return state, (PartitionOver(),)


def _count_failures(state: FailureDetector, news: Claims, now: float) -> FailureDetector:
    if not news:
        return state
    told = {claim.peer: claim.state for claim in news}
    kept = {
        peer: at
        for peer, at in state.failed_at.items()
        if at > now - FAILURES_KEPT_S and peer not in told
    }
    failed = dict.fromkeys((peer for peer, word in told.items() if word == "failed"), now)
    recent = tuple({**kept, **failed}.items())[-FAILURES_KEPT_MAX:]
    return evolve(state, failed_at=dict(recent))
