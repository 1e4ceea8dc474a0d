"""Which peers can do a piece of work, and how good each looks: hard filters, then the base score.

The load that counts is what the peer last said plus what we sent it since, and what it says is
discounted by how slow we found it. The local node competes on equal terms. Every choice carries
its inputs, so that it can be explained. The view is a second old: under load the score only
shortlists (`shortlist`), and live offers decide (`offers`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, Protocol

from kowalski.mesh.core import model_names, scorer
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Occupancy
from kowalski.protocol.messages.trust import Role

Kind = Literal["code", "inference", "folding"]

Devices = Literal["all", "local", "network"]
"""On which devices: any, this one alone, or any other."""

ROLE_OF: dict[Kind, Role] = {"code": "repl", "inference": "infer", "folding": "fold"}

UNMEASURED_RTT_S = 0.05
UNMEASURED_TOKENS_PER_S = 10.0
"""A model that served nothing yet is assumed slow, so that it is tried but not flooded."""

BREAKER_OPEN = "it failed too often lately"
LEAVING = "is about to leave"

SLOWNESS_TOLD = 1.25
"""From here on the discount is worth a word."""


@dataclass(frozen=True, slots=True)
class Need:
    """`language` for code; `model` for inference, None for any.

    `units` says how much work it is, in what `Candidate.unit_s` counts.
    """

    kind: Kind
    language: str | None = None
    model: str | None = None
    devices: Devices = "all"
    units: float = 1.0
    work: str = field(init=False, compare=False)
    """What is comparable with each other when it comes to how long it takes."""

    def __post_init__(self) -> None:
        # Asked for twenty times at each request.
        object.__setattr__(self, "work", work_of(self.kind, self.language, self.model))


def work_of(kind: Kind, language: str | None, model: str | None) -> str:
    """See `Need.work`."""
    match kind:
        case "code":
            return f"code {language}"
        case "inference":
            return f"inference {model or '*'}"
        case "folding":
            return "folding"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One peer as it stands in the view. `own_in_flight` is what we sent since it last spoke.

    The fields with a default are not what it says of itself but what we know better, see
    `experience`: `unit_s`, seconds a unit of this work took there; `slowness`, by how much to
    multiply its promises; `is_admitted`, whether its breaker lets a request through. `speed` is
    relative, for code: 1 is a usual core. `holds_prefix`: we sent it the beginning of this before.
    `warm` are the models that it has in memory, None where it does not tell. `seen_chance`: how
    likely it was to be looked at at all, see `glance`.
    """

    peer: PeerId
    name: str
    roles: frozenset[str]
    languages: frozenset[str]
    models: frozenset[str]
    occupancy: dict[Kind, Occupancy]
    memory_used: float
    tokens_per_s: dict[str, float]
    rtt_s: float | None
    is_routable: bool
    own_in_flight: dict[Kind, int]
    is_self: bool = False
    paused: str = ""
    speed: float = 1.0
    unit_s: float | None = None
    slowness: float = 1.0
    is_admitted: bool = True
    holds_prefix: bool = False
    warm: frozenset[str] | None = None
    is_draining: bool = False
    seen_chance: float = 1.0

    def known_better(
        self, unit_s: float | None, slowness: float, *, is_admitted: bool, holds_prefix: bool
    ) -> Candidate:
        """With what we know of it ourselves. Every candidate of every request passes here."""
        return Candidate(
            peer=self.peer,
            name=self.name,
            roles=self.roles,
            languages=self.languages,
            models=self.models,
            occupancy=self.occupancy,
            memory_used=self.memory_used,
            tokens_per_s=self.tokens_per_s,
            rtt_s=self.rtt_s,
            is_routable=self.is_routable,
            own_in_flight=self.own_in_flight,
            is_self=self.is_self,
            paused=self.paused,
            speed=self.speed,
            unit_s=unit_s,
            slowness=slowness,
            is_admitted=is_admitted,
            holds_prefix=holds_prefix,
            warm=self.warm,
            is_draining=self.is_draining,
            seen_chance=self.seen_chance,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """A peer that can do it. `candidate` is what `score` was computed from; `why`, in words.

    `is_ready`: it could begin now; for models, one is loaded and a slot of it is free.
    """

    candidate: Candidate
    score: float
    why: str
    is_ready: bool = True

    @property
    def peer(self) -> PeerId:
        return self.candidate.peer

    @property
    def name(self) -> str:
        return self.candidate.name


@dataclass(frozen=True, slots=True)
class Rejection:
    peer: PeerId
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Best first."""

    choices: tuple[Choice, ...]
    rejections: tuple[Rejection, ...]

    @property
    def best(self) -> Choice | None:
        return self.choices[0] if self.choices else None

    def explain(self) -> str:
        """Why nobody will do, in one line."""
        if not self.rejections:
            return "no peers are known"
        return "; ".join(f"{no.name or no.peer[-6:]}: {no.why}" for no in self.rejections[:8])


def rank(
    need: Need, candidates: Iterable[Candidate], *, excluding: frozenset[PeerId] = frozenset()
) -> Ranking:
    """Order the peers that can do `need`. Equal scores are ordered by a hash, not by name.

    Where the breakers of half of those that could are open, they are ignored: it is then more
    likely that something is wrong here, or everywhere, and somebody has to be asked. Who is about
    to leave is asked where nobody else could: it ends what was begun.
    """
    able: list[Candidate] = []
    rejections: list[Rejection] = []
    for candidate in candidates:
        why_not = _why_not(need, candidate, excluding)
        if why_not:
            rejections.append(Rejection(candidate.peer, candidate.name, why_not))
        else:
            able.append(candidate)
    cut_off = [one for one in able if not one.is_admitted]
    if cut_off and 2 * len(cut_off) < len(able):
        able = [one for one in able if one.is_admitted]
        rejections += [Rejection(one.peer, one.name, BREAKER_OPEN) for one in cut_off]
    leaving = [one for one in able if one.is_draining]
    if len(leaving) < len(able):
        able = [one for one in able if not one.is_draining]
        rejections += [Rejection(one.peer, one.name, LEAVING) for one in leaving]
    choices = [choice_of(need, candidate) for candidate in able]
    choices.sort(
        key=lambda choice: (
            not choice.is_ready,
            -round(choice.score, 6),
            tie_breaker(need, choice.peer),
        )
    )
    return Ranking(tuple(choices), tuple(rejections))


def load(candidate: Candidate, kind: Kind) -> float:
    """(running + queued + ours since) / slots, unclipped: 1 is full, 2 is a queue as long again."""
    at = candidate.occupancy[kind]
    return (at.running + at.queued + candidate.own_in_flight.get(kind, 0)) / max(at.slots, 1)


def capacity(need: Need, candidate: Candidate) -> float:
    """How much of such work a peer does in a given time, compared with others."""
    slots = max(1, candidate.occupancy[need.kind].slots)
    speed = candidate.speed if need.kind != "inference" else tokens_per_s(need, candidate)
    return slots * max(speed, 1e-3) / candidate.slowness


def round_trip_s(candidate: Candidate) -> float:
    return UNMEASURED_RTT_S if candidate.rtt_s is None else candidate.rtt_s


def tokens_per_s(need: Need, candidate: Candidate) -> float:
    """As it says, of the model that is asked for or else of its fastest."""
    return max(
        (
            candidate.tokens_per_s.get(name, UNMEASURED_TOKENS_PER_S)
            for name in _names(need, candidate)
        ),
        default=UNMEASURED_TOKENS_PER_S,
    )


def is_warm(need: Need, candidate: Candidate) -> bool:
    """Whether a model that will do is in its memory; a peer that does not tell is believed."""
    warm = candidate.warm
    return warm is None or any(name in warm for name in _names(need, candidate))


def _names(need: Need, candidate: Candidate) -> Iterable[str]:
    """Of its models, those that will do."""
    return model_names.resolve(need.model, candidate.models) if need.model else candidate.models


def tie_breaker(need: Need, peer: PeerId) -> bytes:
    return blake2b(f"{need.kind} {need.language} {need.model} {peer}".encode()).digest()


def _why_not(need: Need, candidate: Candidate, excluding: frozenset[PeerId]) -> str:
    if candidate.peer in excluding:
        return "tried already"
    if need.devices == "local" and not candidate.is_self:
        return "only this device is wanted"
    if need.devices == "network" and candidate.is_self:
        return "another device is wanted"
    if not candidate.is_routable:
        return "not reachable now"
    if no := lacks(need, candidate):
        return no
    if candidate.paused:
        return f"takes no work now: {candidate.paused}"
    return ""


class Able(Protocol):
    """What a profile tells of a peer's abilities."""

    @property
    def roles(self) -> frozenset[str]: ...

    @property
    def languages(self) -> frozenset[str]: ...

    @property
    def models(self) -> frozenset[str]: ...


def lacks(need: Need, candidate: Able) -> str:
    """What it has not that the work needs, by its profile; empty where it could do it."""
    if ROLE_OF[need.kind] not in candidate.roles:
        return f"does not offer {ROLE_OF[need.kind]}"
    if need.kind == "code" and need.language not in candidate.languages:
        return f"no {need.language}"
    if need.kind == "inference" and not candidate.models:
        return "no model"
    if need.model and not model_names.resolve(need.model, candidate.models):
        return f"no model {need.model}"
    return ""


def choice_of(need: Need, candidate: Candidate) -> Choice:
    """A peer that can do it, with its score."""
    rtt_s, slowness = round_trip_s(candidate), candidate.slowness
    is_ready = True
    match need.kind:
        case "code":
            at = load(candidate, "code")
            idle = 1.0 - at
            idle = idle / slowness if idle > 0 else idle * slowness
            score = scorer.code_score(load=1.0 - idle, rtt_s=rtt_s)
            why = f"load {at:.2f}, round trip {rtt_s * 1000:.1f} ms"
        case "inference":
            speed = tokens_per_s(need, candidate)
            at = load(candidate, "inference")
            # Speed is shared by those who use it: without this the fastest peer gets everything.
            score = scorer.inference_score(
                memory_used=candidate.memory_used, tokens_per_s=speed / slowness / (1.0 + at)
            )
            why = f"{speed:.0f} tokens/s, load {at:.2f}, memory {candidate.memory_used:.0%} used"
            # Loading a model takes longer than most answers: only a full one is worth that.
            is_ready = is_warm(need, candidate)
            why += "" if is_ready else ", not loaded there"
            is_ready &= at < 1.0
        case "folding":
            score = scorer.folding_score(rtt_s=rtt_s * slowness)
            why = f"round trip {rtt_s * 1000:.1f} ms"
    if slowness >= SLOWNESS_TOLD:
        why += f", {slowness:.1f} times slower than it says"
    return Choice(candidate, score, f"score {score:.3f}: {why}", is_ready)
