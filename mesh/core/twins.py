"""Whether two machines go by one identity, as they do after a home directory was copied.

Two things show it: somebody else announces our peer id on the network, or messages of one peer come
from two boots by turns. A restart is another boot, too; but what was before it is not heard again,
stragglers aside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from kowalski.protocol.ids import Address, PeerId

PEERS_MAX = 1024
BOOTS_MAX = 4
"""Of one peer, remembered."""

ADDRESSES_MAX = 4
"""Of one announcement, told to people."""


@dataclass(frozen=True, slots=True)
class Params:
    """Seconds, all of them."""

    straggler_s: float = 10.0
    """How long after a restart something from before it may still be under way."""
    turns_within_s: float = 60.0
    """Two boots that are heard within this time of each other run at the same time."""
    early_s: float = 2.0
    """Whoever is announced so soon after our own start was there before us."""
    told_for_s: float = 600.0
    """After the last sign. Announcements repeat much more often than that."""


class Boot(NamedTuple):
    first_at: float
    last_at: float
    sequence: int
    addresses: tuple[Address, ...]


class Boots(NamedTuple):
    """Those of one peer in the order in which they were first heard.

    A tuple, as `Boot` and `BootHeard` are: each message of gossip makes one of each.
    """

    boots: dict[str, Boot]
    twinned_at: float | None = None
    """When two of them were last seen to run at the same time."""


@dataclass(slots=True)
class Twins:
    """A book, written by `step` alone: each message of gossip writes a line of it."""

    me: PeerId
    started_at: float
    params: Params = field(default_factory=Params)
    peers: dict[PeerId, Boots] = field(default_factory=dict)
    announced: tuple[Address, ...] = ()
    announced_first_at: float | None = None
    announced_last_at: float | None = None


@dataclass(frozen=True, slots=True)
class Announced:
    """Somebody else announces our peer id, at addresses of which none is ours. Not proven."""

    addresses: tuple[Address, ...]


class BootHeard(NamedTuple):
    """A message of `peer`, which it signed or which came on its connection, names its boot.

    `sequence` None: on its connection, so that it cannot be a replay.
    """

    peer: PeerId
    boot: str
    sequence: int | None = None
    addresses: tuple[Address, ...] = ()


Event = Announced | BootHeard


@dataclass(frozen=True, slots=True)
class OwnTwin:
    """Another machine uses our identity."""

    addresses: tuple[Address, ...]
    are_we_later: bool


@dataclass(frozen=True, slots=True)
class TwinPeers:
    """Two machines use the identity of `peer`; where the later one is, if it said so."""

    peer: PeerId
    later: tuple[Address, ...]


def step(state: Twins, event: Event, now: float) -> None:
    """Take in what was heard."""
    match event:
        case Announced(addresses=addresses):
            if own_twin(state, now) is None:
                state.announced_first_at = now
            state.announced = addresses[:ADDRESSES_MAX]
            state.announced_last_at = now
        case BootHeard():
            _boot_heard(state, event, now)


def _boot_heard(state: Twins, event: BootHeard, now: float) -> None:
    if event.peer == state.me:
        return
    known = state.peers.get(event.peer) or Boots({})
    if not known.boots and len(state.peers) >= PEERS_MAX:
        return
    before = known.boots.get(event.boot) or Boot(now, now, -1, ())
    if event.sequence is not None and event.sequence <= before.sequence:
        return  # a replay
    boot = Boot(
        before.first_at,
        now,
        before.sequence if event.sequence is None else event.sequence,
        event.addresses[:ADDRESSES_MAX] or before.addresses,
    )
    boots = {**known.boots, event.boot: boot}
    while len(boots) > BOOTS_MAX:
        del boots[next(iter(boots))]
    twinned_at = known.twinned_at
    if len(boots) > 1 and _runs_beside_a_later_one(state.params, boots, event.boot, now):
        twinned_at = now
    state.peers[event.peer] = Boots(boots, twinned_at)


def _runs_beside_a_later_one(
    params: Params, boots: dict[str, Boot], heard: str, now: float
) -> bool:
    *_, newest = boots
    latest = boots[newest]
    return (
        heard != newest
        and now - latest.first_at > params.straggler_s
        and now - latest.last_at <= params.turns_within_s
    )


def has_another_boot(state: Twins, peer: PeerId, now: float) -> bool:
    """Of which we hear for the first time now: a restart, or a twin.

    Whoever asks the peer again after `straggler_s`, on its oldest connection, learns which.
    """
    known = state.peers.get(peer, Boots({}))
    return len(known.boots) > 1 and any(boot.first_at == now for boot in known.boots.values())


def own_twin(state: Twins, now: float) -> OwnTwin | None:
    """Who started later is the copy, as a rule; nobody can know it."""
    first, last = state.announced_first_at, state.announced_last_at
    if first is None or last is None or now - last > state.params.told_for_s:
        return None
    return OwnTwin(state.announced, first - state.started_at <= state.params.early_s)


def twin_peers(state: Twins, peer: PeerId, now: float) -> TwinPeers | None:
    known = state.peers.get(peer)
    if known is None or known.twinned_at is None:
        return None
    if now - known.twinned_at > state.params.told_for_s:
        return None
    *_, later = known.boots.values()
    return TwinPeers(peer, later.addresses)


def check(state: Twins) -> None:
    """What must hold after every step."""
    assert state.me not in state.peers
    assert len(state.peers) <= PEERS_MAX
    assert (state.announced_first_at is None) == (state.announced_last_at is None)
    for known in state.peers.values():
        assert 1 <= len(known.boots) <= BOOTS_MAX
        begun = [boot.first_at for boot in known.boots.values()]
        assert begun == sorted(begun)
