"""How many tokens texts are for a model: as a peer that has it counts, else an estimate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kowalski.mesh.core import model_names
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.backends.token_counting import KINDS
from kowalski.node.services import inference
from kowalski.protocol.messages.inference import TokensAsked, TokensCounted
from kowalski.rlm.tokens import estimate_tokens

COUNT_S: Final = 5.0
PEERS_ASKED_MAX: Final = 3
REQUEST_BYTES_MAX: Final = 768 * 1024


@dataclass(frozen=True, slots=True)
class Counts:
    """`by` is the name of the peer that counted; None where it is our own estimate."""

    counts: tuple[int, ...]
    is_estimate: bool
    model: str
    by: str | None = None
    backend: str = ""


def order(model: str, facts: Iterable[PeerFacts]) -> tuple[PeerFacts, ...]:
    """Who is asked: peers that have the model, those whose servers count first, then the near."""

    def counts(one: PeerFacts) -> bool:
        assert one.profile is not None
        return any(
            told.backend in KINDS
            for told in one.profile.models
            if told.name in model_names.resolve(model, {told.name})
        )

    able = [
        one
        for one in facts
        if one.is_routable and "infer" in one.roles and one.profile is not None
        if model_names.resolve(model, {told.name for told in one.profile.models})
    ]
    return tuple(
        sorted(
            able,
            key=lambda one: (
                not counts(one),
                not one.is_self,
                math.inf if one.rtt_s is None else one.rtt_s,
                one.peer,
            ),
        )
    )


class TokenCounts:
    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def count(self, model: str, texts: Sequence[str]) -> Counts:
        """Of each text, without a chat template; never fails, and never waits for long."""
        best: Counts | None = None
        if sum(len(text.encode()) for text in texts) <= REQUEST_BYTES_MAX:
            for one in order(model, self._mesh.facts())[:PEERS_ASKED_MAX]:
                told = await self._ask(one, model, texts)
                if told is not None:
                    best = told if best is None or best.is_estimate else best
                    if not told.is_estimate:
                        break
        return best or Counts(tuple(map(estimate_tokens, texts)), is_estimate=True, model=model)

    async def _ask(self, one: PeerFacts, model: str, texts: Sequence[str]) -> Counts | None:
        request = TokensAsked(model=model, texts=tuple(texts), remaining_s=COUNT_S)
        try:
            told = await self._mesh.request(
                one.peer, inference.PROTOCOL, request, TokensCounted, timeout_s=COUNT_S
            )
        except Weather:
            return None
        if len(told.counts) != len(texts):
            return None
        return Counts(told.counts, told.is_estimate, told.model, one.name, told.backend)
