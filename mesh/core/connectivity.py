"""Whom to dial, when, and who counts as here.

A peer is heard of (mDNS, an address given by the owner, another member's word), dialled, and asked
to prove its membership. Of two peers the one with the lower id dials and asks, since simultaneous
dials leave two connections; the other waits a little, then does it itself. What this machine calls
routable is instant, local, and never told to anybody: whether the mesh has given a peer up is
`failure_detector`'s business.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf

from kowalski.mesh.core.connectivity_events import (
    Answered,
    AskingFailed,
    AskMembership,
    ConnectionClosed,
    ConnectionOpened,
    Dial,
    DialFailed,
    Effect,
    Event,
    EventOfKnown,
    GivenUp,
    HangUp,
    Introduced,
    MemberConnected,
    MemberDisconnected,
    MembershipProven,
    MembershipRefused,
    Missed,
    Reached,
    Sighted,
    Spoke,
    Suspected,
    TimePassed,
    Verify,
    Vouched,
    Woke,
)
from kowalski.mesh.core.connectivity_params import Params
from kowalski.mesh.core.connectivity_state import (
    ADDRESSES_PER_PEER_MAX,
    ANNOUNCED_MAX,
    NAMED_MAX,
    PEERS_MAX,
    STRANGERS_MAX,
    TOLD_MAX,
    Connectivity,
    Peer,
    Standing,
    check,
    check_news,
)
from kowalski.mesh.core.evolving import evolve
from kowalski.protocol.ids import Address, PeerId

__all__ = [
    "ADDRESSES_PER_PEER_MAX",
    "ANNOUNCED_MAX",
    "PEERS_MAX",
    "STRANGERS_MAX",
    "Answered",
    "AskMembership",
    "AskingFailed",
    "ConnectionClosed",
    "ConnectionOpened",
    "Connectivity",
    "Dial",
    "DialFailed",
    "Effect",
    "Event",
    "EventOfKnown",
    "GivenUp",
    "HangUp",
    "Introduced",
    "MemberConnected",
    "MemberDisconnected",
    "MembershipProven",
    "MembershipRefused",
    "Missed",
    "Params",
    "Peer",
    "Reached",
    "Sighted",
    "Spoke",
    "Standing",
    "Step",
    "Suspected",
    "TimePassed",
    "Verify",
    "Vouched",
    "Woke",
    "check",
    "check_news",
    "step",
    "wake_at",
]

Step = tuple[Connectivity, tuple[Effect, ...]]


def wake_at(state: Connectivity) -> float:
    """When something is due of somebody; of members only where the mesh has given one up."""
    member = Standing.MEMBER  # as most are
    some = [one for one in state.peers.values() if one.standing is not member or one.act_at < inf]
    return min((_due(state, one) for one in some), default=inf)


def _due(state: Connectivity, peer: Peer) -> float:
    if peer.standing is Standing.ABSENT and not peer.is_static:
        return min(peer.act_at, _forgotten_at(state, peer))
    if peer.standing is Standing.CONNECTED or peer.standing is Standing.ASKING:
        return min(peer.act_at, peer.since + state.params.stranger_s)
    return peer.act_at


def _forgotten_at(state: Connectivity, peer: Peer) -> float:
    params = state.params
    return peer.seen_at + (params.forget_s if peer.is_vouched else params.forget_announced_s)


def step(state: Connectivity, event: Event, now: float) -> Step:
    match event:
        case Sighted():
            return _sighted(state, event, now)
        case Introduced(sightings=sightings):
            return _introduced(state, sightings, now)
        case TimePassed():
            return _time_passed(state, now)
        case ConnectionOpened(peer=peer):
            return _opened(state, peer, now)
        case Woke():
            return _woke(state, now)
        case _:
            known = state.peers.get(event.peer)
            return (state, ()) if known is None else _about(state, known, event, now)


def _about(state: Connectivity, known: Peer, event: EventOfKnown, now: float) -> Step:
    match event:
        case Reached(address=address):
            peer = evolve(known, reached=address)
            return _put(state, evolve(peer, addresses=_merged((), peer))), ()
        case ConnectionClosed():
            return _closed(state, known, now)
        case DialFailed(why=why):
            if known.standing is not Standing.DIALLING:
                return state, ()
            return _put(state, _retry(state, known, Standing.ABSENT, why, now)), ()
        case AskingFailed(why=why):
            if known.standing is not Standing.ASKING:
                return state, ()
            return _put(state, _retry(state, known, Standing.CONNECTED, why, now)), ()
        case MembershipProven(addresses=addresses):
            return _proven(state, known, addresses, now)
        case MembershipRefused(why=why):
            return _refused(state, known, why, now)
        case Answered():
            return _answered(state, known), ()
        case Spoke():
            return _put(state, evolve(known, silent_since=now)) if known.misses else state, ()
        case Missed():
            return _missed(state, known, now)
        case Suspected() | Vouched():
            return _talked_about(state, known, is_doubted=isinstance(event, Suspected))
        case GivenUp():
            return _given_up(state, known, now)


def _put(state: Connectivity, peer: Peer) -> Connectivity:
    return evolve(state, peers={**state.peers, peer.id: peer})


def _without(state: Connectivity, peer: PeerId) -> Connectivity:
    return evolve(state, peers={k: v for k, v in state.peers.items() if k != peer})


def _yield_s(state: Connectivity, peer: PeerId) -> float:
    return 0.0 if state.me < peer else state.params.yield_s


def _merged(news: tuple[Address, ...], known: Peer) -> tuple[Address, ...]:
    """Where it was reached, then the news; but many of them do not displace all that we knew.

    Nor any of what is more than a hint: who announces false addresses adds to them at most.
    """
    sure = known.sure_addresses
    room = min(ADDRESSES_PER_PEER_MAX // 2, ADDRESSES_PER_PEER_MAX - len(sure))
    all_of_them = (*news[:room], *sure, *known.addresses, *news)
    kept = tuple(dict.fromkeys(all_of_them))[:ADDRESSES_PER_PEER_MAX]
    return tuple(sorted(kept, key=lambda address: address != known.reached))


def _backoff_s(state: Connectivity, peer: Peer, failures: int) -> float:
    """Exponential with full-ish jitter, drawn from who, whom and how often: no dice in here."""
    ceiling = min(state.params.retry_s * 2.0 ** min(failures, 16), state.params.retry_s_max)
    draw = blake2b(f"{state.me} {peer.id} {failures}".encode(), digest_size=2).digest()
    return ceiling * (0.5 + int.from_bytes(draw, "big") / 131072)


def _retry(state: Connectivity, peer: Peer, standing: Standing, why: str, now: float) -> Peer:
    return evolve(
        peer,
        standing=standing,
        attempts=peer.attempts + 1,
        act_at=now + _backoff_s(state, peer, peer.attempts),
        complaint=why,
    )


def _sighted(state: Connectivity, event: Sighted, now: float) -> Step:
    if event.peer == state.me or event.mesh not in {None, state.mesh}:
        return state, ()
    soon = now + _yield_s(state, event.peer)
    known = state.peers.get(event.peer)
    if known is None:
        roomy = _with_room(state, event)
        if roomy is None:
            return state, ()
        state = roomy
        peer = Peer(event.peer, act_at=soon, since=now, seen_at=now, is_static=event.is_static)
    else:
        peer = evolve(known, seen_at=now, is_static=known.is_static or event.is_static)
        is_news = not set(event.addresses) <= set(known.addresses)
        if is_news and known.standing is Standing.ABSENT:
            act_at = max(min(known.act_at, soon), known.shunned_until)
            peer = evolve(peer, act_at=act_at, attempts=0)
    if not event.is_announced:
        peer = evolve(peer, is_vouched=True)
    if event.is_static:
        named = tuple(dict.fromkeys((*event.addresses, *peer.named)))[:NAMED_MAX]
        peer = evolve(peer, named=named)
    if event.is_remembered and not peer.told:
        peer = evolve(peer, told=event.addresses[:TOLD_MAX])
    peer = evolve(peer, addresses=_merged(event.addresses, peer))
    return _due_now(_put(state, peer), peer, now)


def _with_room(state: Connectivity, event: Sighted) -> Connectivity | None:
    """Room for one more. Who was merely announced makes way, dialled in vain most often first."""
    hearsay = [one for one in state.peers.values() if not one.is_vouched and not one.is_connected]
    too_many = len(state.peers) + 1 - PEERS_MAX
    if event.is_announced:
        too_many = max(too_many, len(hearsay) + 1 - ANNOUNCED_MAX)
    if too_many <= 0:
        return state
    away = [one for one in hearsay if one.standing is Standing.ABSENT]
    if too_many > len(away):
        return None
    away.sort(key=lambda one: (-one.attempts, one.seen_at))
    gone = {one.id for one in away[:too_many]}
    return evolve(state, peers={k: v for k, v in state.peers.items() if k not in gone})


def _introduced(state: Connectivity, sightings: tuple[Sighted, ...], now: float) -> Step:
    effects: list[Effect] = []
    for sighting in sightings:
        state, more = _sighted(state, sighting, now)
        effects += more
    return state, tuple(effects)


def _opened(state: Connectivity, peer_id: PeerId, now: float) -> Step:
    if peer_id == state.me:
        return state, ()
    if peer_id not in state.peers and len(state.peers) >= PEERS_MAX + STRANGERS_MAX:
        return state, (HangUp(peer_id, "too many peers are connected"),)
    known = state.peers.get(peer_id, Peer(peer_id))
    if known.is_connected:
        return state, ()
    peer = evolve(
        known,
        standing=Standing.CONNECTED,
        act_at=now + _yield_s(state, peer_id),
        since=now,
        seen_at=now,
        attempts=0,
        misses=0,
        is_doubted=False,
        silent_since=inf,
        is_hung_up=False,
    )
    return _due_now(_put(state, peer), peer, now)


def _closed(state: Connectivity, known: Peer, now: float) -> Step:
    if not known.is_connected:
        return state, ()
    was_member = known.standing is Standing.MEMBER
    if not known.addresses:
        state = _without(state, known.id)
    else:
        unproven = 0 if was_member else known.unproven + 1
        # Soon where it was a member: a restarted peer is back within a second.
        wait_s = _backoff_s(state, known, unproven) if unproven else state.params.retry_s
        wait_s += _yield_s(state, known.id)
        if known.is_hung_up:
            wait_s = 0.0  # it was us; the other side may know of nothing
        peer = evolve(
            known,
            standing=Standing.ABSENT,
            act_at=max(now + wait_s, known.shunned_until),
            since=now,
            seen_at=now if was_member else known.seen_at,
            attempts=0,
            unproven=unproven,
        )
        state = _put(state, peer)
    return state, (MemberDisconnected(known.id),) if was_member else ()


def _proven(state: Connectivity, known: Peer, addresses: tuple[Address, ...], now: float) -> Step:
    if not known.is_connected:
        return state, ()
    known = evolve(known, told=addresses[:TOLD_MAX], is_vouched=True)
    merged = _merged(addresses, known)
    peer = evolve(
        known,
        standing=Standing.MEMBER,
        addresses=merged,
        attempts=0,
        unproven=0,
        shunned_until=-inf,
        misses=0,
        is_doubted=False,
        silent_since=inf,
        since=now if known.standing is not Standing.MEMBER else known.since,
        seen_at=now,
        act_at=now + state.params.ask_again_s if known.is_given_up else inf,
        complaint="",
    )
    arrived = (MemberConnected(peer.id, merged),) if known.standing is not Standing.MEMBER else ()
    return _put(state, peer), arrived


def _refused(state: Connectivity, known: Peer, why: str, now: float) -> Step:
    left = (MemberDisconnected(known.id),) if known.standing is Standing.MEMBER else ()
    if known.addresses:
        shunned_until = now + state.params.shun_s
        shunned = evolve(
            known,
            standing=Standing.ABSENT,
            act_at=shunned_until,
            shunned_until=shunned_until,
            since=now,
            seen_at=now,
            complaint=why,
        )
        state = _put(state, shunned)
    else:
        # Whom we could not dial anyway need not be remembered; passers-by would fill our memory.
        state = _without(state, known.id)
    return state, (*left, HangUp(known.id, why))


def _answered(state: Connectivity, known: Peer) -> Connectivity:
    if known.standing is not Standing.MEMBER:
        return state  # on a connection that has ended
    if not known.is_waited_for:
        return state
    heard = evolve(known, misses=0, is_doubted=False, silent_since=inf)
    return _put(state, heard)


def _missed(state: Connectivity, known: Peer, now: float) -> Step:
    if known.standing is not Standing.MEMBER:
        return state, ()
    since = min(now, known.silent_since)
    peer = evolve(known, misses=known.misses + 1, silent_since=since)
    if peer.misses > state.params.misses_max and now - since >= state.params.silence_s:
        return _hang_up(state, peer)
    return _put(state, peer), ()


def _hang_up(state: Connectivity, peer: Peer) -> Step:
    """Drop a half-open link, so that dialling can begin anew."""
    if peer.standing is not Standing.MEMBER or peer.is_hung_up:
        return _put(state, peer), ()
    why = f"{peer.misses} signs of life missed"
    return _put(state, evolve(peer, is_hung_up=True, act_at=inf)), (HangUp(peer.id, why),)


def _woke(state: Connectivity, now: float) -> Step:
    """Dial at once those that are away, and doubt the others."""
    effects: list[Effect] = []
    for peer in tuple(state.peers.values()):
        match peer.standing:
            case Standing.ABSENT if peer.addresses:
                soon = max(now, peer.shunned_until)
                awaited = evolve(peer, act_at=min(peer.act_at, soon), attempts=0)
                state, more = _due_now(_put(state, awaited), awaited, now)
                effects += more
            case _:
                state, more = _doubt(state, peer)
                effects += more
    return state, tuple(effects)


def _doubt(state: Connectivity, peer: Peer) -> Step:
    """Send it nothing until it has given a sign of life; one more miss is enough to hang up."""
    if peer.standing is not Standing.MEMBER:
        return state, ()
    doubted = evolve(peer, misses=state.params.misses_max, silent_since=-inf)
    return _put(state, doubted), (Verify(peer.id),)


def _given_up(state: Connectivity, known: Peer, now: float) -> Step:
    """Nobody else asks it from now on: do, now and then, until it is heard of again or hung up."""
    peer = evolve(known, is_given_up=True)
    if peer.standing is not Standing.MEMBER or peer.is_hung_up:
        return _put(state, peer), ()
    return _doubt(state, evolve(peer, act_at=now + state.params.ask_again_s))


def _talked_about(state: Connectivity, known: Peer, *, is_doubted: bool) -> Step:
    """Be it as a suspect: if it had been given up, the failure detector probes it again."""
    is_member = known.standing is Standing.MEMBER
    if known.is_given_up:
        known = evolve(known, is_given_up=False, act_at=inf if is_member else known.act_at)
        state = _put(state, known)
    if not is_member:
        return state, ()
    is_asked = is_doubted or known.misses > 0
    state = _put(state, evolve(known, is_doubted=is_doubted))
    return state, (Verify(known.id),) if is_asked else ()


def _time_passed(state: Connectivity, now: float) -> Step:
    effects: list[Effect] = []
    for peer in tuple(state.peers.values()):
        if _due(state, peer) <= now:
            state, more = _due_now(state, peer, now)
            effects += more
    return state, tuple(effects)


def _due_now(state: Connectivity, peer: Peer, now: float) -> Step:
    """Do what is due for `peer`, if anything is. Always moves its next deadline past `now`."""
    if _due(state, peer) > now:
        return state, ()
    params = state.params
    match peer.standing:
        case Standing.ABSENT:
            if not peer.is_static and _forgotten_at(state, peer) <= now:
                return _without(state, peer.id), ()
            if not peer.addresses:
                return _put(state, evolve(peer, act_at=inf)), ()
            dialling = evolve(peer, standing=Standing.DIALLING, act_at=inf)
            return _put(state, dialling), (Dial(peer.id, peer.addresses, peer.is_vouched),)
        case Standing.CONNECTED | Standing.ASKING if peer.since + params.stranger_s <= now:
            return _refused(state, peer, peer.complaint or "it did not prove its membership", now)
        case Standing.CONNECTED:
            return _put(state, evolve(peer, standing=Standing.ASKING, act_at=inf)), (
                AskMembership(peer.id),
            )
        case Standing.MEMBER:
            asked = evolve(peer, act_at=now + params.ask_again_s)
            return _put(state, asked), (Verify(peer.id),)
        case Standing.DIALLING | Standing.ASKING:
            return state, ()
