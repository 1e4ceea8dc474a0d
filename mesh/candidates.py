"""The peers as placement sees them: what they said, and what we have asked of them meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count

import trio

from kowalski.mesh.core.glance import LOOKED_AT, Row, glance, row
from kowalski.mesh.core.placement import Candidate, Kind, Need, capacity, is_warm, lacks
from kowalski.mesh.core.telemetry_view import PeerTelemetry, TelemetryView
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Hot, Occupancy, Profile

ROWS_MAX = 64
"""Kinds of work for which is kept who could do it."""

FEW = 8
"""Where a glance finds no more than that, everybody is looked at."""


@dataclass(frozen=True, slots=True)
class Look:
    """For what some of very many peers are to be looked at; chance picks them, anew each time."""

    need: Need
    reader: PeerId | None = None
    """Who holds the beginning of it already; always looked at."""


@dataclass(frozen=True, slots=True)
class _Lasting:
    """What placement wants of a profile, in the form it wants it: made once for each profile."""

    profile: Profile
    roles: frozenset[str]
    languages: frozenset[str]
    models: frozenset[str]
    warm: frozenset[str]


class _OnItsWay:
    """One request among those `sent`, each by the time that it was sent."""

    __slots__ = ("_at", "_sent")

    def __init__(self, sent: list[float]) -> None:
        self._sent = sent
        self._at = trio.current_time()

    def __enter__(self) -> None:
        self._sent.append(self._at)

    def __exit__(self, *_how: object) -> None:
        self._sent.remove(self._at)


@dataclass(slots=True)
class OwnHot:
    """What this node's own choice of a peer looks at of its `Hot`; limits for others are none."""

    repl: Occupancy
    inference: Occupancy
    folding: Occupancy
    memory_used: float
    tokens_per_s: dict[str, float]
    is_draining: bool


class Candidates:
    def __init__(self) -> None:
        self._in_flight: dict[tuple[PeerId, Kind], list[float]] = {}
        """When each request that is still on its way or under way was sent."""
        self._lasting: dict[PeerId, _Lasting] = {}
        self._rows: dict[tuple[Kind, str | None, str | None, bool], Row] = {}
        self._rows_at = -1
        self._looks = count()

    def looked_at(
        self, me: PeerId, look: Look, view: TelemetryView, is_routable: Callable[[PeerId], bool]
    ) -> dict[PeerId, float] | None:
        """Whom to look at, with how likely that was; None for everybody."""
        if len(view.peers) <= LOOKED_AT:
            return None

        def takes_work(peer: PeerId) -> bool:
            hot = view.peers[peer].hot
            return not hot.paused and not hot.is_draining and is_routable(peer)

        draw = f"{me} {next(self._looks)}"
        always = () if look.reader is None else (look.reader,)
        seen = glance(self._row(look.need, view), draw, takes_work=takes_work, always=always)
        if look.need.kind == "inference":
            # Few may have the model in memory, and another would have to load it first.
            warm = self._row(look.need, view, warm_only=True)
            seen |= glance(warm, f"{draw} warm", takes_work=takes_work)
        return seen if len(seen) > FEW else None

    def _row(self, need: Need, view: TelemetryView, *, warm_only: bool = False) -> Row:
        """Made anew when anybody's profile has changed: seldom, and for all choices until then."""
        if self._rows_at != view.profile_changes or len(self._rows) >= ROWS_MAX:
            self._rows.clear()
            self._rows_at = view.profile_changes
        key = (need.kind, need.language, need.model, warm_only)
        if key not in self._rows:
            known = [(peer, self._bare(peer, heard)) for peer, heard in view.peers.items()]
            self._rows[key] = row(
                {
                    peer: capacity(need, one)
                    for peer, one in known
                    if not lacks(need, one) and (is_warm(need, one) or not warm_only)
                }
            )
        return self._rows[key]

    def _bare(self, peer: PeerId, heard: PeerTelemetry) -> Candidate:
        return self.peer(
            peer, heard.profile, heard.hot, rtt_s=None, is_routable=True, heard_at=heard.heard_at
        )

    def sending(self, peer: PeerId, kind: Kind) -> AbstractContextManager[None]:
        """Count a request as on its way to `peer`, for the choices made meanwhile."""
        return _OnItsWay(self._in_flight.setdefault((peer, kind), []))

    def ourselves(self, peer: PeerId, name: str, profile: Profile, hot: Hot | OwnHot) -> Candidate:
        """This node. Its own values are never stale, and no limit for others concerns it."""
        return self._of(peer, name, profile, hot, rtt_s=0.0, is_routable=True, heard_at=None)

    def peer(
        self,
        peer: PeerId,
        profile: Profile,
        hot: Hot,
        *,
        rtt_s: float | None,
        is_routable: bool,
        heard_at: float,
        seen_chance: float = 1.0,
    ) -> Candidate:
        """Another one, whose `hot` values were heard at `heard_at`."""
        return self._of(
            peer,
            profile.name,
            profile,
            hot,
            rtt_s=rtt_s,
            is_routable=is_routable,
            heard_at=heard_at,
            seen_chance=seen_chance,
        )

    def forget(self, peer: PeerId) -> None:
        """It is gone; what it has is read anew when it comes back."""
        self._lasting.pop(peer, None)

    def _of(
        self,
        peer: PeerId,
        name: str,
        profile: Profile,
        hot: Hot | OwnHot,
        *,
        rtt_s: float | None,
        is_routable: bool,
        heard_at: float | None,
        seen_chance: float = 1.0,
    ) -> Candidate:
        lasting, is_self = self._lasting_of(peer, profile), heard_at is None
        occupancy: dict[Kind, Occupancy] = {
            "code": hot.repl,
            "inference": hot.inference,
            "folding": hot.folding,
        }
        return Candidate(
            peer=peer,
            name=name,
            roles=lasting.roles,
            languages=lasting.languages,
            models=lasting.models,
            occupancy=occupancy,
            memory_used=hot.memory_used,
            tokens_per_s=hot.tokens_per_s,
            rtt_s=rtt_s,
            is_routable=is_routable,
            own_in_flight={
                kind: self._unheard_of(peer, kind, at, heard_at) for kind, at in occupancy.items()
            },
            is_self=is_self,
            paused=hot.paused if isinstance(hot, Hot) and not is_self else "",
            is_draining=hot.is_draining,
            speed=profile.speed,
            warm=lasting.warm,
            seen_chance=seen_chance,
        )

    def _lasting_of(self, peer: PeerId, profile: Profile) -> _Lasting:
        """Kept as long as the peer's last profile is this very one: profiles are frozen."""
        kept = self._lasting.get(peer)
        if kept is None or kept.profile is not profile:
            kept = self._lasting[peer] = _Lasting(
                profile,
                roles=frozenset(profile.roles),
                languages=frozenset(language.name for language in profile.languages),
                models=frozenset(model.name for model in profile.models),
                warm=frozenset(model.name for model in profile.models if model.is_warm),
            )
        return kept

    def _unheard_of(self, peer: PeerId, kind: Kind, at: Occupancy, heard_at: float | None) -> int:
        """How many of our requests the peer's values cannot tell of yet."""
        sent = self._in_flight.get((peer, kind), ())
        if heard_at is None:
            # Our own values are never stale; only what has not reached its room is missing.
            return max(0, len(sent) - at.running - at.queued)
        return sum(sent_at >= heard_at for sent_at in sent)
