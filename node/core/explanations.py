"""Choices of peers as others are told of them: every input that a person needs to recompute one.

The formulas are in `mesh.core.scorer` (scores), `mesh.core.offers` (expected completion) and
`mesh.core.rendezvous` (who leads).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kowalski.mesh.core import offers, rendezvous
from kowalski.mesh.core.decisions import Decision
from kowalski.mesh.core.placement import Choice, Rejection, tokens_per_s
from kowalski.node.core.appointments import Appointment
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.explaining import (
    CANDIDATES_MAX,
    AppointmentTold,
    CandidateTold,
    DecisionTold,
    LeaderTold,
    OfferTold,
)
from kowalski.protocol.messages.placement import Offer

NameOf = Callable[[PeerId], str]

SECONDS_MAX = 10_000_000.0
NUMBER_MAX = 1e9
NAME_CHARS_MAX = 128


def decision_told(
    decision: Decision, now: float, *, content_bytes: Iterable[int] = ()
) -> DecisionTold:
    """`content_bytes`: sizes of what the work reads, which a peer without it had to fetch."""
    need, ranking = decision.need, decision.ranking
    sizes = tuple(content_bytes)
    able = [_choice_told(decision, choice, sizes) for choice in ranking.choices]
    unable = [_rejection_told(no) for no in ranking.rejections]
    # Of more than are told those go first that could, and the one that was chosen before all.
    told = sorted([*able, *unable], key=lambda one: one.peer != decision.chosen)[:CANDIDATES_MAX]
    kept = {one.peer for one in told}
    return DecisionTold(
        age_s=_seconds(now - decision.at),
        kind=need.kind,
        language=need.language,
        model=need.model,
        units=_number(need.units),
        way=decision.way,
        chosen=decision.chosen,
        why=line(decision.why),
        expected_s=_some_seconds(decision.expected_s),
        retry_after_s=_some_seconds(decision.retry_after_s),
        candidates=tuple(one for one in (*able, *unable) if one.peer in kept),
    )


def _choice_told(decision: Decision, choice: Choice, sizes: tuple[int, ...]) -> CandidateTold:
    one, need = choice.candidate, decision.need
    at = one.occupancy[need.kind]
    offer, refusal = decision.offers.get(one.peer), decision.refusals.get(one.peer)
    return CandidateTold(
        peer=one.peer,
        name=one.name[:NAME_CHARS_MAX],
        why=line(choice.why),
        score=_number(choice.score),
        is_ready=choice.is_ready,
        running=at.running,
        queued=at.queued,
        slots=at.slots,
        ours=max(0, one.own_in_flight.get(need.kind, 0)),
        memory_used=one.memory_used,
        tokens_per_s=tokens_per_s(need, one) if need.kind == "inference" else None,
        rtt_s=_some_seconds(one.rtt_s),
        speed=_number(one.speed),
        slowness=_number(one.slowness),
        unit_s=_some_seconds(one.unit_s),
        holds_prefix=one.holds_prefix,
        offer=None if offer is None else _offer_told(choice, offer, sizes),
        refused="" if refusal is None else line(refusal.why),
        retry_after_s=None if refusal is None else _some_seconds(refusal.retry_after_s),
    )


def _offer_told(choice: Choice, offer: Offer, sizes: tuple[int, ...]) -> OfferTold:
    return OfferTold(
        wait_s=offer.wait_s,
        service_s=offer.service_s,
        saved_s=offer.saved_s,
        running=offer.running,
        queued=offer.queued,
        slots=offer.slots,
        cached_tokens=offer.cached_tokens,
        held=len(offer.held),
        expected_s=_seconds(offers.believed_s(choice, offer, sizes)),
    )


def _rejection_told(no: Rejection) -> CandidateTold:
    return CandidateTold(peer=no.peer, name=no.name[:NAME_CHARS_MAX], why=line(no.why))


def appointment_told(
    task: TaskId, made: Appointment, now: float, name_of: NameOf
) -> AppointmentTold:
    scores = {
        peer: rendezvous.score(task, peer, rendezvous.quantised(weight))
        for peer, weight in made.weights.items()
    }
    best_first = sorted(scores, key=lambda peer: (-scores[peer], peer))
    return AppointmentTold(
        age_s=_seconds(now - made.at),
        term=made.term,
        chosen=made.chosen,
        why=line(made.why),
        candidates=tuple(
            LeaderTold(
                peer=peer,
                name=name_of(peer)[:NAME_CHARS_MAX],
                weight=_number(made.weights[peer]),
                score=_number(scores[peer]),
                is_excluded=peer in made.excluded,
                is_standby=peer in made.standbys,
            )
            for peer in best_first[:CANDIDATES_MAX]
        ),
    )


def need_in_words(kind: str, language: str | None, model: str | None) -> str:
    """What was wanted of a peer; also of kinds that only a newer peer knows."""
    match kind:
        case "code":
            return f"run {language or 'a program'}"
        case "inference":
            return f"ask model {model}" if model else "ask any model"
        case "folding":
            return "fold a text"
        case _:
            return kind


def _seconds(value: float) -> float:
    return min(SECONDS_MAX, max(0.0, value))


def _some_seconds(value: float | None) -> float | None:
    return None if value is None else _seconds(value)


def _number(value: float) -> float:
    return min(NUMBER_MAX, max(-NUMBER_MAX, value))
