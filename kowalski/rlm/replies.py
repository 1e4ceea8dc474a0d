"""What a reply means: code to run, an answer, a hint that is needed, or the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.journal import ModelFailed, ModelReplied
from kowalski.rlm import batches, budget, cells, endings, readiness, turns, window, wording
from kowalski.rlm.parsing import Parsed, parse
from kowalski.rlm.session_state import Asking, Gathering, Purpose, Running, Session
from kowalski.rlm.truncation import head_and_tail


def replied(session: Session, purpose: Purpose, event: ModelReplied) -> Session:
    """The reply to the one question that was asked."""
    text = wording.spoken(event.text)
    session = _counted(replace(session, calls=session.calls + 1), event)
    if purpose == "extract":
        if not text.strip():
            return endings.failed(session, "no_answer", f"none after {session.turns} turns")
        why = f"extracted: the session set no answer in {session.turns} turns"
        return endings.concluded(session, text.strip(), why)
    return _taken(session, _kind_of_turn(session, purpose), text, event.model)


def _counted(session: Session, event: ModelReplied | ModelFailed) -> Session:
    return replace(session, spent=budget.added(session.spent, event))


def _kind_of_turn(session: Session, purpose: Purpose) -> Literal["direct", "turn", "refine"]:
    match purpose:
        case "direct" | "turn" | "refine":
            return purpose
        case _:  # drafts and their aggregation stand for the first question of their mode
            return "direct" if session.mode == "direct" else "refine"


def _taken(
    session: Session, purpose: Literal["direct", "turn", "refine"], text: str, model: str
) -> Session:
    """A whole turn's reply, said by one model or made of several drafts."""
    session = replace(session, turns=session.turns + 1)
    in_window = head_and_tail(text, session.limits.reply_chars).text
    session = window.said(session, "assistant", in_window if text.strip() else wording.EMPTY_REPLY)
    if purpose != "direct":
        return _run_reply(session, purpose, text)
    if not text.strip():
        return endings.failed(session, "empty_reply", f"{model} said nothing")
    return readiness.offered(session, text.strip(), "direct")


def _run_reply(session: Session, purpose: Literal["turn", "refine"], text: str) -> Session:
    parsed = parse(text)
    limit = min(session.limits.reply_cells_max, session.limits.cells_max - session.cells)
    planned, refused = cells.planned(session, parsed.blocks, limit, runs_unclosed=False)
    if planned:
        running = Running(text, False, planned, (None,) * len(planned), refused)
        return replace(session, hints=0, cells=session.cells + len(planned), stage=running)
    problem = _problem(text, parsed, refused)
    is_final = bool(text.strip()) and not refused
    if purpose == "turn":
        return _hinted(session, text, problem, is_final=is_final)
    if is_final:
        return readiness.offered(session, text.strip(), "refine")
    return turns.next_turn(session, "refine", f"Nothing was run: {problem}")


def _problem(text: str, parsed: Parsed, refused: tuple[tuple[int, str], ...]) -> str:
    """Why nothing of a reply was run."""
    if refused:
        return f"of block {refused[0][0] + 1}, {refused[0][1]}."
    if not text.strip():
        return "the reply was empty."
    if parsed.skipped:
        label = parsed.skipped[0].label
        if label:
            return f"`{label}` is no language that can be run."
        return "the block does not say its language."
    return "the reply has no code block."


def _hinted(session: Session, text: str, problem: str, *, is_final: bool) -> Session:
    session = replace(session, hints=session.hints + 1)
    if session.hints > 1 and is_final:
        # Told how, and still no code: this model will not do it, and says what it has to say.
        if session.best is not None:
            return endings.best_of(session, "the model wrote no more code")
        if session.answer.strip():
            return endings.concluded(session, session.answer, f"unready: {endings.UNREADY}")
        why = "extracted: the model twice wrote no code; this is what it said"
        return endings.concluded(session, text.strip(), why)
    return turns.hinted(session, problem)


def failed(session: Session, purpose: Purpose, fallback: str, event: ModelFailed) -> Session:
    """Nobody could answer the one question that was asked; `fallback` is what to do without."""
    session = _counted(replace(session, calls=session.calls + 1), event)
    if fallback:
        return _taken(session, _kind_of_turn(session, purpose), fallback, session.model or "")
    if session.best is not None:
        return endings.best_of(session, f"{event.code}: {event.detail}")
    if session.mode == "blocks":
        return endings.unrefined(session, f"{event.code}: {event.detail}")
    return endings.failed(session, event.code, event.detail)


# --- batches ------------------------------------------------------------------------------------


def slot_answered(
    session: Session, gathering: Gathering, event: ModelReplied | ModelFailed
) -> Session:
    after = batches.gathered(gathering, event)
    if after is None:
        return session
    session = _counted(replace(session, stage=after), event)
    if not batches.is_complete(after):
        return session
    return _parts_gathered(session, after) if after.purpose == "part" else _drafted(session, after)


def _drafted(session: Session, gathering: Gathering) -> Session:
    drafts = batches.texts(gathering)
    if not drafts:
        return failed_batch(session, gathering)
    if len(drafts) == 1:
        return _taken(session, _kind_of_turn(session, "draft"), drafts[0], session.model or "")
    question = ChatMessage(role="user", content=wording.aggregation(session, drafts))
    return replace(session, stage=Asking("aggregate", (question,), fallback=drafts[0]))


def _parts_gathered(session: Session, gathering: Gathering) -> Session:
    if not batches.texts(gathering):
        return failed_batch(session, gathering)
    session = window.said(session, "user", wording.notes_question(session, gathering))
    return replace(session, preamble=1, stage=Asking("refine"))


def failed_batch(session: Session, gathering: Gathering) -> Session:
    """Not one slot was answered."""
    first = batches.failure(gathering)
    if session.mode == "blocks":
        return endings.unrefined(session, f"{first.code}: {first.detail}")
    return endings.failed(session, first.code, first.detail)
