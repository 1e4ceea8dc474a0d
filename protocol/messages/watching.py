"""Looking at a task, and steering it, from any peer (/kowalski/tasks/1).

    peer                                      who holds the task
    WatchAsked{start} ──►
                                     ◄──      WatchOpened{spec}
                                     ◄──      WatchSeen{entries, progress}, again and again
                                     ◄──      WatchSeen: over, or as it stands

    CancelAsked ──►                  ◄──      WatchSeen: over
    ResumeAsked ──►                  ◄──      WatchOpened: the task that goes on with it
    TraceAsked ──►                   ◄──      Traced

Names of tasks are their submitters' own choice: `submitter` tells which is meant, if it is known.
Whoever does not hold the task refuses `unknown`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kowalski.protocol.ids import PeerIdField, TaskIdField
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Code, Count, Line, Message, Name, Seconds
from kowalski.protocol.messages.journal import Closed
from kowalski.protocol.messages.task import Entries, Index, Peers, Progress, TaskSpec


class WatchAsked(Message):
    """Show the task from entry `start` on; until it is over, if `is_following`."""

    KIND: ClassVar[str] = "watching/asked"

    task: TaskIdField
    submitter: PeerIdField | None = None
    start: Index = 0
    is_following: bool = True


class WatchOpened(Message):
    """What the task is; it was submitted `age_s` seconds ago. A detached one is `kept_by` three."""

    KIND: ClassVar[str] = "watching/opened"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    submitter: PeerIdField
    submitter_name: Name
    spec: TaskSpec
    age_s: Seconds
    kept_by: Peers = ()


class WatchSeen(Message):
    """How the task stands, and what is new: entries, or something to show.

    `answer` is there when it is over, also where no entry says so. `term` is 0 before the first.
    """

    KIND: ClassVar[str] = "watching/seen"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    state: Code
    term: Count
    coordinator: PeerIdField | None = None
    why: Line = ""
    entries: Entries = ()
    progress: Progress | None = None
    answer: Closed | None = None


class CancelAsked(Message):
    KIND: ClassVar[str] = "watching/cancel-asked"

    task: TaskIdField
    submitter: PeerIdField | None = None
    reason: Line = ""


class ResumeAsked(Message):
    """Go on with it: now, if it waits; as a new task on its journal, if it did not end well."""

    KIND: ClassVar[str] = "watching/resume-asked"

    task: TaskIdField
    submitter: PeerIdField | None = None
    timeout_s: Seconds | None = None
    max_iterations: Annotated[int, Field(ge=1, le=1000)] | None = None


class TraceAsked(Message):
    """What its submitter's ledger remembers of it, step by step."""

    KIND: ClassVar[str] = "watching/trace-asked"

    task: TaskIdField
    submitter: PeerIdField | None = None


class Traced(Message):
    """One line a step, the latest last."""

    KIND: ClassVar[str] = "watching/traced"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    lines: Annotated[tuple[Line, ...], Field(strict=False, fail_fast=True, max_length=1000)]
