"""Puts data, cells and outputs into words: for the model's window, and for the prompt's blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kowalski.protocol.messages.journal import CellDiverged
from kowalski.rlm import budget
from kowalski.rlm.session_state import (
    PROMPT_SHOWN_CHARS_MIN,
    CellResult,
    Gathering,
    Running,
    Session,
    SessionLimits,
)
from kowalski.rlm.truncation import head_and_tail

UNREFINED: Final = "(No model refined this: {why}.)"
EMPTY_REPLY: Final = "(nothing)"

INPUTS_WITH_HEAD_MAX: Final = 8
INPUTS_NAMED_MAX: Final = 64

# What reasoning models think aloud before they speak. A thought that never ends is all there is.
_THOUGHT = re.compile(r"\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)

_ENDINGS: Final = {
    "ok": "",
    "error": "ended with an error",
    "timeout": "stopped: it took too long",
    "died": "its process died",
    "memory": "stopped: out of memory",
    "inodes": "stopped: too many files",
    "output_flood": "stopped: too much output",
    "not_run": "not run",
}


def spoken(reply: str) -> str:
    """A reply without the thinking before it: drafts there are neither code nor answer."""
    thought = _THOUGHT.match(reply)
    return reply[thought.end() :] if thought else reply


def shown(result: CellResult, limits: SessionLimits) -> str:
    """What a cell printed, cut, and how it ended if not well."""
    if result.status == "not_run":
        return f"[not run: {result.output}]"
    output = head_and_tail(result.output, limits.output_chars).text.rstrip("\n")
    ending = _ENDINGS.get(result.status, result.status)
    if not result.is_session_alive:
        ending += "; the session began anew, what this block did to it is gone"
    if not ending:
        return output or "(no output)"
    return f"{output}\n[{ending}]".lstrip("\n")


def outputs_by_block(running: Running, limits: SessionLimits) -> dict[int, str]:
    """For `replace_blocks`: what to show after each block, as far as it is known."""
    outputs = {ordinal: f"[not run: {reason}]" for ordinal, reason in running.refused}
    for cell, result in zip(running.cells, running.results, strict=True):
        if result is not None:
            outputs[cell.block] = shown(result, limits)
    return outputs


def outputs_of_turn(running: Running, limits: SessionLimits) -> str:
    """The outputs of a reply's blocks, in their order; those that were not run are left out."""
    languages = {cell.block: cell.language for cell in running.cells}
    told = [
        f"Output of block {block + 1}{language}:\n{output}"
        for block, output in sorted(outputs_by_block(running, limits).items())
        for language in [f" ({languages[block]})" if block in languages else ""]
    ]
    return head_and_tail("\n\n".join(told), limits.outputs_chars).text


def progress(session: Session) -> dict[str, str | int]:
    """Of the turn that is asked for next: the placeholders `turn`, `turns` and `left`."""
    return {
        "turn": session.turns + 1,
        "turns": session.spec.max_iterations,
        "left": budget.in_words(session.spec, session.spent),
    }


def divergence(event: CellDiverged) -> str:
    """For the model, whose variables came back otherwise than it knows them."""
    names = ", ".join(event.names) or "which ones is not known"
    return (
        f"[The session was moved to another device, and its blocks were run again there. "
        f"Cell {event.cell} left other values behind than before ({names}): "
        f"look at them before you use them.]"
    )


def rules(session: Session) -> str:
    """The system message of an `rlm` session."""
    hint = (
        "- rlm_query(prompt): as llm_query, but the model gets a session of its own, with the "
        "prompt as its data; rlm_query_batched(prompts) for several\n"
    )
    return session.render(
        "system_rlm",
        output_chars=session.limits.output_chars,
        prompt_chars=session.limits.sub_prompt_chars,
        turns=session.spec.max_iterations,
        depth_hint=hint if session.spec.budget.depth else "",
    )


def question(session: Session) -> str:
    """The first thing that is said in an `rlm` session, after the rules."""
    shown_chars = max(session.limits.prompt_chars, PROMPT_SHOWN_CHARS_MIN)
    asked = head_and_tail(session.spec.prompt, shown_chars).text
    return session.render(
        "question",
        question=_with_shape(session, asked),
        context=_context(session),
        turns=session.spec.max_iterations,
        left=budget.in_words(session.spec, session.spent),
    )


def direct_question(session: Session) -> str:
    """Question and inputs together; the bare question where there are no inputs."""
    if not session.inputs:
        return _with_shape(session, session.spec.prompt)
    inputs = "\n\n".join(f"--- {given.name} ---\n{given.text}" for given in session.inputs)
    told = session.render("direct", question=session.spec.prompt, inputs=inputs)
    return _with_shape(session, told)


def blocks_question(session: Session, text: str) -> str:
    """The prompt with its outputs; of one that is too long its two ends."""
    told = session.render(
        "refine_blocks",
        text=head_and_tail(text, _part_chars(session.limits)).text,
        turns=session.spec.max_iterations,
        left=budget.in_words(session.spec, session.spent),
    )
    return _with_shape(session, told)


def shape(session: Session) -> str:
    """How the answer must look; only where that was asked for."""
    assert session.spec.shape is not None
    return session.render("shape", schema=session.spec.shape.json_schema)


def _with_shape(session: Session, told: str) -> str:
    return f"{told}\n\n{shape(session)}" if session.spec.shape is not None else told


# --- batches, and judging -----------------------------------------------------------------------


def is_too_long(text: str, limits: SessionLimits) -> bool:
    """Whether a text with outputs has no place in one question."""
    return len(text) > _part_chars(limits)


def _part_chars(limits: SessionLimits) -> int:
    # Three characters a token is short even for program text; half is for the turns.
    return limits.usual_tokens * 3 // 2


def parts(text: str, limits: SessionLimits, most: int) -> tuple[str, ...]:
    """`text` in at most so many parts that fit a question each, cut between lines if possible.

    What is longer than that loses its middle.
    """
    room = _part_chars(limits)
    # Cut between lines, parts may be half empty.
    text = head_and_tail(text, room * max(1, most // 2)).text
    found: list[str] = []
    while text:
        piece = text[:room]
        border = piece.rfind("\n") + 1
        if len(text) > room and border > room // 2:
            piece = piece[:border]
        found.append(piece)
        text = text[len(piece) :]
    return tuple(found)


def notes_question(session: Session, gathering: Gathering) -> str:
    """The notes of all parts; of one that nobody read, that it is missing."""
    room = _part_chars(session.limits) // max(1, len(gathering.replies))
    told = [
        f"Part {number}:\n"
        + (
            head_and_tail(reply, room).text
            if isinstance(reply, str)
            else f"(not read: {reply.code if reply else 'no reply'})"
        )
        for number, reply in enumerate(gathering.replies, 1)
    ]
    told_all = session.render(
        "parts",
        notes="\n\n".join(told),
        turns=session.spec.max_iterations,
        left=budget.in_words(session.spec, session.spent),
    )
    return _with_shape(session, told_all)


def aggregation(session: Session, drafts: Sequence[str]) -> str:
    """The question that makes one answer of several."""
    room = _part_chars(session.limits) // len(drafts)
    answers = "\n\n".join(
        f"--- answer {number} ---\n{head_and_tail(draft, room).text}"
        for number, draft in enumerate(drafts, 1)
    )
    asked = head_and_tail(session.history[session.preamble - 1].content, room).text
    told = session.render("aggregate", question=asked, answers=answers)
    return _with_shape(session, told)


def evaluation(session: Session, answer: str) -> str:
    """The question that judges an answer."""
    room = _part_chars(session.limits)
    return session.render(
        "evaluate",
        question=head_and_tail(session.spec.prompt, room).text,
        answer=head_and_tail(answer, room).text,
    )


# --- folds --------------------------------------------------------------------------------------


def folded_question(session: Session) -> str:
    """The first user message again, now with what was folded."""
    original = session.history[session.preamble - 1].content
    handle = f'unfold("{session.folds[-1].hash}")'
    folded = session.render("folded", summary=session.summary, handles=handle)
    return f"{original}\n\n{folded}"


def to_fold(session: Session, last: int) -> str:
    """Everything after the preamble up to message `last` of the window, the older fold included."""
    told = [
        f"--- {message.role} ---\n{message.content}"
        for message in session.messages[session.preamble : last]
    ]
    if session.folds:
        told.insert(0, f'--- before, unfold("{session.folds[-1].hash}") ---\n{session.summary}')
    return "\n\n".join(told)


def _context(session: Session) -> str:
    heads = {given.name: given.text[: session.limits.head_chars] for given in session.inputs}
    parts = [(wanted.name, wanted.content.bytes_total) for wanted in session.spec.inputs]
    if session.prompt_input is not None:
        heads[session.prompt_input] = session.spec.prompt[: session.limits.head_chars]
        parts.append((session.prompt_input, len(session.spec.prompt.encode())))
    if len(parts) == 1:
        name, size_bytes = parts[0]
        head = f"\nIt begins:\n{heads[name]}" if heads.get(name) else ""
        return f"`context` is a str, {size_bytes} bytes, from {name}.{head}"
    return "\n".join(
        [
            f"`context` is a dict from name to str, with {len(parts)} entries:",
            *_entries(parts, heads),
        ]
    )


def _entries(parts: Sequence[tuple[str, int]], heads: dict[str, str]) -> list[str]:
    entries = [
        f"- {name}: {size_bytes} bytes" + (f", begins: {heads[name]!r}" if heads.get(name) else "")
        for name, size_bytes in parts[:INPUTS_WITH_HEAD_MAX]
    ]
    entries += [
        f"- {name}: {size_bytes} bytes"
        for name, size_bytes in parts[INPUTS_WITH_HEAD_MAX:INPUTS_NAMED_MAX]
    ]
    left_out = len(parts) - INPUTS_NAMED_MAX
    return [*entries, f"- and {left_out} more"] if left_out > 0 else entries
