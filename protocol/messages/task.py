"""A submitter and the coordinator of its task (/kowalski/task/1).

    submitter                                 coordinator
    Grant (again on reconnect: idempotent) ──►
                                     ◄──      PrefixAsked{start}     until it has all entries
    Prefix ──►
    Renewal (every second) ──►
                                     ◄──      EntryOffered{index, parent, body}
    Accepted{index} ──►
                                     ◄──      Progress (for showing; never recorded)
    Settle ──►
                                     ◄──      Settled

Only the submitter issues terms, and only it accepts entries. Every message carries the term it was
sent in; a peer that knows a higher one refuses `stale`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kowalski.protocol.ids import ContentHashField, PeerIdField, TaskIdField
from kowalski.protocol.limits import (
    FRAME_BYTES_MAX,
    GOSSIP_BYTES_MAX,
    MEMBERS_MAX,
    PROMPT_BYTES_MAX,
    SCHEMA_BYTES_MAX,
)
from kowalski.protocol.messages.base import (
    Boot,
    Code,
    Count,
    Fraction,
    Line,
    Message,
    ModelName,
    Name,
    Record,
    Seconds,
    Term,
    Utf8BytesMax,
)
from kowalski.protocol.messages.placement import Priority
from kowalski.protocol.messages.repl import Inputs

ENTRIES_MAX = 256
"""In one message."""

Mode = Literal["auto", "blocks", "direct", "rlm"]

Failover = Literal["redistribute", "fail", "queue"]
"""When the device that leads a task or runs its code is lost: go on with the next one; fail; or go
on, and where nobody is able, wait for somebody who is."""

SubmitterGone = Literal["hold", "abort"]
"""What a coordinator does whose submitter is gone: finish, and keep what came of it; or stop."""

SideEffects = Literal["repeatable", "at_most_once"]
"""Whether a cell may be run again when nobody knows how far it came, or ends `unknown`."""
Index = Annotated[int, Field(ge=0, le=1_000_000)]
Digest = ContentHashField
Peers = Annotated[tuple[PeerIdField, ...], Field(strict=False, fail_fast=True, max_length=8)]


Devices = Literal["all", "local", "network"]
"""Where cells, model calls and folds of a task may go: anywhere, nowhere but the device it was
submitted on, or anywhere but there. Unless it is `all`, that device leads the task itself."""


class RetryPolicy(Record):
    """How often lost work is begun again elsewhere, and after what pause.

    Each pause is `delay_s`, or twice the one before if `is_exponential`, never over ten minutes.
    """

    retries_max: Annotated[int, Field(ge=0, le=64)] = 15
    delay_s: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 0.0
    is_exponential: bool = True


class Budget(Record):
    """What a task may use, its child sessions included; None: as much as time allows.

    `depth` is how many levels of child sessions there may be below it. The last call is kept for
    the session itself, so that it can say what it knows.
    """

    calls: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tokens: Annotated[int, Field(ge=1, le=10**12)] | None = None
    depth: Annotated[int, Field(ge=0, le=8)] = 1


class Quality(Record):
    """A model judges each answer from 0 to 1; from `threshold` on it is good enough.

    After `patience` judgements in a row that brought nothing better, the best answer is taken.
    """

    threshold: Fraction
    patience: Annotated[int, Field(ge=1, le=100)] = 3
    model: ModelName | None = None


class Shape(Record):
    """The answer is JSON of this schema. So often is a model told what does not fit."""

    json_schema: Annotated[str, Field(min_length=1), Utf8BytesMax(SCHEMA_BYTES_MAX)]
    tries: Annotated[int, Field(ge=1, le=100)] = 3


class Asking(Record):
    """How models are asked.

    `drafts`: so many answers at once, of which one more call makes one. `sub_model`: whom cells ask
    where they name none. `answers_once`: what is asked twice in a task, word for word, is answered
    from the first time. `fold_model` summarises older turns; without it no model does.
    """

    drafts: Annotated[int, Field(ge=1, le=16)] = 1
    sub_model: ModelName | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    reply_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    answers_once: bool = True
    fold_model: ModelName | None = None


class TaskSpec(Record):
    """What was asked. Never changes; two submits of one id must agree on it.

    Of the tasks that wait, those of the highest `priority` begin first. `window_tokens` and
    `output_chars` (of one cell) bound what a model is shown further than its own window does.
    """

    prompt: Annotated[str, Field(min_length=1), Utf8BytesMax(PROMPT_BYTES_MAX)]
    mode: Mode = "auto"
    model: ModelName | None = None
    inputs: Inputs = ()
    max_iterations: Annotated[int, Field(ge=1, le=1000)]
    cell_timeout_s: Seconds = 30.0
    timeout_s: Seconds
    seed: Count = 0
    priority: Priority = "normal"
    failover: Failover = "redistribute"
    retry: RetryPolicy = RetryPolicy()
    submitter_gone: SubmitterGone = "hold"
    side_effects: SideEffects = "repeatable"
    devices: Devices = "all"
    budget: Budget = Budget()
    quality: Quality | None = None
    shape: Shape | None = None
    asking: Asking = Asking()
    window_tokens: Annotated[int, Field(ge=256, le=10_000_000)] | None = None
    output_chars: Annotated[int, Field(ge=100, le=1_000_000)] | None = None


class Entry(Record):
    """One thing that happened: `body` is a journal message's frame, `parent` the digest before."""

    term: Term
    index: Index
    parent: Digest
    body: Annotated[bytes, Field(max_length=FRAME_BYTES_MAX - 4096)]


Entries = Annotated[tuple[Entry, ...], Field(strict=False, fail_fast=True, max_length=ENTRIES_MAX)]


class Grant(Message):
    """Lead this task in this term, on top of the `prefix_entries` that ended in `last_digest`.

    `standbys` are to have copies of its journal; `holders` had some, of earlier terms, and may hold
    more of it than was accepted. `submitter` where it is not who grants: of a detached task, and
    only a peer to itself.
    """

    KIND: ClassVar[str] = "task/grant"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    term: Term
    spec: TaskSpec
    prefix_entries: Index
    last_digest: Digest
    standbys: Peers = ()
    holders: Peers = ()
    lease_s: Seconds
    remaining_s: Seconds
    submitter: PeerIdField | None = None


class Renewal(Message):
    KIND: ClassVar[str] = "task/renewal"

    task: TaskIdField
    term: Term
    lease_s: Seconds
    remaining_s: Seconds


class PrefixAsked(Message):
    KIND: ClassVar[str] = "task/prefix-asked"

    task: TaskIdField
    term: Term
    start: Index


class Prefix(Message):
    """Accepted entries from `start` on, as many as fit a frame; none means: that was all."""

    KIND: ClassVar[str] = "task/prefix"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    start: Index
    entries: Entries


class EntryOffered(Message):
    KIND: ClassVar[str] = "task/entry"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    entry: Entry


class Accepted(Message):
    """Entry `index` is on the submitter's disk. Sent again for an entry that was there already."""

    KIND: ClassVar[str] = "task/accepted"

    task: TaskIdField
    term: Term
    index: Index
    digest: Digest


class Progress(Message):
    """Something to show while it happens. May be dropped."""

    KIND: ClassVar[str] = "task/progress"
    FRAME_BYTES_MAX: ClassVar[int] = 128 * 1024

    task: TaskIdField
    term: Term
    kind: Code
    peer: PeerIdField | None = None
    cell: Index | None = None
    language: Code | None = None
    text: Annotated[str, Utf8BytesMax(64 * 1024)] = ""
    why: Line = ""


class CancelTask(Message):
    """Stop; record `cancelled` with what there is of an answer."""

    KIND: ClassVar[str] = "task/cancel"

    task: TaskIdField
    term: Term
    reason: Line = ""


class Settle(Message):
    """Everything is accepted; forget the task."""

    KIND: ClassVar[str] = "task/settle"

    task: TaskIdField
    term: Term


class Settled(Message):
    KIND: ClassVar[str] = "task/settled"

    task: TaskIdField
    term: Term


class Announced(Message):
    """Gossip, so that every peer can list tasks. Grants nothing.

    `boot` and `sequence` as in telemetry. What is not named has not changed.
    """

    KIND: ClassVar[str] = "task/announced"
    FRAME_BYTES_MAX: ClassVar[int] = GOSSIP_BYTES_MAX

    boot: Boot
    sequence: Count
    tasks: Annotated[
        tuple[TaskHeadline, ...], Field(strict=False, fail_fast=True, max_length=MEMBERS_MAX)
    ]


class TaskHeadline(Record):
    """`submitter` where it is not the origin of the gossip. `term` is 0 before the first."""

    task: TaskIdField
    submitter: PeerIdField | None = None
    term: Count
    state: Code
    coordinator: PeerIdField | None = None
    mode: Mode
    entries: Index
    head: Annotated[str, Field(max_length=80)]
    submitter_name: Name
    age_s: Seconds


Announced.model_rebuild()
