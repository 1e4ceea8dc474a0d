"""Puts data, cells and outputs into words: for the model's window, and for the prompt's blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kowalski.rlm.prompts import render
from kowalski.rlm.session_state import (
    PROMPT_SHOWN_CHARS_MIN,
    CellResult,
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
    """The outputs of a reply's blocks, in their order."""
    languages = {cell.block: cell.language for cell in running.cells}
    told = [
        f"Output of block {block + 1}{language}:\n{output}"
        for block, output in sorted(outputs_by_block(running, limits).items())
        for language in [f" ({languages[block]})" if block in languages else ""]
    ]
    return head_and_tail("\n\n".join(told), limits.outputs_chars).text


def question(session: Session) -> str:
    """The first thing that is said in an `rlm` session, after the rules."""
    shown_chars = max(session.limits.prompt_chars, PROMPT_SHOWN_CHARS_MIN)
    asked = head_and_tail(session.spec.prompt, shown_chars).text
    turns = session.spec.max_iterations
    return render("question", question=asked, context=_context(session), turns=turns)


def direct_question(session: Session) -> str:
    """Question and inputs together; the bare question where there are no inputs."""
    if not session.inputs:
        return session.spec.prompt
    inputs = "\n\n".join(f"--- {given.name} ---\n{given.text}" for given in session.inputs)
    return render("direct", question=session.spec.prompt, inputs=inputs)


def blocks_question(session: Session, text: str) -> str:
    """The prompt with its outputs; of one too long for the window the two ends."""
    # Three characters a token is short even for program text; the rest is for the turns.
    text = head_and_tail(text, session.limits.window_tokens * 3 // 2).text
    return render("refine_blocks", text=text, turns=session.spec.max_iterations)


def folded_question(session: Session) -> str:
    """The first user message again, now with what was folded."""
    original = session.history[session.preamble - 1].content
    handle = f'unfold("{session.folds[-1].hash}")'
    return f"{original}\n\n{render('folded', summary=session.summary, handles=handle)}"


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
