"""Whether two machines go by one identity, as they do after a home directory was copied.

Nobody sees that of itself, but two things show it: somebody else announces our peer id on the
network, or messages of one peer come from two boots by turns. A restart is another boot, too; but
what was before it is not heard again, but for a straggler.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kowalski.protocol.ids import Address, PeerId

PEERS_MAX = 1024
BOOTS_MAX = 4
"""Of one peer, remembered."""

ADDRESSES_MAX = 4
"""Of one announcement, told to people."""


@dataclass(frozen=True, slots=True)
class Params:
    """Seconds, but for the count."""

    turns_within_s: float = 60.0
    returns_min: int = 2
    """How often a boot must come back after another was heard; a straggler comes once."""
    early_s: float = 5.0
    """Whoever is announced so soon after our own start was there before us."""
    told_for_s: float = 600.0
    """After the last sign. Announcements repeat much more often than that."""


@dataclass(frozen=True, slots=True)
class Boots:
    """Those of one peer in the order in which they began, as far as we heard."""

    latest: str
    places: dict[str, tuple[Address, ...]]
    returned_at: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Twins:
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


@dataclass(frozen=True, slots=True)
class BootHeard:
    """A message of `peer`, which it signed or which came on its connection, names its boot."""

    peer: PeerId
    boot: str
    addresses: tuple[Address, ...] = ()


Event = Announced | BootHeard


@dataclass(frozen=True, slots=True)
class OwnTwin:
    """Another machine uses our identity. `is_later`: it was there before us."""

    addresses: tuple[Address, ...]
    are_we_later: bool


@dataclass(frozen=True, slots=True)
class TwinPeers:
    """Two machines use the identity of `peer`; where the later one is, if it said so."""

    peer: PeerId
    later: tuple[Address, ...]


def step(state: Twins, event: Event, now: float) -> Twins:
    match event:
        case Announced(addresses=addresses):
            is_new = own_twin(state, now) is None
            return replace(
                state,
                announced=addresses[:ADDRESSES_MAX],
                announced_first_at=now if is_new else state.announced_first_at,
                announced_last_at=now,
            )
        case BootHeard():
            return _boot_heard(state, event, now)


def _boot_heard(state: Twins, event: BootHeard, now: float) -> Twins:
    if event.peer == state.me:
        return state
    known = state.peers.get(event.peer)
    if known is None:
        if len(state.peers) >= PEERS_MAX:
            return state
        known = Boots(event.boot, {})
    returned_at = known.returned_at
    if event.boot != known.latest and event.boot in known.places:
        recent = (at for at in returned_at if now - at <= state.params.turns_within_s)
        returned_at = (*recent, now)[-state.params.returns_min :]
    places = {**known.places}
    places[event.boot] = event.addresses[:ADDRESSES_MAX] or places.get(event.boot, ())
    while len(places) > BOOTS_MAX:
        del places[next(iter(places))]
    heard = Boots(event.boot, places, returned_at)
    return replace(state, peers={**state.peers, event.peer: heard})


def own_twin(state: Twins, now: float) -> OwnTwin | None:
    """Who started later is the copy, as a rule; nobody can know it."""
    first, last = state.announced_first_at, state.announced_last_at
    if first is None or last is None or now - last > state.params.told_for_s:
        return None
    return OwnTwin(state.announced, first - state.started_at <= state.params.early_s)


def twin_peers(state: Twins, peer: PeerId, now: float) -> TwinPeers | None:
    known = state.peers.get(peer)
    if known is None or len(known.returned_at) < state.params.returns_min:
        return None
    if now - known.returned_at[-1] > state.params.told_for_s:
        return None
    *_, later = known.places.values()
    return TwinPeers(peer, later)


def check(state: Twins) -> None:
    """What must hold after every step."""
    assert state.me not in state.peers
    assert len(state.peers) <= PEERS_MAX
    assert (state.announced_first_at is None) == (state.announced_last_at is None)
    for boots in state.peers.values():
        assert boots.latest in boots.places
        assert len(boots.places) <= BOOTS_MAX
        assert len(boots.returned_at) <= state.params.returns_min
