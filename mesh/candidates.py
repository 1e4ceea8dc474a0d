"""The peers as placement sees them: what they said, and what we have asked of them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from kowalski.mesh.core.placement import Candidate, Kind
from kowalski.mesh.peer_facts import PeerFacts
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Occupancy, Profile


class Candidates:
    def __init__(self) -> None:
        self._in_flight: dict[tuple[PeerId, Kind], list[float]] = {}
        """When each request that is still on its way or under way was sent."""

    @contextmanager
    def sending(self, peer: PeerId, kind: Kind) -> Iterator[None]:
        """Count a request as on its way to `peer`, for the choices made meanwhile."""
        started, sent_at = self._in_flight.setdefault((peer, kind), []), trio.current_time()
        started.append(sent_at)
        try:
            yield
        finally:
            started.remove(sent_at)

    def of(self, facts: PeerFacts, profile: Profile) -> Candidate:
        hot = facts.hot or profile.hot
        occupancy: dict[Kind, Occupancy] = {
            "code": hot.repl,
            "inference": hot.inference,
            "folding": hot.folding,
        }
        return Candidate(
            peer=facts.peer,
            name=facts.name,
            roles=frozenset(facts.roles),
            languages=frozenset(language.name for language in profile.languages),
            models=frozenset(model.name for model in profile.models),
            occupancy=occupancy,
            memory_used=hot.memory_used,
            tokens_per_s=dict(hot.tokens_per_s),
            rtt_s=facts.rtt_s,
            is_routable=facts.is_routable,
            own_in_flight={
                kind: self._unheard_of(facts, kind, at) for kind, at in occupancy.items()
            },
            is_self=facts.is_self,
            paused="" if facts.is_self else hot.paused,
            speed=profile.speed,
            warm=frozenset(model.name for model in profile.models if model.is_warm),
        )

    def _unheard_of(self, facts: PeerFacts, kind: Kind, at: Occupancy) -> int:
        """How many of our requests the peer's values cannot tell of yet."""
        sent = self._in_flight.get((facts.peer, kind), [])
        if facts.is_self:
            # Our own values are never stale; only what has not reached its room is missing.
            return max(0, len(sent) - at.running - at.queued)
        heard_at = trio.current_time() - (facts.age_s or 0.0)
        return sum(sent_at >= heard_at for sent_at in sent)
