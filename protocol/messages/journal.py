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
    Line,
    Message,
    ModelName,
    Seconds,
    Text,
    Utf8BytesMax,
)
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.inference import Usage
from kowalski.protocol.messages.repl import AnswerVariable, CellNumber, CellStatus, WorkFiles

BIG = FRAME_BYTES_MAX - 8192  # an entry travels inside a frame of its own

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
    duration_s: Seconds = 0.0


class ModelFailed(Message):
    """No peer could answer question number `call`."""

    KIND: ClassVar[str] = "journal/model-failed"

    call: Count
    code: Code
    detail: Line


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
    """How cell number `cell` ended. Output is what is shown; all of it is behind `full`."""

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
    exit_code: Annotated[int, Field(ge=-1024, le=1024)] | None = None
    is_session_alive: bool = True
    duration_s: Seconds = 0.0


class CellFailed(Message):
    """No peer could run cell number `cell`: nobody speaks the language, or all who do are gone."""

    KIND: ClassVar[str] = "journal/cell-failed"

    cell: CellNumber
    code: Code
    detail: Line


class SubCallAnswered(Message):
    """Sub-call number `ordinal` of a cell. Replays are answered from here."""

    KIND: ClassVar[str] = "journal/sub-call-answered"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    cell: CellNumber
    ordinal: Count
    prompt: ContentHashField
    model: ModelName | None = None
    peer: PeerIdField | None = None
    text: Text | None = None
    error: Line | None = None
    usage: Usage | None = None


class Folded(Message):
    """The message window was folded; the original is behind `original`."""

    KIND: ClassVar[str] = "journal/folded"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    text: Text
    original: ContentRef
    source_tokens: Count
    tokens: Count
    peer: PeerIdField


class CancelHeard(Message):
    KIND: ClassVar[str] = "journal/cancel-heard"

    reason: Line


class BudgetSpent(Message):
    """A limit of the task: `timeout`, `iterations`, `calls`."""

    KIND: ClassVar[str] = "journal/budget-spent"

    limit: Code
    detail: Line = ""


class Closed(Message):
    """The last entry. `answer` is cut when `full` is there."""

    KIND: ClassVar[str] = "journal/closed"
    FRAME_BYTES_MAX: ClassVar[int] = BIG

    outcome: Outcome
    answer: Text
    full: ContentRef | None = None
    detail: Line = ""


SessionEvent = (
    Opened
    | ModelReplied
    | ModelFailed
    | CellStarted
    | CellFinished
    | CellFailed
    | SubCallAnswered
    | Folded
    | CancelHeard
    | BudgetSpent
    | Closed
)
