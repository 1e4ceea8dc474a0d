"""What a session is at any moment, what it asks of the world, and what must always hold of it.

How it moves from one state to the next is in `session`; how it begins, in `opening`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Final, Literal

from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.journal import Outcome
from kowalski.protocol.messages.repl import CellStatus
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.tokens import estimate_tokens

SessionMode = Literal["blocks", "direct", "rlm"]
Purpose = Literal["direct", "turn", "refine", "extract"]

MESSAGE_TOKENS: Final = 4
"""What a chat template adds to a message: role and delimiters, 3 to 5 in the usual ones."""

PROMPT_SHOWN_CHARS_MIN: Final = 4096
"""A prompt up to this is shown whole under any limits; a longer one is an input of the cells too.
No limit, so that cells find the same `context` whoever continues their session."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How much of what is shown to a model, and how much of what it wants is run.

    A session may be continued under other limits for showing: it then words itself differently from
    there on. Those with `_max` must stay as they were, since they decide which cells there are.
    """

    window_tokens: int = 100_000
    output_chars: int = 8192
    """Of one cell."""
    outputs_chars: int = 32_768
    """Of all cells of a turn."""
    reply_chars: int = 65_536
    prompt_chars: int = 16_384
    """Of the question of an `rlm` session, at least `PROMPT_SHOWN_CHARS_MIN`."""
    head_chars: int = 400
    """Of one input, and of the first few of many."""
    reply_cells_max: int = 32
    blocks_max: int = 1000
    cells_max: int = 10_000


def limits_for(window_tokens: int) -> SessionLimits:
    """Limits under which a turn fits a model that reads at most `window_tokens`.

    Of a small window, question, newest reply, newest outputs and the fold of older turns get about
    a quarter each, at four characters a token.
    """
    full = SessionLimits()
    return SessionLimits(
        window_tokens=window_tokens,
        output_chars=min(full.output_chars, window_tokens // 2),
        outputs_chars=min(full.outputs_chars, window_tokens),
        reply_chars=min(full.reply_chars, window_tokens),
        prompt_chars=max(PROMPT_SHOWN_CHARS_MIN, min(full.prompt_chars, window_tokens // 2)),
    )


@dataclass(frozen=True, slots=True)
class InputText:
    """The beginning of an input of the task, or all of it."""

    name: str
    text: str
    is_whole: bool


@dataclass(frozen=True, slots=True)
class AskModel:
    """Ask question number `call`; `ModelReplied` or `ModelFailed` answers it."""

    call: int
    messages: tuple[ChatMessage, ...]
    model: str
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class RunCell:
    """Journal `CellStarted`, then run; `CellFinished` or `CellFailed` answers it.

    `after` are the cells whose doings the session of this language must hold, in order.
    """

    cell: int
    language: str
    code: str
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """Keep `text` by its hash and fold it; `Folded` answers it."""

    text: str
    budget_tokens: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Stop whatever is still outstanding, then journal `Closed`.

    `detail` is empty for an answer without reservations. Else it is a code and words: why it
    failed (`no_language: ...`), or what to know about the answer (`extracted: ...`).
    """

    outcome: Outcome
    answer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something to show. Never journalled, and not repeated after a replay."""

    text: str


Effect = AskModel | RunCell | Fold | Finish | Note


@dataclass(frozen=True, slots=True)
class Cell:
    number: int
    language: str
    code: str
    block: int
    """Its ordinal among the blocks of the text that it comes from."""


@dataclass(frozen=True, slots=True)
class CellResult:
    """`status` is `not_run` if no peer could; `code` and `output` then say why."""

    status: CellStatus | Literal["not_run"]
    output: str
    is_session_alive: bool = True
    code: str = ""


@dataclass(frozen=True, slots=True)
class Unopened:
    pass


@dataclass(frozen=True, slots=True)
class Running:
    """The cells of one text: the prompt's if `is_prompt`, else those of the newest reply."""

    text: str
    is_prompt: bool
    cells: tuple[Cell, ...]
    results: tuple[CellResult | None, ...]
    refused: tuple[tuple[int, str], ...] = ()
    """Blocks that are no cells, and why."""


@dataclass(frozen=True, slots=True)
class Asking:
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Folding:
    """The window is too long; what is asked afterwards is `purpose`."""

    purpose: Purpose
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    finish: Finish


@dataclass(frozen=True, slots=True)
class Ended:
    """`Closed` was heard: nothing more will happen."""

    outcome: Outcome


Stage = Unopened | Running | Asking | Folding | Finished | Ended


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used so far, as the journal has it; refused and failed calls count as calls."""

    model_calls: int = 0
    sub_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    spec: TaskSpec
    inputs: tuple[InputText, ...]
    limits: SessionLimits
    stage: Stage = Unopened()
    mode: SessionMode | None = None
    model: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    """The window: what the model is sent. Only appended to, but for a fold."""
    history: tuple[ChatMessage, ...] = ()
    """Everything that was ever in the window."""
    tokens: int = 0
    """The window's, estimated."""
    preamble: int = 0
    """How many messages at the beginning of the window are never folded."""
    summary: str = ""
    """Of what was folded."""
    folds: tuple[ContentRef, ...] = ()
    """Originals of what was folded; each tells the summary before it, and where its original is."""
    calls: int = 0
    turns: int = 0
    hints: int = 0
    """Replies in a row in which nothing could be run."""
    cells: int = 0
    ran: tuple[tuple[int, str], ...] = ()
    """Cell and language of everything that its session still knows of, in the order of the end."""
    answer: str = ""
    """`answer["content"]`; in mode `blocks` the text with the outputs so far."""
    spent: Spent = Spent()

    @property
    def prompt_input(self) -> str | None:
        """The name under which cells get the prompt as one more input, last; None: not at all.

        In an `rlm` session without inputs the prompt is the context; one that may be too long to be
        shown whole is a part of it.
        """
        names = {given.name for given in self.spec.inputs}
        if self.mode != "rlm" or (names and len(self.spec.prompt) <= PROMPT_SHOWN_CHARS_MIN):
            return None
        return next(name for name in _prompt_names() if name not in names)


def _prompt_names() -> Iterator[str]:
    yield "prompt"
    yield from (f"prompt-{number}" for number in count(2))


def message_tokens(message: ChatMessage) -> int:
    return estimate_tokens(message.content) + MESSAGE_TOKENS


def check(session: Session) -> None:
    """Assert what holds of every session between any two events."""
    assert session.turns <= session.spec.max_iterations
    assert session.calls <= session.spec.max_iterations + 1
    assert len(set(session.ran)) == len(session.ran) <= session.cells <= session.limits.cells_max
    assert session.tokens == sum(map(message_tokens, session.messages))
    roles = [message.role for message in session.messages]
    assert all(one != other for one, other in pairwise(roles)), roles
    assert "system" not in roles[1:]
    assert session.preamble <= len(session.messages) <= len(session.history)
    match session.stage:
        case Unopened():
            assert session.mode is None
        case Running(cells=cells, results=results):
            assert len(cells) == len(results)
            assert None in results
            assert session.mode != "direct"
        case Asking() | Folding():
            assert session.model is not None
            assert roles[-1] == "user"
        case Finished(finish):
            assert finish.outcome == "cancelled" or finish.answer or finish.detail
        case Ended():
            pass
