"""How a session ends, and what it then says of its answer.

A `Finish` without reservations has no detail. Others begin with a code: of the failure, or
`unready` (set in the session, never marked as ready), `extracted` (said, not set), `unrefined`
(mode `blocks`: no model saw the outputs), `unfinished` (mode `blocks`: the model wanted more).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kowalski.protocol.messages.base import line
from kowalski.protocol.messages.journal import BudgetSpent, Outcome
from kowalski.rlm import window, wording
from kowalski.rlm.parsing import replace_blocks
from kowalski.rlm.prompts import render
from kowalski.rlm.session_state import Finish, Finished, Running, Session

UNREADY: Final = "the session never marked it as ready"


def finished(session: Session, outcome: Outcome, answer: str, detail: str) -> Session:
    return replace(session, stage=Finished(Finish(outcome, answer, line(detail))))


def failed(session: Session, code: str, detail: str) -> Session:
    return finished(session, "failed", partial(session), f"{code}: {detail}")


def partial(session: Session) -> str:
    match session.stage:
        case Running(is_prompt=True) as running:
            outputs = wording.outputs_by_block(running, session.limits)
            return session.answer or replace_blocks(running.text, outputs)
        case _:
            return session.answer


def unrefined(session: Session, why: str) -> Session:
    """The text with outputs as the answer; it says so itself, wherever it is read."""
    if session.turns:
        return finished(session, "answered", session.answer, f"unfinished: {why}")
    answer = f"{session.answer.rstrip()}\n\n{wording.UNREFINED.format(why=why)}\n"
    return finished(session, "answered", answer, f"unrefined: {why}")


def out_of_turns(session: Session, outputs: str) -> Session:
    turns = session.spec.max_iterations
    if session.mode == "blocks":
        return unrefined(session, f"no final answer in {turns} turns")
    if session.answer.strip():
        detail = f"unready: {UNREADY} in {turns} turns"
        return finished(session, "answered", session.answer, detail)
    return window.asked(window.said(session, "user", render("extract", outputs=outputs)), "extract")


def out_of_budget(session: Session, event: BudgetSpent) -> Session:
    why = f"{event.limit}: {event.detail or 'a limit of the task was reached'}"
    if not session.answer.strip():
        return finished(session, "failed", partial(session), why)
    if session.mode == "blocks":
        return unrefined(session, why)
    return finished(session, "answered", session.answer, f"unready: {why}")
