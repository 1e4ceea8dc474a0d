"""The one ledger of a task: what it and its child sessions have used, and what is left.

Kept from the journal alone, so that whoever continues a task counts the same. A call counts once,
however many peers were tried; `attempts` are the requests that went to models for it, which is what
model servers count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Final

from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.journal import (
    CellFinished,
    ChildHappened,
    Folded,
    ModelFailed,
    ModelReplied,
    Opened,
    SessionEvent,
    SubCallAnswered,
    SubCallsAnswered,
)
from kowalski.protocol.messages.task import TaskSpec

KEPT_CALLS: Final = 1
"""Of the calls of a budget, for the session's own last word: cells may not have them."""

_TIME_IS_SHORT = 0.5  # of the task's time; before that a model is not told of it


@dataclass(frozen=True, slots=True)
class Spent:
    """`calls` are those to models. Of the sub-calls of cells, `repeated` cost nothing."""

    calls: int = 0
    attempts: int = 0
    sub_calls: int = 0
    repeated: int = 0
    children: int = 0
    cells: int = 0
    folds: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    source_tokens: int = 0
    """That were folded, and what became of them."""
    folded_tokens: int = 0
    seconds: float = 0.0
    """Of the session itself, as the journal has it: what its calls and cells took."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


NOTHING: Final = Spent()


def added(spent: Spent, event: SessionEvent) -> Spent:
    """The ledger after one more thing that happened."""
    match event:
        case ModelReplied():
            spent = replace(spent, seconds=spent.seconds + event.duration_s)
            return _called(spent, event.attempts, event.usage)
        case ModelFailed():
            return _called(spent, event.attempts, None)
        case SubCallAnswered():
            spent = replace(
                spent,
                sub_calls=spent.sub_calls + 1,
                repeated=spent.repeated + event.is_repeated,
            )
            return _called(spent, event.attempts, event.usage) if event.attempts else spent
        case SubCallsAnswered(answers=answers):
            return reduce(added, answers, spent)
        case CellFinished():
            return replace(spent, cells=spent.cells + 1, seconds=spent.seconds + event.duration_s)
        case Folded():
            return replace(
                spent,
                folds=spent.folds + 1,
                source_tokens=spent.source_tokens + event.source_tokens,
                folded_tokens=spent.folded_tokens + event.tokens,
                calls=spent.calls + event.calls,
                attempts=spent.attempts + event.attempts,
                prompt_tokens=spent.prompt_tokens + _prompt_tokens(event.usage),
                completion_tokens=spent.completion_tokens + _completion_tokens(event.usage),
            )
        case ChildHappened():
            return _child_happened(spent, event)
        case _:
            return spent


def _called(spent: Spent, attempts: int, usage: Usage | None) -> Spent:
    return replace(
        spent,
        calls=spent.calls + 1,
        attempts=spent.attempts + attempts,
        prompt_tokens=spent.prompt_tokens + _prompt_tokens(usage),
        completion_tokens=spent.completion_tokens + _completion_tokens(usage),
    )


def _prompt_tokens(usage: Usage | None) -> int:
    return usage.prompt_tokens if usage else 0


def _completion_tokens(usage: Usage | None) -> int:
    return usage.completion_tokens if usage else 0


def _child_happened(spent: Spent, event: ChildHappened) -> Spent:
    inner = child_event(event)
    if inner is None:
        return spent
    after = added(spent, inner)
    # The cell that waits for the child has its time already.
    children = after.children + isinstance(inner, Opened)
    return replace(after, children=children, seconds=spent.seconds)


def child_event(event: ChildHappened) -> SessionEvent | None:
    """What happened in the child; None if a newer peer wrote what we cannot read."""
    try:
        inner = codec.decode(event.event)
    except RemoteProtocolError:
        return None
    return inner if isinstance(inner, SessionEvent) else None


# --- what is left -------------------------------------------------------------------------------


def calls_left(spec: TaskSpec, spent: Spent) -> int | None:
    """None: as many as time allows."""
    if spec.budget.calls is None:
        return None
    return max(0, spec.budget.calls - spent.calls)


def tokens_left(spec: TaskSpec, spent: Spent) -> int | None:
    if spec.budget.tokens is None:
        return None
    return max(0, spec.budget.tokens - spent.tokens)


@dataclass(frozen=True, slots=True)
class Over:
    """`limit` as of `journal.BudgetSpent`."""

    limit: str
    detail: str


def over(spec: TaskSpec, spent: Spent, *, in_flight: int = 0, kept: int = 0) -> Over | None:
    """Why no further call may be made; None if one may.

    `in_flight` are calls that were begun and are not in the ledger yet; `kept` ones that are not
    the asker's.
    """
    calls, tokens = calls_left(spec, spent), tokens_left(spec, spent)
    if calls is not None and calls - in_flight - kept <= 0:
        return Over("calls", f"{spec.budget.calls} model calls are used up")
    if tokens == 0:
        return Over("tokens", f"{spec.budget.tokens} tokens are used up")
    return None


def in_words(spec: TaskSpec, spent: Spent) -> str:
    """What is left, for the model; empty where nothing is scarce."""
    parts = []
    calls, tokens = calls_left(spec, spent), tokens_left(spec, spent)
    if calls is not None:
        parts.append(f"{calls} of {spec.budget.calls} model calls")
    if tokens is not None:
        parts.append(f"{tokens} of {spec.budget.tokens} tokens")
    left_s = max(0.0, spec.timeout_s - spent.seconds)
    if left_s < spec.timeout_s * _TIME_IS_SHORT:
        parts.append(f"about {left_s:.0f} of {spec.timeout_s:g} seconds")
    return f" Left: {', '.join(parts)}." if parts else ""
