"""The state of a failure detector, and what is only a view of it: how long to wait, whom to choose.

See `failure_detector`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf, log2

from kowalski.mesh.core import membership, rumours, suspicion
from kowalski.mesh.core.evolving import evolve
from kowalski.mesh.core.failure_detector_events import Claims, Effect
from kowalski.mesh.core.membership import Claim, Membership
from kowalski.mesh.core.rumours import Rumours
from kowalski.mesh.core.suspicion import Suspicion
from kowalski.protocol.ids import PeerId


@dataclass(frozen=True, slots=True)
class Params:
    """Seconds, all that end in `_s`."""

    interval_s: float = 0.5
    large_interval_s: float = 1.0
    large: int = 64
    """A mesh beyond this size is probed at the larger interval."""
    timeout_s: float = 0.5
    """Loss on a stream shows as delay, of 200 ms and more: never below 0.25."""
    helpers: int = 3
    verifiers: float = 8.0
    """How many peers, on average, look for themselves when they hear of a suspicion."""
    suspicion: suspicion.Params = field(default_factory=suspicion.Params)
    health_max: int = 7
    late_s: float = 0.25
    """Waking up later than this is our own fault, and nobody else's."""
    away_s: float = 2.0
    """Later than this, the others may have given us up."""
    alone_s: float = 2.0
    """Between two looks at the time while there is nobody to probe: we may have been away."""
    gossip_s: float = 0.2
    gossip_peers: int = 3
    sync_s: float = 30.0
    bury_s: float = 24 * 3600.0
    members_max: int = 4096


@dataclass(frozen=True, slots=True)
class Probing:
    """A probe under way. `for_number`: it is help for somebody, under the shell's number."""

    peer: PeerId
    due_at: float
    is_indirect: bool = False
    retry_failed: bool = False
    asked: int = 0
    told: int = 0
    """Helpers who answered that they had not reached it."""
    unasked: int = 0
    """Helpers whom we could not reach ourselves."""
    is_heard: bool = False
    """It has said something of its own meanwhile: it is slow to answer, and not gone."""
    for_number: int | None = None


@dataclass(frozen=True)  # no slots: see `evolving`
class FailureDetector:
    table: Membership
    params: Params = field(default_factory=Params)
    rumours: Rumours = field(default_factory=Rumours)
    health: int = 0
    """Lifeguard's multiplier of our own timeouts: 0 is well."""
    probes: dict[int, Probing] = field(default_factory=dict)
    suspicions: dict[PeerId, Suspicion] = field(default_factory=dict)
    turns: tuple[PeerId, ...] = ()
    """Whom to probe, in this order; who joins is put at the end, who is gone is passed over."""
    turn: int = 0
    probe_at: float = inf
    gossip_at: float = inf
    sync_at: float = inf
    verdict_at: float = inf
    """When the first of the suspects is given up."""
    failed_at: Mapping[PeerId, float] = field(default_factory=dict[PeerId, float])
    """When members were given up that have not come back, of late."""
    is_partition: bool = False
    number: int = 0
    chance: int = 0
    """The state of a generator (D. Knuth's MMIX), seeded at the start: no dice in here."""

    @property
    def me(self) -> PeerId:
        return self.table.me

    @property
    def mesh_size(self) -> int:
        """Of those that are not given up, ourselves included."""
        return self.table.living + 1


Step = tuple[FailureDetector, tuple[Effect, ...]]


def new(
    me: PeerId, incarnation: int, params: Params | None = None, *, now: float = inf
) -> FailureDetector:
    """Knowing nobody. `incarnation` has been raised since we last ran, and is on disk.

    From `now` on it looks at the time, also before it has met anybody.
    """
    seed = blake2b(f"{me} {incarnation}".encode(), digest_size=8).digest()
    return FailureDetector(
        membership.new(me, incarnation),
        params or Params(),
        chance=int.from_bytes(seed, "big"),
        probe_at=now,
    )


# --- how long -------------------------------------------------------------------------------------


def interval_s(state: FailureDetector) -> float:
    params = state.params
    return params.interval_s if state.mesh_size <= params.large else params.large_interval_s


def timeout_s(state: FailureDetector) -> float:
    """For one answer; the worse our own health, the longer."""
    return state.params.timeout_s * (state.health + 1)


def sync_s(state: FailureDetector) -> float:
    return state.params.sync_s * max(1.0, log2(state.mesh_size / 32) + 1)


def worse(state: FailureDetector, by: int) -> FailureDetector:
    """Our health, so much worse; better where `by` is negative."""
    health = max(0, min(state.params.health_max, state.health + by))
    return state if health == state.health else evolve(state, health=health)


def is_mass_failure(state: FailureDetector, now: float) -> bool:
    """Whether too many are suspect, or were given up within the longest time of a suspicion."""
    waits = suspicion.waits(state.params.suspicion, interval_s(state), state.mesh_size)
    lately = sum(at > now - waits.reprieve_s for at in state.failed_at.values())
    return suspicion.is_mass_failure(len(state.suspicions) + lately, state.table.living + lately)


def suspicions_changed(
    state: FailureDetector, suspicions: dict[PeerId, Suspicion], now: float
) -> FailureDetector:
    """These, and when the first of them is due; also where the mesh has another size now.

    In a smaller mesh they may have been due for a while. That is nobody's delay: they are due now.
    """
    waits = suspicion.waits(state.params.suspicion, interval_s(state), state.mesh_size)
    due = (suspicion.due_at(each, waits) for each in suspicions.values())
    at = max(now, min(due, default=inf))
    return evolve(state, suspicions=suspicions, verdict_at=at)


# --- whom -----------------------------------------------------------------------------------------


def draw(state: FailureDetector, below: int) -> tuple[FailureDetector, int]:
    """A number from 0 to `below` - 1."""
    chance = (state.chance * 6364136223846793005 + 1442695040888963407) % 2**64
    return evolve(state, chance=chance), (chance >> 33) * below >> 31


def pick(
    state: FailureDetector, count: int, *, but: PeerId | None = None
) -> tuple[FailureDetector, list[PeerId]]:
    """Up to `count` living members at random, without looking at all of them."""
    picked: list[PeerId] = []
    turns = state.turns
    if len(turns) <= 2 * count:
        state, start = draw(state, max(1, len(turns)))
        candidates: Iterable[PeerId] = dict.fromkeys((*turns[start:], *turns[:start]))
        picked = [peer for peer in candidates if peer != but and state.table.is_living(peer)]
        return state, picked[:count]
    for _ in range(4 * count):
        state, at = draw(state, len(turns))
        peer = turns[at]
        if peer != but and peer not in picked and state.table.is_living(peer):
            picked.append(peer)
            if len(picked) == count:
                break
    return state, picked


def shuffled(state: FailureDetector) -> FailureDetector:
    """A new round of turns (Fisher and Yates)."""
    turns = [peer for peer, member in state.table.members.items() if member.is_living]
    for at in range(len(turns) - 1, 0, -1):
        state, other = draw(state, at + 1)
        turns[at], turns[other] = turns[other], turns[at]
    return evolve(state, turns=tuple(turns), turn=0)


# --- what to say ----------------------------------------------------------------------------------


def say(state: FailureDetector, peer: PeerId) -> tuple[FailureDetector, Claims]:
    """What to say to `peer` beside the matter at hand. If we doubt it, it hears so first."""
    known = state.table.members.get(peer)
    told, claims = rumours.take(state.rumours, state.mesh_size)
    if told is not state.rumours:
        state = evolve(state, rumours=told)
    if known is None or known.state == "alive":
        return state, claims
    others = tuple(claim for claim in claims if claim.peer != peer)
    return state, (Claim(peer, known.state, known.incarnation), *others)


def spread(state: FailureDetector, claims: Claims) -> FailureDetector:
    return evolve(state, rumours=rumours.spread(state.rumours, claims))
