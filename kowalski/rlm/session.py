"""A task as a machine: what happened goes in, what to do next comes out. Pure; time is outside.

The loop is that of Recursive Language Models (Zhang, Kraska, Khattab; arXiv 2512.24601). Events are
exactly the messages of a journal, so feeding a journal to a new session brings the task back, and
`outstanding` says what still has to be done. An event that answers nothing that is asked (late,
repeated, of another cell) changes nothing.

Three things run code: the blocks of the prompt, once, in mode `blocks` alone; and the blocks of
the newest reply, once each. Outputs, inputs and older replies are never read for code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from kowalski.protocol.limits import CODE_BYTES_MAX
from kowalski.protocol.messages.journal import (
    BudgetSpent,
    CancelHeard,
    CellFailed,
    CellFinished,
    CellStarted,
    Closed,
    Folded,
    ModelFailed,
    ModelReplied,
    Opened,
    SessionEvent,
    SubCallAnswered,
)
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm import endings, window, wording
from kowalski.rlm.opening import CannotOpen, open_session
from kowalski.rlm.parsing import CodeBlock, parse, replace_blocks
from kowalski.rlm.prompts import render
from kowalski.rlm.session_state import (
    Asking,
    AskModel,
    Cell,
    CellResult,
    Effect,
    Ended,
    Finish,
    Finished,
    Fold,
    Folding,
    InputText,
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
from kowalski.rlm.truncation import head_and_tail

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

UNSUPPORTED = "unsupported"
"""The code of a `CellFailed` that says: no peer runs this language."""

_FOLD_FRACTION = 4  # older turns fold to this part of the window


def new_session(
    spec: TaskSpec, *, limits: SessionLimits, inputs: Iterable[InputText] = ()
) -> Session:
    """A session to which nothing has happened; its first event is what `open_session` says.

    `inputs` as for `open_session`, in the order of the task's.
    """
    return Session(spec, tuple(inputs), limits)


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
        case Running(cells=cells, results=results):
            # One cell at a time; in mode `blocks` one of each language.
            first: dict[str, _Due] = {}
            for cell, result in zip(cells, results, strict=True):
                if result is None:
                    lane = cell.language if session.mode == "blocks" else ""
                    first.setdefault(lane, _Due("cell", cell.number))
            return list(first.values())
        case Asking():
            return [_Due("ask", session.calls, len(session.folds))]
        case Folding():
            return [_Due("fold", session.calls, len(session.folds))]
        case Finished():
            return [_Due("finish")]
        case Unopened() | Ended():
            return []


def _effect(session: Session, due: _Due) -> Effect:
    match session.stage:
        case Running(cells=cells):
            cell = cells[due.number - cells[0].number]
            after = tuple(number for number, language in session.ran if language == cell.language)
            return RunCell(cell.number, cell.language, cell.code, after)
        case Asking(purpose):
            return AskModel(session.calls, session.messages, session.model or "", purpose)
        case Folding(text=text):
            return Fold(text, session.limits.window_tokens // _FOLD_FRACTION)
        case Finished(finish):
            return finish
        case Unopened() | Ended():
            raise AssertionError(due)


def _notes(before: Session, after: Session) -> tuple[Note, ...]:
    if after.turns > before.turns:
        of = f"turn {after.turns} of {after.spec.max_iterations}"
        match after.stage:
            case Running(cells=cells):
                return (Note(f"{of}: {len(cells)} cell{'s' * (len(cells) != 1)}"),)
            case Finished():
                return (Note(f"{of}: the answer"),)
            case _:
                return (Note(f"{of}: nothing to run"),)
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
        case SubCallAnswered():
            return _sub_call_answered(session, event)
        case _:
            return _answered(session, event)


def _answered(session: Session, event: SessionEvent) -> Session:
    match session.stage, event:
        case Unopened(), Opened():
            return _opened(session, event)
        case (Asking(purpose) | Folding(purpose), ModelReplied(call=session.calls)):
            # While folding: the one who kept this journal had a wider window.
            return _replied(session, purpose, event)
        case (Asking(purpose) | Folding(purpose), ModelFailed(call=session.calls)):
            return _model_failed(session, purpose, event)
        case (Asking(purpose) | Folding(purpose), Folded()):
            return window.folded(session, purpose, event)
        case Running() as running, CellFinished() | CellFailed():
            return _cell_ended(session, running, event)
        case _:
            return session


# --- opening -------------------------------------------------------------------------------------


def _opened(session: Session, event: Opened) -> Session:
    session = replace(session, mode=event.mode, model=event.model)
    if event.mode == "blocks":
        return _run_prompt(session)
    if event.model is None:
        return endings.failed(session, "no_model", "the session was opened without one")
    if event.mode == "direct":
        session = window.said(session, "user", wording.direct_question(session))
        return replace(session, stage=Asking("direct"))
    rules = render(
        "system_rlm",
        output_chars=session.limits.output_chars,
        turns=session.spec.max_iterations,
    )
    session = window.said(window.said(session, "system", rules), "user", wording.question(session))
    return replace(session, preamble=2, stage=Asking("turn"))


def _run_prompt(session: Session) -> Session:
    prompt = session.spec.prompt
    limit = min(session.limits.blocks_max, session.limits.cells_max)
    # A block that its author never closed goes to the end of the text, as CommonMark says.
    cells, refused = _planned(session, parse(prompt).blocks, limit, runs_unclosed=True)
    if not cells:
        return endings.failed(session, "no_blocks", "the prompt has no code block that can be run")
    running = Running(prompt, True, cells, (None,) * len(cells), refused)
    return replace(session, stage=running, cells=len(cells))


def _planned(
    session: Session, blocks: Iterable[CodeBlock], limit: int, *, runs_unclosed: bool
) -> tuple[tuple[Cell, ...], tuple[tuple[int, str], ...]]:
    cells: list[Cell] = []
    refused: list[tuple[int, str]] = []
    for block in blocks:
        if not (block.is_closed or runs_unclosed):
            refused.append((block.ordinal, "its fence was never closed, so it may be cut short"))
        elif len(cells) >= limit:
            refused.append((block.ordinal, f"no more than {limit} blocks are run"))
        elif len(block.code.encode()) > CODE_BYTES_MAX:
            refused.append((block.ordinal, f"more than {CODE_BYTES_MAX} bytes of code"))
        else:
            number = session.cells + len(cells)
            cells.append(Cell(number, block.language, block.code, block.ordinal))
    return tuple(cells), tuple(refused)


# --- cells ---------------------------------------------------------------------------------------


def _cell_ended(session: Session, running: Running, event: CellFinished | CellFailed) -> Session:
    at = event.cell - running.cells[0].number
    if not 0 <= at < len(running.cells) or running.results[at] is not None:
        return session
    cell = running.cells[at]
    result = _result(event)
    running = replace(running, results=(*running.results[:at], result, *running.results[at + 1 :]))
    if isinstance(event, CellFinished) and event.is_session_alive:
        session = replace(session, ran=(*session.ran, (cell.number, cell.language)))
    if isinstance(event, CellFinished) and event.answer is not None and not running.is_prompt:
        content = event.answer.content
        if event.answer.is_ready and content.strip():
            return endings.finished(session, "answered", content, "")
        # In mode `blocks` the answer so far is the text.
        session = replace(session, answer=content) if session.mode == "rlm" else session
    is_lost = result.code and (result.code != UNSUPPORTED or cell.language == "python")
    if is_lost and session.mode == "rlm":
        return endings.failed(session, result.code, result.output)
    if None in running.results:
        return replace(session, stage=running)
    return _prompt_ran(session, running) if running.is_prompt else _reply_ran(session, running)


def _result(event: CellFinished | CellFailed) -> CellResult:
    match event:
        case CellFinished():
            return CellResult(event.status, event.output, event.is_session_alive)
        case CellFailed():
            return CellResult("not_run", event.detail or event.code, code=event.code)


def _prompt_ran(session: Session, running: Running) -> Session:
    text = replace_blocks(running.text, wording.outputs_by_block(running, session.limits))
    session = replace(session, answer=text)
    failed = [result for result in running.results if result is not None and result.code]
    if len(failed) == len(running.results):
        languages = ", ".join(sorted({cell.language for cell in running.cells}))
        is_unsupported = all(result.code == UNSUPPORTED for result in failed)
        code = "no_language" if is_unsupported else failed[0].code
        return endings.failed(
            session, code, f"no block could be run ({languages}): {failed[0].output}"
        )
    if session.model is None:
        return endings.unrefined(session, "no model was usable anywhere in the mesh")
    session = window.said(session, "user", wording.blocks_question(session, text))
    return replace(session, preamble=1, stage=Asking("refine"))


def _reply_ran(session: Session, running: Running) -> Session:
    outputs = wording.outputs_of_turn(running, session.limits)
    if session.mode == "rlm":
        return _next_turn(session, "turn", outputs)
    draft = replace_blocks(running.text, wording.outputs_by_block(running, session.limits))
    return _next_turn(replace(session, answer=draft), "refine", outputs)


def _next_turn(session: Session, purpose: Literal["turn", "refine"], outputs: str) -> Session:
    turns = session.spec.max_iterations
    if session.turns >= turns:
        return endings.out_of_turns(session, outputs)
    name: Literal["turn", "refine_turn"] = "turn" if purpose == "turn" else "refine_turn"
    told = render(name, outputs=outputs, turn=session.turns + 1, turns=turns)
    return window.asked(window.said(session, "user", told), purpose)


# --- replies -------------------------------------------------------------------------------------


def _replied(session: Session, purpose: Purpose, event: ModelReplied) -> Session:
    text = wording.spoken(event.text)
    spent = replace(
        session.spent,
        model_calls=session.spent.model_calls + 1,
        prompt_tokens=session.spent.prompt_tokens + event.usage.prompt_tokens,
        completion_tokens=session.spent.completion_tokens + event.usage.completion_tokens,
    )
    session = replace(session, calls=session.calls + 1, spent=spent)
    if purpose == "direct":
        if not text.strip():
            return endings.failed(session, "empty_reply", f"{event.model} said nothing")
        return endings.finished(session, "answered", text.strip(), "")
    if purpose == "extract":
        if not text.strip():
            return endings.failed(session, "no_answer", f"none after {session.turns} turns")
        why = f"extracted: the session set no answer in {session.turns} turns"
        return endings.finished(session, "answered", text.strip(), why)
    session = replace(session, turns=session.turns + 1)
    in_window = head_and_tail(text, session.limits.reply_chars).text
    session = window.said(session, "assistant", in_window if text.strip() else wording.EMPTY_REPLY)
    return _run_reply(session, purpose, text)


def _run_reply(session: Session, purpose: Literal["turn", "refine"], text: str) -> Session:
    parsed = parse(text)
    limit = min(session.limits.reply_cells_max, session.limits.cells_max - session.cells)
    cells, refused = _planned(session, parsed.blocks, limit, runs_unclosed=False)
    if cells:
        running = Running(text, False, cells, (None,) * len(cells), refused)
        return replace(session, hints=0, cells=session.cells + len(cells), stage=running)
    if refused:
        problem = f"of block {refused[0][0] + 1}, {refused[0][1]}."
    elif not text.strip():
        problem = "the reply was empty."
    elif parsed.skipped:
        label = parsed.skipped[0].label
        problem = (
            f"`{label}` is no language that can be run."
            if label
            else ("the block does not say its language.")
        )
    else:
        problem = "the reply has no code block."
    is_final = bool(text.strip()) and not refused
    if purpose == "turn":
        return _hinted(session, text, problem, is_final=is_final)
    if is_final:
        return endings.finished(session, "answered", text.strip(), "")
    return _next_turn(session, "refine", f"Nothing was run: {problem}")


def _hinted(session: Session, text: str, problem: str, *, is_final: bool) -> Session:
    session = replace(session, hints=session.hints + 1)
    turns = session.spec.max_iterations
    if session.hints > 1 and is_final:
        # Told how, and still no code: this model will not do it, and says what it has to say.
        if session.answer.strip():
            return endings.finished(
                session, "answered", session.answer, f"unready: {endings.UNREADY}"
            )
        why = "extracted: the model twice wrote no code; this is what it said"
        return endings.finished(session, "answered", text.strip(), why)
    if session.turns >= turns:
        return endings.out_of_turns(session, f"Nothing was run: {problem}")
    told = render("no_code_hint", problem=problem, turn=session.turns + 1, turns=turns)
    return window.asked(window.said(session, "user", told), "turn")


def _model_failed(session: Session, purpose: Purpose, event: ModelFailed) -> Session:
    calls = session.spent.model_calls + 1
    spent = replace(session.spent, model_calls=calls)
    session = replace(session, calls=session.calls + 1, spent=spent)
    if purpose == "refine":
        return endings.unrefined(session, f"{event.code}: {event.detail}")
    return endings.failed(session, event.code, event.detail)


def _sub_call_answered(session: Session, event: SubCallAnswered) -> Session:
    spent = replace(session.spent, sub_calls=session.spent.sub_calls + 1)
    if event.usage is not None:
        spent = replace(
            spent,
            prompt_tokens=spent.prompt_tokens + event.usage.prompt_tokens,
            completion_tokens=spent.completion_tokens + event.usage.completion_tokens,
        )
    return replace(session, spent=spent)
