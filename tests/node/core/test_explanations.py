"""What is told of a choice: enough for a person to recompute it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core import rendezvous, scorer
from kowalski.mesh.core.decisions import Decision
from kowalski.mesh.core.offers import TRANSFER_BYTES_PER_S, Refusal
from kowalski.mesh.core.placement import Candidate, Kind, Need, rank
from kowalski.node.core.appointments import Appointment
from kowalski.node.core.explanations import appointment_told, decision_told, need_in_words
from kowalski.protocol.codec import decode, encode
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.explaining import CANDIDATES_MAX, CandidateTold
from kowalski.protocol.messages.placement import Offer
from kowalski.protocol.messages.telemetry import Occupancy

TASK = TaskId("t")


def peer(number: int) -> PeerId:
    return PeerId(f"12D3KooW{'abcdefghij'[number // 10]}{'abcdefghij'[number % 10]}")


def candidate(number: int, at: Occupancy | None = None, **changes: object) -> Candidate:
    occupancy: dict[Kind, Occupancy] = {
        kind: at or Occupancy(slots=4) for kind in ("code", "inference", "folding")
    }
    one = Candidate(
        peer=peer(number),
        name=f"box-{number}",
        roles=frozenset({"repl", "infer", "fold"}),
        languages=frozenset({"python"}),
        models=frozenset({"m"}),
        occupancy=occupancy,
        memory_used=0.25,
        tokens_per_s={"m": 40.0},
        rtt_s=0.01,
        is_routable=True,
        own_in_flight={"code": 1, "inference": 1},
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def decision(need: Need, *candidates: Candidate, chosen: PeerId | None = None) -> Decision:
    return Decision(10.0, need, "offers", rank(need, candidates), chosen, "because")


def recomputed(kind: str, told: CandidateTold) -> float:
    """A score from what was told, by the published formulas."""
    load = (told.running + told.queued + told.ours) / max(told.slots, 1)
    rtt_s = told.rtt_s if told.rtt_s is not None else 0.05
    if kind == "code":
        idle = 1 - load
        idle = idle / told.slowness if idle > 0 else idle * told.slowness
        return scorer.code_score(load=1 - idle, rtt_s=rtt_s)
    if kind == "inference":
        assert told.tokens_per_s is not None
        speed = told.tokens_per_s / told.slowness / (1 + load)
        return scorer.inference_score(memory_used=told.memory_used, tokens_per_s=speed)
    return scorer.folding_score(rtt_s=rtt_s * told.slowness)


places = st.integers(0, 20)


@given(
    st.sampled_from(["code", "inference", "folding"]),
    st.builds(Occupancy, running=places, queued=places, slots=places),
    st.floats(1, 50),
    st.one_of(st.none(), st.floats(0, 3)),
)
def test_every_score_can_be_recomputed_from_what_is_told(
    kind: Kind, at: Occupancy, slowness: float, rtt_s: float | None
) -> None:
    need = Need(kind, language="python" if kind == "code" else None)
    one = candidate(1, at, slowness=slowness, rtt_s=rtt_s)
    told = decode(encode(decision_told(decision(need, one), now=12.0)))
    (row,) = told.candidates  # type: ignore[attr-defined]
    assert row.score == pytest.approx(recomputed(kind, row))


def test_offers_and_refusals_stand_beside_their_peers_and_the_chosen_one_is_named() -> None:
    need = Need("code", language="python")
    one, other, unable = candidate(1, slowness=2.0), candidate(2), candidate(3, languages=())
    made = decision(need, one, other, unable, chosen=one.peer)
    made.offers[one.peer] = Offer(wait_s=1.0, service_s=2.0, running=1, slots=4, held=(1,))
    made.refusals[other.peer] = Refusal("busy: full", 0.5)
    told = decision_told(made, now=13.5, content_bytes=(50_000_000, 7))
    assert (told.age_s, told.way, told.chosen, told.why) == (3.5, "offers", one.peer, "because")
    rows = {row.name: row for row in told.candidates}
    offer = rows["box-1"].offer
    assert offer is not None
    believed = (1.0 + 2.0 + 2 * 0.01) * 2.0 + 50_000_000 / TRANSFER_BYTES_PER_S
    assert offer.expected_s == pytest.approx(believed), "the second content is held there"
    assert (rows["box-2"].refused, rows["box-2"].retry_after_s) == ("busy: full", 0.5)
    assert (rows["box-3"].score, rows["box-3"].why) == (None, "no python")


def test_of_very_many_candidates_the_chosen_one_is_among_those_told() -> None:
    need = Need("code", language="python")
    many = [candidate(number, rtt_s=number / 100) for number in range(99)]
    last = many[-1].peer
    told = decision_told(decision(need, *many, chosen=last), now=10.0)
    assert len(told.candidates) == CANDIDATES_MAX
    assert told.candidates[-1].peer == last
    scores = [row.score or 0.0 for row in told.candidates]
    assert scores == sorted(scores, reverse=True)


def test_what_is_beyond_the_wire_is_told_as_far_as_it_goes() -> None:
    need = Need("code", language="python", units=1e12)
    one = candidate(1, name="x" * 500, slowness=1e12, unit_s=1e9, rtt_s=1e9)
    told = decision_told(decision(need, one, chosen=one.peer), now=5.0)
    assert decode(encode(told)) == told
    assert told.age_s == 0.0, "clocks of virtual worlds may stand"


def test_who_leads_is_told_with_the_weights_and_scores_of_all_who_could() -> None:
    weights = {peer(n): 1.0 - n / 4 for n in range(3)}
    winner, standby, failed = rendezvous.order(TASK, weights)
    made = Appointment(
        2.0, 3, winner, "its coordinator has left", weights, frozenset({failed}), (standby,)
    )
    told = appointment_told(TASK, made, 4.0, lambda peer: peer[-2:])
    assert (told.term, told.chosen, told.age_s) == (3, winner, 2.0)
    assert [row.peer for row in told.candidates] == [winner, standby, failed]
    assert [row.is_standby for row in told.candidates] == [False, True, False]
    assert [row.is_excluded for row in told.candidates] == [False, False, True]
    for row in told.candidates:
        weight = rendezvous.quantised(weights[row.peer])
        assert row.score == rendezvous.score(TASK, row.peer, weight)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (("code", "python", None), "run python"),
        (("code", None, None), "run a program"),
        (("inference", None, "m"), "ask model m"),
        (("inference", None, None), "ask any model"),
        (("folding", None, None), "fold a text"),
        (("dancing", None, None), "dancing"),
    ],
)
def test_what_was_wanted_is_said_in_words(
    wanted: tuple[str, str | None, str | None], words: str
) -> None:
    assert need_in_words(*wanted) == words
