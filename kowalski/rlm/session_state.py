"""What a session is at any moment, what it asks of the world, and what must always hold of it.

How it moves from one state to the next is in `session`; how it begins, in `opening`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Final, Literal

from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import ChatMessage
from kowalski.protocol.messages.journal import ModelFailed, Outcome
from kowalski.protocol.messages.repl import CellStatus
from kowalski.protocol.messages.task import TaskSpec
from kowalski.rlm.budget import NOTHING, Spent
from kowalski.rlm.prompts import BUILT_IN, PromptBook, PromptName
from kowalski.rlm.quality import Best
from kowalski.rlm.tokens import estimate_tokens
from kowalski.rlm.window_size import UNLEARNT, TokenScale

SessionMode = Literal["blocks", "direct", "rlm"]
Purpose = Literal["direct", "turn", "refine", "extract", "draft", "part", "aggregate", "evaluate"]
"""What is asked for: `draft` and `part` are slots of a batch, `aggregate` makes one answer of
drafts, `evaluate` judges one."""

Turning = Literal["direct", "turn", "refine"]
"""The purposes of which a session may ask again and again, a turn each time."""

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
    parts_max: int = 32
    """Of a text with outputs that is too long for one question."""
    scale: TokenScale = UNLEARNT
    """What was known of the model's tokens when the session began."""

    @property
    def usual_tokens(self) -> int:
        """`window_tokens` in those of our estimate, of which a word is one."""
        return self.scale.ours(self.window_tokens)

    @property
    def sub_prompt_chars(self) -> int:
        """How long the prompt of a sub-call may be, with room for its reply."""
        return self.usual_tokens * 3


def limits_for(
    window_tokens: int, output_chars: int | None = None, scale: TokenScale = UNLEARNT
) -> SessionLimits:
    """Limits under which a turn fits a model that reads at most `window_tokens`.

    Of a small window, question, newest reply, newest outputs and the fold of older turns get about
    a quarter each, at four characters a usual token. `output_chars`: what the task wants shown of a
    cell.
    """
    full = SessionLimits(window_tokens=window_tokens, scale=scale)
    usual = full.usual_tokens
    return replace(
        full,
        output_chars=min(output_chars or full.output_chars, max(1, usual // 2)),
        outputs_chars=min(full.outputs_chars, usual),
        reply_chars=min(full.reply_chars, usual),
        prompt_chars=max(PROMPT_SHOWN_CHARS_MIN, min(full.prompt_chars, usual // 2)),
    )


@dataclass(frozen=True, slots=True)
class InputText:
    """The beginning of an input of the task, or all of it."""

    name: str
    text: str
    is_whole: bool


@dataclass(frozen=True, slots=True)
class AskModel:
    """Ask question number `call`; `ModelReplied` or `ModelFailed` answers it.

    `json_schema` binds the reply, where the model's server can do that; the reply is checked in any
    case.
    """

    call: int
    messages: tuple[ChatMessage, ...]
    model: str
    purpose: Purpose
    json_schema: str | None = None


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
    score: float | None = None
    """From 0 to 1, if a model judged the answer."""


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
    """One question: the window, or `messages` of its own.

    `fallback` stands for the reply if nobody can answer.
    """

    purpose: Purpose
    messages: tuple[ChatMessage, ...] = ()
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Gathering:
    """Several questions at once, numbered from `first`; their replies keep the order.

    A slot is None until it is answered. One that fails does not touch the others.
    """

    purpose: Literal["draft", "part"]
    first: int
    questions: tuple[tuple[ChatMessage, ...], ...]
    replies: tuple[str | ModelFailed | None, ...]


@dataclass(frozen=True, slots=True)
class Judging:
    """`answer` was offered, and a model is asked how good it is."""

    answer: str
    messages: tuple[ChatMessage, ...]
    outputs: str
    """Of the turn that offered it, for the next one."""
    purpose: Turning
    """Of the next turn, if there is one."""


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


Stage = Unopened | Running | Asking | Gathering | Judging | Folding | Finished | Ended


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
    learnt: TokenScale | None = None
    """From the counts of the servers that were asked."""
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
    offered: str | None = None
    """The answer that was turned down last: said again word for word, it is no new one."""
    misfits: int = 0
    """Answers that were not of the wanted shape."""
    best: Best | None = None
    """Of the answers that were judged."""
    is_extracting: bool = False
    """The last question is asked: whatever is answered ends the session."""
    diverged: tuple[str, ...] = ()
    """What the model has not been told yet of variables that came back otherwise."""
    spent: Spent = NOTHING
    prompts: PromptBook = BUILT_IN

    @property
    def scale(self) -> TokenScale:
        """From our estimate to what the model counts."""
        return self.learnt or self.limits.scale

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

    def render(self, name: PromptName, **values: str | int) -> str:
        """A text for this session's model."""
        return self.prompts.render(name, self.model, **values)


def _prompt_names() -> Iterator[str]:
    yield "prompt"
    yield from (f"prompt-{number}" for number in count(2))


def message_tokens(message: ChatMessage) -> int:
    return estimate_tokens(message.content) + MESSAGE_TOKENS


def check(session: Session) -> None:
    """Assert what holds of every session between any two events."""
    spec = session.spec
    assert session.turns <= spec.max_iterations
    assert session.calls <= calls_max(session)
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
        case Gathering(first=first, questions=questions, replies=replies):
            assert len(questions) == len(replies)
            assert None in replies
            assert first + len(questions) == session.calls
        case Asking(messages=own):
            assert session.model is not None
            assert own or roles[-1] == "user"
        case Judging() | Folding():
            assert session.model is not None
        case Finished(finish):
            assert finish.outcome == "cancelled" or finish.answer or finish.detail
        case Ended():
            pass


def calls_max(session: Session) -> int:
    """The most questions that a session asks: one a turn, and one more to judge each answer.

    Then the last word, and in the beginning drafts or notes of parts.
    """
    spec = session.spec
    most = spec.max_iterations * (1 if spec.quality is None else 2) + 1
    if spec.asking.drafts > 1:
        most += spec.asking.drafts
    return most + session.limits.parts_max if session.mode == "blocks" else most
