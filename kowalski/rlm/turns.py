"""From one turn to the next, as long as there are any."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from kowalski.rlm import budget, endings, window, wording
from kowalski.rlm.session_state import Session, Turning


def over_because(session: Session) -> str:
    """Why there is no further turn, as `in 5 turns`; empty if there is one.

    The last call of a budget is none of a turn's: it is kept for the last word.
    """
    if session.turns >= session.spec.max_iterations:
        return f"in {session.spec.max_iterations} turns"
    over = budget.over(session.spec, session.spent, kept=budget.KEPT_CALLS)
    return "" if over is None else f"before its {over.limit} were used up"


def next_turn(session: Session, purpose: Literal["turn", "refine"], outputs: str) -> Session:
    """Show what came of the last turn, and ask on."""
    if session.diverged:
        outputs = "\n\n".join((*session.diverged, outputs))
        session = replace(session, diverged=())
    if why := over_because(session):
        return endings.out_of_turns(session, outputs, why)
    name: Literal["turn", "refine_turn"] = "turn" if purpose == "turn" else "refine_turn"
    told = session.render(name, outputs=outputs, **wording.progress(session))
    return window.asked(window.said(session, "user", told), purpose)


def hinted(session: Session, problem: str) -> Session:
    """Say why nothing was run, and ask on."""
    if why := over_because(session):
        return endings.out_of_turns(session, f"Nothing was run: {problem}", why)
    told = session.render("no_code_hint", problem=problem, **wording.progress(session))
    return window.asked(window.said(session, "user", told), "turn")


def improved(session: Session, purpose: Turning, problem: str, outputs: str) -> Session:
    """Say why an answer will not do, and ask for a better one."""
    if why := over_because(session):
        return endings.out_of_turns(session, outputs, why)
    progress = wording.progress(session)
    if purpose == "turn":
        told = session.render("rejected_turn", outputs=outputs, problem=problem, **progress)
    else:
        told = session.render("rejected_answer", problem=problem, **progress)
    return window.asked(window.said(session, "user", told), purpose)
