"""Whether an answer that was offered is the end: its shape first, then its quality.

Length never counts. An answer that is turned down is told why, and offered again it counts only if
it has changed.
"""

from __future__ import annotations

from dataclasses import replace

from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.journal import ModelFailed, ModelReplied
from kowalski.rlm import endings, quality, schemas, turns, wording
from kowalski.rlm.session_state import Judging, Session, Turning


def offered(session: Session, answer: str, purpose: Turning, outputs: str = "") -> Session:
    """`answer` is said to be the answer; `outputs` are those of the turn that said so."""
    spec, raw = session.spec, answer
    if spec.shape is not None:
        match schemas.fit(answer, spec.shape.json_schema):
            case schemas.Misfits(complaint):
                return _misfit(session, raw, complaint, purpose, outputs)
            case schemas.Fits(text):
                answer = text
    session = replace(session, offered=raw)
    if spec.quality is None:
        return endings.finished(session, "answered", answer, "")
    question = ChatMessage(role="user", content=wording.evaluation(session, answer))
    return replace(session, stage=Judging(answer, (question,), outputs, purpose))


def _misfit(session: Session, raw: str, complaint: str, purpose: Turning, outputs: str) -> Session:
    shape = session.spec.shape
    assert shape is not None
    session = replace(session, offered=raw, misfits=session.misfits + 1)
    is_last = bool(turns.over_because(session))
    if session.misfits >= shape.tries or (is_last and session.best is None):
        return endings.misshapen(session, raw, f"{complaint} (after {session.misfits} tries)")
    problem = f"It is not of the wanted shape: {complaint}."
    return turns.improved(session, purpose, problem, outputs)


def judged(session: Session, judging: Judging, event: ModelReplied | ModelFailed) -> Session:
    """What the judge said of the answer that was offered."""
    wanted = session.spec.quality
    assert wanted is not None
    if isinstance(event, ModelFailed):
        why = f"unjudged: {event.code}: {event.detail}"
        return endings.finished(session, "answered", judging.answer, why)
    judgement = quality.judgement_of(wording.spoken(event.text))
    if judgement is None:
        why = f"unjudged: the judge gave no score, but: {event.text[:80]!r}"
        return endings.finished(session, "answered", judging.answer, why)
    score = judgement.score
    if score >= wanted.threshold:
        return endings.finished(session, "answered", judging.answer, "", score=score)
    session = replace(session, best=quality.better(session.best, judging.answer, score))
    assert session.best is not None
    if session.best.flat >= wanted.patience:
        return endings.best_of(session, f"no better in {session.best.flat} judgements")
    problem = f"It was judged {score:.2f} where {wanted.threshold:g} is wanted"
    problem += f": {judgement.words}" if judgement.words else "."
    return turns.improved(session, judging.purpose, problem, judging.outputs)
