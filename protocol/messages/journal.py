"""What happened in a task, one message an entry.

They are also the events of the session machine (`kowalski.rlm.session`): feeding a journal back to
it brings a task back to where it was.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kowalski.protocol.ids import ContentHashField, PeerIdField
from kowalski.protocol.limits import CODE_BYTES_MAX, FRAME_BYTES_MAX
from kowalski.protocol.messages.base import (
    Code,
    Count,
    Fraction,
    Line,
    Message,
    ModelName,
    Name,
    Seconds,
    Text,
    Utf8BytesMax,
)
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.repl import (
    AnswerVariable,
    CellNumber,
    CellStatus,
    ClockReadings,
    Variables,
    WorkFiles,
)

BIG = FRAME_BYTES_MAX - 8192  # an entry travels inside a frame of its own

Attempts = Annotated[int, Field(ge=0, le=1000)]
"""Requests that were sent to models for one call, those included that failed."""

Outcome = Literal["answered", "failed", "cancelled"]


class Opened(Message):
    """The first entry: which way the session goes, decided once."""

    KIND: ClassVar[str] = "journal/opened"

    mode: Literal["blocks", "direct", "rlm"]
    model: ModelName | None = None
    seed: Count = 0
    why: Line = ""


class ModelReplied(Message):
    """A reply to the session's question number `call`."""

    KIND: ClassVar[str] = "journal/model-replied"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    call: Count
    text: Text
    model: ModelName
    peer: PeerIdField
    usage: Usage
    attempts: Attempts = 1
    duration_s: Seconds = 0.0


class ModelFailed(Message):
    """No peer could answer question number `call`."""

    KIND: ClassVar[str] = "journal/model-failed"

    call: Count
    code: Code
    detail: Line
    attempts: Attempts = 1


class CellStarted(Message):
    """Written before the cell is sent, so that whoever continues knows what may have run."""

    KIND: ClassVar[str] = "journal/cell-started"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    cell: CellNumber
    language: Code
    code: Annotated[str, Utf8BytesMax(CODE_BYTES_MAX)]
    peer: PeerIdField
    why: Line = ""


class CellFinished(Message):
    """How cell number `cell` ended. Output is what is shown; all of it is behind `full`.

    `variables` and `clock` as of `repl.CellDone`.
    """

    KIND: ClassVar[str] = "journal/cell-finished"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    cell: CellNumber
    peer: PeerIdField
    status: CellStatus
    output: Text
    output_bytes: Count = 0
    full: ContentRef | None = None
    files: WorkFiles = ()
    answer: AnswerVariable | None = None
    variables_digest: Annotated[str, Field(max_length=64)] = ""
    variables: Variables = ()
    clock: ClockReadings = ()
    exit_code: Annotated[int, Field(ge=-1024, le=1024)] | None = None
    is_session_alive: bool = True
    duration_s: Seconds = 0.0


class CellFailed(Message):
    """No peer could run cell number `cell`: nobody speaks the language, or all who do are gone."""

    KIND: ClassVar[str] = "journal/cell-failed"

    cell: CellNumber
    code: Code
    detail: Line


class CellDiverged(Message):
    """Cell number `cell`, run again to bring its variables back, left others than the first time.

    `names` are those that differ or are gone, as far as the kernel tells them apart.
    """

    KIND: ClassVar[str] = "journal/cell-diverged"

    cell: CellNumber
    language: Code
    peer: PeerIdField
    names: Annotated[tuple[Name, ...], Field(strict=False, fail_fast=True, max_length=64)] = ()
    detail: Line = ""


class SubCallAnswered(Message):
    """Sub-call number `ordinal` of a cell. Replays are answered from here.

    `prompt` is the digest of what was asked (`kowalski.rlm.sub_calls.question_of`). `attempts` is
    how many requests went to models for it; 0 if it was no model call, or a child session, which
    tells of its own (`ChildHappened`). With `is_repeated` it was asked before in this task, word
    for word, and is answered the same: the text stands there.
    """

    KIND: ClassVar[str] = "journal/sub-call-answered"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    cell: CellNumber
    ordinal: Count
    prompt: ContentHashField
    kind: Code = "llm"
    model: ModelName | None = None
    peer: PeerIdField | None = None
    text: Text | None = None
    error: Line | None = None
    code: Code | None = None
    is_repeated: bool = False
    usage: Usage | None = None
    attempts: Attempts = 0
    duration_s: Seconds = 0.0


class SubCallsAnswered(Message):
    """Several sub-calls of cells, answered at about the same time: each as if it stood alone."""

    KIND: ClassVar[str] = "journal/sub-calls-answered"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    answers: Annotated[
        tuple[SubCallAnswered, ...], Field(strict=False, fail_fast=True, max_length=256)
    ]


class ChildHappened(Message):
    """Something happened in the child session that sub-call `ordinal` of `cell` has begun.

    `event` is the frame of any message of a journal; a child's child nests once more. The first one
    tells the `question`, as of `SubCallAnswered`.
    """

    KIND: ClassVar[str] = "journal/child-happened"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    cell: CellNumber
    ordinal: Count
    question: ContentHashField | None = None
    event: Annotated[bytes, Field(max_length=BIG - 512)]


class Folded(Message):
    """The message window was folded; the original is behind `original`.

    With a model: `calls` of it, with `attempts` and `usage` of all of them together.
    """

    KIND: ClassVar[str] = "journal/folded"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    text: Text
    original: ContentRef
    source_tokens: Count
    tokens: Count
    peer: PeerIdField
    calls: Count = 0
    attempts: Count = 0
    usage: Usage | None = None


class CancelHeard(Message):
    KIND: ClassVar[str] = "journal/cancel-heard"

    reason: Line


class BudgetSpent(Message):
    """A limit of the task: `timeout`, `calls`, `tokens`, `window`."""

    KIND: ClassVar[str] = "journal/budget-spent"

    limit: Code
    detail: Line = ""


class Closed(Message):
    """The last entry. `answer` is cut when `full` is there; `score` if a model judged it."""

    KIND: ClassVar[str] = "journal/closed"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    outcome: Outcome
    answer: Text
    full: ContentRef | None = None
    score: Fraction | None = None
    detail: Line = ""


SessionEvent = (
    Opened
    | ModelReplied
    | ModelFailed
    | CellStarted
    | CellFinished
    | CellFailed
    | CellDiverged
    | SubCallAnswered
    | SubCallsAnswered
    | ChildHappened
    | Folded
    | CancelHeard
    | BudgetSpent
    | Closed
)
