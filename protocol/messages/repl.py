"""Running code on a peer (/kowalski/repl/1).

    asker                                     worker
    CellAsked ──►
                                     ◄──      CellOutput (as it comes)
                                     ◄──      SubCallsAsked (the cell called llm_query)
    SubCallsAnswered ──►
                                     ◄──      CellDone, Refused or Failed

Cells of one task and language share a session, which lives on the worker until it is closed. A
worker that does not hold the session the asker thinks of refuses `session_lost`; the asker then
replays.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from kowalski.protocol.ids import ContentHashField, PeerIdField, TaskIdField
from kowalski.protocol.limits import (
    ARGUMENT_BYTES_MAX,
    ARGUMENTS_MAX,
    CODE_BYTES_MAX,
    FRAME_BYTES_MAX,
    INPUTS_MAX,
    WORK_FILE_CHARS_MAX,
    WORK_FILES_MAX,
)
from kowalski.protocol.messages.base import (
    Code,
    Count,
    Line,
    Message,
    ModelName,
    Name,
    Record,
    Seconds,
    Term,
    Text,
    Utf8BytesMax,
)
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.telemetry import Hot

CellNumber = Annotated[int, Field(ge=0, le=100_000)]

CLOCK_READINGS_MAX = 256
VARIABLES_MAX = 256

ClockReadings = Annotated[
    tuple[Count, ...], Field(strict=False, fail_fast=True, max_length=CLOCK_READINGS_MAX)
]
"""What a cell was told when it asked for the time, in order: microseconds since 1970."""


class Variable(Record):
    """A name of a session, and the beginning of a digest of its value."""

    name: Name
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]


Variables = Annotated[
    tuple[Variable, ...], Field(strict=False, fail_fast=True, max_length=VARIABLES_MAX)
]


class Input(Record):
    """One context file of a task."""

    name: Name
    content: ContentRef


def stays_below(path: str) -> bool:
    """Whether `path` is relative and leads nowhere else than below where it begins.

    Asked of every `WorkFile.name` by whoever writes it to a disk.
    """
    parts = path.split("/")
    return not any(part in {"", ".", ".."} for part in parts) and path.isprintable()


class WorkFile(Record):
    """A file in the working folder of a session, by its path below it: see `stays_below`."""

    name: Annotated[str, Field(min_length=1, max_length=WORK_FILE_CHARS_MAX)]
    content: ContentRef


WorkFiles = Annotated[
    tuple[WorkFile, ...], Field(strict=False, fail_fast=True, max_length=WORK_FILES_MAX)
]

Inputs = Annotated[tuple[Input, ...], Field(strict=False, fail_fast=True, max_length=INPUTS_MAX)]


class CellAsked(Message):
    """Run `code` as cell `cell` of `task`.

    `after` lists the cells that the session must have run, in order; empty for a first one. `past`
    is the hash of those with their code (`session_past`), None of an older asker.
    `keeps_session` is false for languages without state, and for a program that is run alone, which
    finds `arguments` behind its `name`, `files` in its working folder, and `stdin` to read.
    `wants_files`: those that a cell leaves there come back by hash. `clock` is of a cell that is
    run again: what it was told of the time when it ran first. `is_bound`: no cell of the session
    may run twice, so that a worker that is about to leave goes on with it.
    """

    KIND: ClassVar[str] = "repl/cell-asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    term: Term
    cell: CellNumber
    language: Code
    code: Annotated[str, Utf8BytesMax(CODE_BYTES_MAX)]
    inputs: Inputs = ()
    after: Annotated[
        tuple[CellNumber, ...], Field(strict=False, fail_fast=True, max_length=10_000)
    ] = ()
    past: ContentHashField | None = None
    keeps_session: bool = True
    name: Annotated[str, Field(max_length=255)] = ""
    arguments: Annotated[
        tuple[Annotated[str, Utf8BytesMax(ARGUMENT_BYTES_MAX)], ...],
        Field(strict=False, fail_fast=True, max_length=ARGUMENTS_MAX),
    ] = ()
    stdin: ContentRef | None = None
    files: WorkFiles = ()
    wants_files: bool = True
    seed: Count = 0
    clock: ClockReadings = ()
    timeout_s: Seconds
    remaining_s: Seconds
    claim: Claim = Claim()
    is_bound: bool = False


class CellOutput(Message):
    """Live output, for showing. The record of it is in `CellDone`."""

    KIND: ClassVar[str] = "repl/output"
    FRAME_BYTES_MAX: ClassVar[int] = 128 * 1024

    stream: Literal["stdout", "stderr"]
    data: Annotated[bytes, Field(max_length=64 * 1024)]


class SubCall(Record):
    """What a cell asks of the outside.

    Kinds so far: `llm`, `rlm`, `unfold`, `history`, `budget`.
    """

    kind: Code = "llm"
    prompt: Text
    model: ModelName | None = None


class SubCallResult(Record):
    """Text or error, exactly one of the two. `code` says what kind of error."""

    text: Text | None = None
    error: Line | None = None
    code: Code | None = None


class SubCallsAsked(Message):
    """A cell waits for these; its own clock stands meanwhile."""

    KIND: ClassVar[str] = "repl/sub-calls-asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    batch: Count
    calls: Annotated[tuple[SubCall, ...], Field(strict=False, fail_fast=True, max_length=4096)]


class SubCallsAnswered(Message):
    """In the order of the calls.

    Those that do not fit into one frame come in several; `left` more of the batch follow this one.
    """

    KIND: ClassVar[str] = "repl/sub-calls-answered"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    batch: Count
    left: Count = 0
    results: Annotated[
        tuple[SubCallResult, ...], Field(strict=False, fail_fast=True, max_length=4096)
    ]


class AnswerVariable(Record):
    """The `answer` of the session after a cell."""

    content: Text
    is_ready: bool


CellStatus = Literal["ok", "error", "timeout", "died", "memory", "inodes", "output_flood"]


class CellDone(Message):
    """How a cell ended. Output is cut head and tail; `full` holds all of it when it was.

    `variables` tells what the session holds, by name, where `variables_digest` is of all of it;
    `clock` what the cell was told of the time. `files` are those in the working folder that are new
    or changed since the cell before; `files_omitted` of them were too many or too large.
    """

    KIND: ClassVar[str] = "repl/cell-done"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    cell: CellNumber
    status: CellStatus
    stdout: Text
    stderr: Text
    stdout_bytes: Count
    stderr_bytes: Count
    full: ContentRef | None = None
    value: Text | None = None
    error: Text | None = None
    answer: AnswerVariable | None = None
    variables_digest: Annotated[str, Field(max_length=64)] = ""
    variables: Variables = ()
    clock: ClockReadings = ()
    exit_code: Annotated[int, Field(ge=-1024, le=1024)] | None = None
    files: WorkFiles = ()
    files_omitted: Count = 0
    is_session_alive: bool
    duration_s: Seconds
    held_s: Seconds
    hot: Hot | None = None


class SessionClosed(Message):
    """The asker is done with all sessions of `task`; answered with itself.

    `submitter` as in the claims of its cells: names are their submitters' own choice.
    """

    KIND: ClassVar[str] = "repl/session-closed"

    task: TaskIdField
    term: Term
    submitter: PeerIdField | None = None
