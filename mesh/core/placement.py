"""Which peer a piece of work goes to: hard filters first, then the base score.

The load that counts is what the peer last said plus what we sent it since. The local node
competes on equal terms. Every choice carries its inputs, so that it can be explained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from kowalski.mesh.core import scorer
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Occupancy
from kowalski.protocol.messages.trust import Role

Kind = Literal["code", "inference", "folding"]

ROLE_OF: dict[Kind, Role] = {"code": "repl", "inference": "infer", "folding": "fold"}

UNMEASURED_RTT_S = 0.05
UNMEASURED_TOKENS_PER_S = 10.0
"""A model that served nothing yet is assumed slow, so that it is tried but not flooded."""


@dataclass(frozen=True, slots=True)
class Need:
    """`language` for code; `model` for inference, None for any."""

    kind: Kind
    language: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One peer as it stands in the view. `own_in_flight` is what we sent since it last spoke."""

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


@dataclass(frozen=True, slots=True)
class Choice:
    peer: PeerId
    name: str
    score: float
    why: str


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
    """Order the peers that can do `need`. Equal scores are ordered by a hash, not by name."""
    choices: list[Choice] = []
    rejections: list[Rejection] = []
    for candidate in candidates:
        why_not = _why_not(need, candidate, excluding)
        if why_not:
            rejections.append(Rejection(candidate.peer, candidate.name, why_not))
        else:
            choices.append(_choice(need, candidate))
    choices.sort(key=lambda choice: (-round(choice.score, 6), _tie_breaker(need, choice.peer)))
    return Ranking(tuple(choices), tuple(rejections))


def load(candidate: Candidate, kind: Kind) -> float:
    """(running + queued + ours since) / slots, unclipped: 1 is full, 2 is a queue as long again."""
    at = candidate.occupancy[kind]
    return (at.running + at.queued + candidate.own_in_flight.get(kind, 0)) / max(at.slots, 1)


def _why_not(need: Need, candidate: Candidate, excluding: frozenset[PeerId]) -> str:
    if candidate.peer in excluding:
        return "tried already"
    if not candidate.is_routable:
        return "not reachable now"
    if ROLE_OF[need.kind] not in candidate.roles:
        return f"does not offer {ROLE_OF[need.kind]}"
    if need.kind == "code" and need.language not in candidate.languages:
        return f"no {need.language}"
    if need.kind == "inference" and not candidate.models:
        return "no model"
    if need.kind == "inference" and need.model and need.model not in candidate.models:
        return f"no model {need.model}"
    return ""


def _choice(need: Need, candidate: Candidate) -> Choice:
    rtt_s = UNMEASURED_RTT_S if candidate.rtt_s is None else candidate.rtt_s
    match need.kind:
        case "code":
            at = load(candidate, "code")
            score = scorer.code_score(load=at, rtt_s=rtt_s)
            why = f"load {at:.2f}, round trip {rtt_s * 1000:.1f} ms"
        case "inference":
            speed = _tokens_per_s(need, candidate)
            at = load(candidate, "inference")
            # Speed is shared by those who use it: without this the fastest peer gets everything.
            score = scorer.inference_score(
                memory_used=candidate.memory_used, tokens_per_s=speed / (1.0 + at)
            )
            why = f"{speed:.0f} tokens/s, load {at:.2f}, memory {candidate.memory_used:.0%} used"
        case "folding":
            score = scorer.folding_score(rtt_s=rtt_s)
            why = f"round trip {rtt_s * 1000:.1f} ms"
    return Choice(candidate.peer, candidate.name, score, f"score {score:.3f}: {why}")


def _tokens_per_s(need: Need, candidate: Candidate) -> float:
    names = [need.model] if need.model else sorted(candidate.models)
    return max(
        (candidate.tokens_per_s.get(name, UNMEASURED_TOKENS_PER_S) for name in names),
        default=UNMEASURED_TOKENS_PER_S,
    )


def _tie_breaker(need: Need, peer: PeerId) -> bytes:
    return blake2b(f"{need.kind} {need.language} {need.model} {peer}".encode()).digest()
