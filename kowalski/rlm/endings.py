"""How a session ends, and what it then says of its answer.

A `Finish` without reservations has no detail. Others begin with a code: of the failure, such as
`bad_answer` (not of the wanted shape), or of the reservation: `unready` (set in the session, never
marked as ready), `extracted` (said, not set), `unrefined` (mode `blocks`: no model saw the
outputs), `unfinished` (mode `blocks`: the model wanted more), `below` (judged, and not as good as
was wanted), `unjudged` (nobody could judge it).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.journal import BudgetSpent, Outcome
from kowalski.rlm import schemas, window, wording
from kowalski.rlm.parsing import replace_blocks
from kowalski.rlm.session_state import Finish, Finished, Judging, Running, Session

UNREADY: Final = "the session never marked it as ready"


def finished(
    session: Session, outcome: Outcome, answer: str, detail: str, *, score: float | None = None
) -> Session:
    return replace(session, stage=Finished(Finish(outcome, answer, line(detail), score)))


def failed(session: Session, code: str, detail: str) -> Session:
    return finished(session, "failed", partial(session), f"{code}: {detail}")


def concluded(session: Session, answer: str, detail: str) -> Session:
    """End with `answer`, which nobody can improve any more: if it must have a shape, it has it."""
    if session.spec.shape is not None:
        match schemas.fit(answer, session.spec.shape.json_schema):
            case schemas.Misfits(complaint):
                return misshapen(
                    session, answer, f"{complaint} ({detail})" if detail else complaint
                )
            case schemas.Fits(text):
                answer = text
    return finished(session, "answered", answer, detail)


def misshapen(session: Session, raw: str, complaint: str) -> Session:
    """The raw value is what there is of an answer."""
    return finished(session, "failed", raw, f"bad_answer: {complaint}")


def best_of(session: Session, why: str) -> Session:
    """The answer that was judged best, though not good enough."""
    best, quality = session.best, session.spec.quality
    assert best is not None
    assert quality is not None
    detail = f"below: judged {best.score:.2f} where {quality.threshold:g} was wanted; {why}"
    return finished(session, "answered", best.answer, detail, score=best.score)


def partial(session: Session) -> str:
    match session.stage:
        case Running(is_prompt=True) as running:
            outputs = wording.outputs_by_block(running, session.limits)
            return session.answer or replace_blocks(running.text, outputs)
        case Judging(answer=answer):
            return answer
        case _ if session.best is not None and not session.answer.strip():
            return session.best.answer
        case _:
            return session.answer


def unrefined(session: Session, why: str) -> Session:
    """The text with outputs as the answer; it says so itself, wherever it is read."""
    if session.best is not None:
        return best_of(session, why)
    if session.turns:
        return concluded(session, session.answer, f"unfinished: {why}")
    answer = f"{session.answer.rstrip()}\n\n{wording.UNREFINED.format(why=why)}\n"
    return concluded(session, answer, f"unrefined: {why}")


def out_of_turns(session: Session, outputs: str, why: str) -> Session:
    """`why` as of `turns.over_because`."""
    if session.best is not None:
        return best_of(session, f"no better {why}")
    if session.mode == "blocks":
        return unrefined(session, f"no final answer {why}")
    if session.answer.strip():
        return concluded(session, session.answer, f"unready: {UNREADY} {why}")
    return extracting(session, outputs)


def extracting(session: Session, outputs: str) -> Session:
    """Ask for the last word."""
    session = replace(session, is_extracting=True)
    told = session.render("extract", outputs=outputs)
    if session.spec.shape is not None:
        told = f"{told}\n\n{wording.shape(session)}"
    return window.asked(window.said(session, "user", told), "extract")


def out_of_budget(session: Session, event: BudgetSpent) -> Session:
    why = f"{event.limit}: {event.detail or 'a limit of the task was reached'}"
    match session.stage:
        case Judging(answer=answer):
            return finished(session, "answered", answer, f"unjudged: {why}")
        case _ if session.best is not None:
            return best_of(session, why)
        case _ if not session.answer.strip():
            return finished(session, "failed", partial(session), why)
        case _ if session.mode == "blocks":
            return unrefined(session, why)
        case _:
            return concluded(session, session.answer, f"unready: {why}")
