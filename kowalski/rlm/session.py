"""A task as a machine: what happened goes in, what to do next comes out. Pure; time is outside.

The loop is that of Recursive Language Models (Zhang, Kraska, Khattab; arXiv 2512.24601). Events are
exactly the messages of a journal, so feeding a journal to a new session brings the task back, and
`outstanding` says what still has to be done. An event that answers nothing that is asked (late,
repeated, of another cell) changes nothing.

What a reply means is in `replies`, what becomes of code in `cells`, when an answer is the end in
`readiness`, and how it ends in `endings`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.journal import (
    BudgetSpent,
    CancelHeard,
    CellDiverged,
    CellFailed,
    CellFinished,
    CellStarted,
    ChildHappened,
    Closed,
    Folded,
    ModelFailed,
    ModelReplied,
    Opened,
    SessionEvent,
    SubCallAnswered,
    SubCallsAnswered,
)
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm import (
    batches,
    budget,
    cells,
    endings,
    readiness,
    replies,
    window,
    wording,
)
from kowalski.rlm.cells import UNSUPPORTED
from kowalski.rlm.opening import CannotOpen, open_session
from kowalski.rlm.prompts import BUILT_IN, PromptBook
from kowalski.rlm.session_state import (
    Asking,
    AskModel,
    Effect,
    Ended,
    Finish,
    Finished,
    Fold,
    Folding,
    Gathering,
    InputText,
    Judging,
    Note,
    Purpose,
    RunCell,
    Running,
    Session,
    SessionLimits,
    Unopened,
    check,
    limits_for,
)

__all__ = [
    "UNSUPPORTED",
    "AskModel",
    "CannotOpen",
    "Effect",
    "Finish",
    "Fold",
    "InputText",
    "Note",
    "RunCell",
    "Session",
    "SessionLimits",
    "check",
    "limits_for",
    "new_session",
    "open_session",
    "outstanding",
    "replay",
    "step",
]

_FOLD_FRACTION = 4  # older turns fold to this part of the window

_BOUND: frozenset[Purpose] = frozenset({"direct", "draft", "extract", "aggregate"})
"""Purposes whose reply is the answer and nothing else: a schema may bind what the model says."""


def new_session(
    spec: TaskSpec,
    *,
    limits: SessionLimits,
    inputs: Iterable[InputText] = (),
    prompts: PromptBook = BUILT_IN,
) -> Session:
    """A session to which nothing has happened; its first event is what `open_session` says.

    `inputs` as for `open_session`, in the order of the task's.
    """
    return Session(spec, tuple(inputs), limits, prompts=prompts)


def replay(session: Session, events: Iterable[SessionEvent]) -> Session:
    """`session` after `events`; what they asked for and did not answer is in `outstanding`."""
    for event in events:
        session = _moved(session, event)
    return session


def step(session: Session, event: SessionEvent) -> tuple[Session, tuple[Effect, ...]]:
    """The session after `event`, and what is to be done now that was not to be done before."""
    after = _moved(session, event)
    if after is session:
        return session, ()
    if after.stage is session.stage:
        return after, ()
    known = frozenset(_due(session))
    effects = tuple(_effect(after, due) for due in _due(after) if due not in known)
    return after, (*_notes(session, after), *effects)


def outstanding(session: Session) -> tuple[Effect, ...]:
    """Everything that is to be done and has not been answered: after a replay, do these."""
    return tuple(_effect(session, due) for due in _due(session))


class _Due(NamedTuple):
    kind: Literal["ask", "cell", "fold", "finish"]
    number: int = 0
    fold: int = 0


def _due(session: Session) -> list[_Due]:
    match session.stage:
        case Running(cells=planned, results=results):
            # One cell at a time; in mode `blocks` one of each language.
            first: dict[str, _Due] = {}
            for cell, result in zip(planned, results, strict=True):
                if result is None:
                    lane = cell.language if session.mode == "blocks" else ""
                    first.setdefault(lane, _Due("cell", cell.number))
            return list(first.values())
        case Asking() | Judging():
            return [_Due("ask", session.calls, len(session.folds))]
        case Gathering(first=number, replies=slots):
            return [_Due("ask", number + at) for at, reply in enumerate(slots) if reply is None]
        case Folding():
            return [_Due("fold", session.calls, len(session.folds))]
        case Finished():
            return [_Due("finish")]
        case Unopened() | Ended():
            return []


def _effect(session: Session, due: _Due) -> Effect:
    match session.stage:
        case Running(cells=planned):
            cell = planned[due.number - planned[0].number]
            after = tuple(number for number, language in session.ran if language == cell.language)
            return RunCell(cell.number, cell.language, cell.code, after)
        case Asking(purpose, messages):
            return _ask(session, due.number, messages or session.messages, purpose)
        case Judging(messages=messages):
            wanted = session.spec.quality
            model = (wanted and wanted.model) or session.model or ""
            return AskModel(due.number, messages, model, "evaluate")
        case Gathering(purpose, first, questions):
            return _ask(session, due.number, questions[due.number - first], purpose)
        case Folding(text=text):
            window_tokens = session.scale.ours(session.limits.window_tokens)
            return Fold(text, window_tokens // _FOLD_FRACTION)
        case Finished(finish):
            return finish
        case Unopened() | Ended():
            raise AssertionError(due)


def _ask(
    session: Session, call: int, messages: tuple[ChatMessage, ...], purpose: Purpose
) -> AskModel:
    shape = session.spec.shape
    schema = shape.json_schema if shape is not None and purpose in _BOUND else None
    return AskModel(call, messages, session.model or "", purpose, schema)


def _notes(before: Session, after: Session) -> tuple[Note, ...]:
    if after.turns > before.turns and (after.mode != "direct" or after.turns > 1):
        of = f"turn {after.turns} of {after.spec.max_iterations}"
        match after.stage:
            case Running(cells=planned):
                return (Note(f"{of}: {len(planned)} cell{'s' * (len(planned) != 1)}"),)
            case Finished() | Judging():
                return (Note(f"{of}: the answer"),)
            case _:
                return (Note(f"{of}: nothing to run"),)
    if isinstance(before.stage, Judging) and after.best is not None:
        if isinstance(after.stage, Finished):
            return (Note("the answer was judged"),)
        return (Note(f"the answer was judged; the best so far {after.best.score:.2f}"),)
    if isinstance(after.stage, Gathering) and not isinstance(before.stage, Gathering):
        return (Note(f"{len(after.stage.questions)} {after.stage.purpose}s at once"),)
    if len(after.folds) > len(before.folds):
        return (Note(f"folded {before.tokens} tokens to {after.tokens}"),)
    return ()


def _moved(session: Session, event: SessionEvent) -> Session:
    if isinstance(event, Closed):
        return replace(session, stage=Ended(event.outcome))
    if isinstance(session.stage, Finished | Ended) or isinstance(event, CellStarted):
        return session
    match event:
        case CancelHeard(reason=reason):
            return endings.finished(
                session, "cancelled", endings.partial(session), f"cancelled: {reason}"
            )
        case BudgetSpent():
            return endings.out_of_budget(session, event)
        case SubCallAnswered() | SubCallsAnswered() | ChildHappened():
            return replace(session, spent=budget.added(session.spent, event))
        case CellDiverged():
            return cells.diverged(session, event)
        case _:
            after = _answered(session, event)
            return after if after.stage is session.stage else _within_budget(after)


def _answered(session: Session, event: SessionEvent) -> Session:
    match session.stage, event:
        case Unopened(), Opened():
            return _opened(session, event)
        case (
            Asking(purpose, messages=()) | Folding(purpose),
            ModelReplied(call=session.calls),
        ):
            # While folding: the one who kept this journal had a wider window.
            return replies.replied(window.counted(session, event), purpose, event)
        case Asking(purpose), ModelReplied(call=session.calls):
            return replies.replied(session, purpose, event)
        case (Asking(purpose, fallback=fallback), ModelFailed(call=session.calls)):
            return replies.failed(session, purpose, fallback, event)
        case (Folding(purpose), ModelFailed(call=session.calls)):
            return replies.failed(session, purpose, "", event)
        case (Asking(purpose) | Folding(purpose), Folded()):
            return window.folded(session, purpose, event)
        case Gathering() as gathering, ModelReplied() | ModelFailed():
            return replies.slot_answered(session, gathering, event)
        case Judging() as judging, (
            ModelReplied(call=session.calls) | ModelFailed(call=session.calls)
        ):
            spent = budget.added(session.spent, event)
            session = replace(session, calls=session.calls + 1, spent=spent)
            return readiness.judged(session, judging, event)
        case Running() as running, CellFinished() | CellFailed():
            return cells.ended(session, running, event)
        case _:
            return session


def _opened(session: Session, event: Opened) -> Session:
    session = replace(session, mode=event.mode, model=event.model)
    if event.mode == "blocks":
        return cells.run_prompt(session)
    if event.model is None:
        return endings.failed(session, "no_model", "the session was opened without one")
    if event.mode == "direct":
        session = window.said(session, "user", wording.direct_question(session))
        return batches.first_asked(replace(session, preamble=1), "direct")
    session = window.said(session, "system", wording.rules(session))
    session = window.said(session, "user", wording.question(session))
    return replace(session, preamble=2, stage=Asking("turn"))


def _within_budget(session: Session) -> Session:
    """Ask nothing that the budget does not have."""
    over = budget.over(session.spec, session.spent)
    if over is None or not isinstance(session.stage, Asking | Gathering | Judging):
        return session
    return endings.out_of_budget(session, BudgetSpent(limit=over.limit, detail=over.detail))
