"""What `connectivity` knows: its peers, each with its standing, and what must hold of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import compress
from math import inf
from operator import is_not

from kowalski.mesh.core.connectivity_params import Params
from kowalski.protocol.ids import Address, MeshId, PeerId

PEERS_MAX = 1024
"""That were heard of."""

STRANGERS_MAX = 256
"""Connected peers beyond those, of whom nobody had heard."""

ANNOUNCED_MAX = 256
"""Of those that were heard of: away, and so far nobody but an announcement on the network says that
they are there."""

ADDRESSES_PER_PEER_MAX = 8

NAMED_MAX, TOLD_MAX = 2, 3
"""Addresses of one peer that no hint displaces, by the owner's word and by its own. With the one
where it was reached they leave room for two hints."""


class Standing(Enum):
    ABSENT = auto()
    DIALLING = auto()
    CONNECTED = auto()
    ASKING = auto()
    MEMBER = auto()


AT_IT = (Standing.DIALLING, Standing.ASKING)
"""Nothing is due of such a peer by itself. No set: an `Enum` hashes slowly."""


@dataclass(frozen=True)  # no slots: see `evolving`
class Peer:
    """What we know of one peer. Times are the driver's clock."""

    id: PeerId
    standing: Standing = Standing.ABSENT
    addresses: tuple[Address, ...] = ()
    reached: Address | None = None
    """Where we last dialled it with success."""
    named: tuple[Address, ...] = ()
    """Where the owner says that it is."""
    told: tuple[Address, ...] = ()
    """Where it said that it is when it last proved its membership, in the last run maybe."""
    is_vouched: bool = False
    """The owner, the last run or a member has named it, or it has proven itself."""
    attempts: int = 0
    """Dials, or questions on this connection, that failed in a row."""
    unproven: int = 0
    """Connections in a row that ended before membership was proven on them."""
    shunned_until: float = -inf
    act_at: float = inf
    """When to dial or to ask next, by standing."""
    since: float = 0.0
    seen_at: float = 0.0
    """Not kept up while it is a member: it counts from when that is over."""
    misses: int = 0
    silent_since: float = inf
    """When the first of the misses was. Not when it last answered: where many take turns, a peer
    is asked rarely, and who was not asked was not silent."""
    is_doubted: bool = False
    """Others suspect it, and it has given us no sign of life since: one miss of ours is enough."""
    is_hung_up: bool = False
    is_given_up: bool = False
    """By the mesh, on whatever connection that was: nobody probes it, so that we have to ask."""
    is_static: bool = False
    complaint: str = ""

    @property
    def sure_addresses(self) -> tuple[Address, ...]:
        """Those that are more than hints."""
        reached = () if self.reached is None else (self.reached,)
        return tuple(dict.fromkeys((*reached, *self.named, *self.told)))

    @property
    def is_connected(self) -> bool:
        # No set, see `AT_IT`: with hundreds that were announced this is asked for each, each time.
        return self.standing is not Standing.ABSENT and self.standing is not Standing.DIALLING

    @property
    def is_waited_for(self) -> bool:
        """Whether a sign of life of it would change anything; of most it would not."""
        return self.misses > 0 or self.is_doubted or self.silent_since < inf

    @property
    def is_refused(self) -> bool:
        """Away, and when it was last here it failed to prove that it belongs."""
        return not self.is_connected and self.shunned_until > -inf

    @property
    def why_not(self) -> str:
        """Why nothing is sent there, in words, where that is so."""
        if self.complaint:
            return self.complaint
        if self.is_connected and self.misses:
            others = ", and others suspect it" if self.is_doubted else ""
            return f"{self.misses} signs of life missed in a row{others}"
        return {
            Standing.ABSENT: "not connected",
            Standing.DIALLING: "being dialled",
            Standing.CONNECTED: "connected, and has not proven its membership yet",
            Standing.ASKING: "being asked for its membership",
        }.get(self.standing, "")


@dataclass(frozen=True)
class Connectivity:
    me: PeerId
    mesh: MeshId
    params: Params = field(default_factory=Params)
    peers: dict[PeerId, Peer] = field(default_factory=dict)

    @property
    def members(self) -> tuple[PeerId, ...]:
        return tuple(p.id for p in self.peers.values() if p.standing is Standing.MEMBER)

    def is_member(self, peer: PeerId) -> bool:
        known = self.peers.get(peer)
        return known is not None and known.standing is Standing.MEMBER

    def is_routable(self, peer: PeerId) -> bool:
        if not self.is_member(peer):
            return False
        known = self.peers[peer]
        return known.misses < (1 if known.is_doubted else self.params.misses_max)

    @property
    def silent(self) -> frozenset[PeerId]:
        """Members to which nothing is sent from here."""
        # Whoever has missed nothing is none of them; that is nearly always everybody.
        return frozenset(
            peer.id
            for peer in self.peers.values()
            if peer.misses and self.is_member(peer.id) and not self.is_routable(peer.id)
        )


def check(state: Connectivity) -> None:
    """What must hold after every step."""
    check_news(state, None)


def check_news(state: Connectivity, held: Mapping[PeerId, Peer] | None) -> Mapping[PeerId, Peer]:
    """`check`, given those peers of the same node that have held before: they hold still.

    Returns those that hold now, for the next time. It is a copy: a table that was altered in place
    would be found as any other.
    """
    peers = state.peers
    assert state.me not in peers
    assert len(peers) <= PEERS_MAX + STRANGERS_MAX
    news: Iterable[tuple[PeerId, Peer]] = peers.items()
    if held is not None and list(held) == list(peers):
        news = compress(news, map(is_not, held.values(), peers.values()))
    for name, peer in news:
        _check_peer(state, name, peer)
    return peers.copy()


def _check_peer(state: Connectivity, name: PeerId, peer: Peer) -> None:
    assert name == peer.id
    assert len(peer.addresses) <= ADDRESSES_PER_PEER_MAX
    assert len(set(peer.addresses)) == len(peer.addresses)
    assert set(peer.sure_addresses) <= set(peer.addresses), "a hint has displaced what was proven"
    assert state.is_routable(name) <= state.is_member(name)
    assert peer.standing is not Standing.DIALLING or peer.addresses
    assert peer.standing not in AT_IT or peer.act_at == inf, "somebody is at it"
    is_watched = peer.standing is Standing.MEMBER and not peer.is_given_up
    assert not is_watched or peer.act_at == inf, "it is probed"
