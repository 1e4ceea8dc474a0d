"""The cells of a text: which blocks become cells, how they end, and what follows when all have.

Three things run code: the blocks of the prompt, once, in mode `blocks` alone; and the blocks of
the newest reply, once each. Outputs, inputs and older replies are never read for code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from kowalski.protocol.limits import CODE_BYTES_MAX
from kowalski.protocol.messages.journal import CellDiverged, CellFailed, CellFinished
from kowalski.rlm import batches, budget, endings, readiness, turns, window, wording
from kowalski.rlm.parsing import CodeBlock, parse, replace_blocks
from kowalski.rlm.session_state import Cell, CellResult, Running, Session, Turning

UNSUPPORTED: Final = "unsupported"
"""The code of a `CellFailed` that says: no peer runs this language."""


def run_prompt(session: Session) -> Session:
    prompt = session.spec.prompt
    limit = min(session.limits.blocks_max, session.limits.cells_max)
    # A block that its author never closed goes to the end of the text, as CommonMark says.
    cells, refused = planned(session, parse(prompt).blocks, limit, runs_unclosed=True)
    if not cells:
        return endings.failed(session, "no_blocks", "the prompt has no code block that can be run")
    running = Running(prompt, True, cells, (None,) * len(cells), refused)
    return replace(session, stage=running, cells=len(cells))


def planned(
    session: Session, blocks: Iterable[CodeBlock], limit: int, *, runs_unclosed: bool
) -> tuple[tuple[Cell, ...], tuple[tuple[int, str], ...]]:
    """The cells of these blocks, and the ordinals of those that are none, with the reason."""
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


def ended(session: Session, running: Running, event: CellFinished | CellFailed) -> Session:
    at = event.cell - running.cells[0].number
    if not 0 <= at < len(running.cells) or running.results[at] is not None:
        return session
    cell, result = running.cells[at], _result(event)
    running = replace(running, results=(*running.results[:at], result, *running.results[at + 1 :]))
    session = replace(session, spent=budget.added(session.spent, event))
    if isinstance(event, CellFinished) and event.is_session_alive:
        session = replace(session, ran=(*session.ran, (cell.number, cell.language)))
    if isinstance(event, CellFinished) and event.answer is not None and not running.is_prompt:
        content = event.answer.content
        if event.answer.is_ready and content.strip() and content != session.offered:
            purpose: Turning = "turn" if session.mode == "rlm" else "refine"
            outputs = wording.outputs_of_turn(running, session.limits)
            return readiness.offered(session, content, purpose, outputs)
        # In mode `blocks` the answer so far is the text.
        session = replace(session, answer=content) if session.mode == "rlm" else session
    is_lost = result.code and (result.code != UNSUPPORTED or cell.language == "python")
    if is_lost and session.mode == "rlm":
        return endings.failed(session, result.code, result.output)
    if None in running.results:
        return replace(session, stage=running)
    return _prompt_ran(session, running) if running.is_prompt else _reply_ran(session, running)


def diverged(session: Session, event: CellDiverged) -> Session:
    """To be told with the next outputs: what the model believes of its variables may be wrong."""
    return replace(session, diverged=(*session.diverged, wording.divergence(event)))


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
    if wording.is_too_long(text, session.limits):
        in_parts = batches.parts_asked(session, text)
        if in_parts is not None:
            return in_parts
    session = window.said(session, "user", wording.blocks_question(session, text))
    return batches.first_asked(replace(session, preamble=1), "refine")


def _reply_ran(session: Session, running: Running) -> Session:
    outputs = wording.outputs_of_turn(running, session.limits)
    if session.mode == "rlm":
        return turns.next_turn(session, "turn", outputs)
    draft = replace_blocks(running.text, wording.outputs_by_block(running, session.limits))
    return turns.next_turn(replace(session, answer=draft), "refine", outputs)
