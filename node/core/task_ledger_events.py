"""What the task ledger hears and what it wants done: its events, its effects, and a task itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import journal
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.task import Digest, Entry, TaskSpec
from kowalski.rlm.journal import GENESIS

TaskState = Literal["waiting", "running", "answered", "failed", "cancelled"]
Decline = Literal["failed", "busy", "leaving", "unable"]


@dataclass(frozen=True, slots=True)
class Task:
    """One task. Times are the driver's clock and are not saved."""

    id: TaskId
    spec: TaskSpec
    submitted_unix_s: int
    state: TaskState = "waiting"
    term: int = 0
    coordinator: PeerId | None = None
    entries: int = 0
    digests: tuple[Digest, ...] = ()
    answer: journal.Closed | None = None
    excluded: tuple[PeerId, ...] = ()
    """Coordinators that have failed at it, until all have."""
    holders: tuple[PeerId, ...] = ()
    """Peers that led it or stood by, lately: who may hold more of its journal than we do."""
    former: PeerId | None = None
    """Who led it when we were last: it may be at work still."""
    client: str = ""
    """On whose behalf it was submitted; clients take turns."""
    retries: int = 0
    """How often a coordinator was lost and another appointed."""
    why_waiting: str = ""
    waiting_since: float = -inf
    is_pausing: bool = False
    """It waits because its `RetryPolicy` says so."""
    nobody_since: float = inf
    """Since when there has been nobody to appoint."""
    cancel_reason: str | None = None
    cancelled_at: float = inf
    is_settled: bool = False
    is_in_talks: bool = False
    """The conversation of this term is open, as far as we know."""
    declined: int = 0
    """How often the coordinator has said that it is full, since it last took the task."""
    heard_at: float = -inf
    act_at: float = inf
    deadline_at: float = inf

    @property
    def is_over(self) -> bool:
        return self.state in {"answered", "failed", "cancelled"}

    @property
    def last_digest(self) -> Digest:
        return self.digests[-1] if self.digests else GENESIS


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    task: TaskId
    spec: TaskSpec
    unix_s: int
    client: str = ""
    past: tuple[journal.SessionEvent, ...] = ()
    """What happened to it already, under another name: it goes on from there."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A task as the disk has it. Its coordinator's term is over, if it is not over itself."""

    task: Task


@dataclass(frozen=True, slots=True)
class WeightsChanged:
    """`hosts` tells which of the peers share a device; one that is not named has its own.

    `silent` are those that cannot be reached at the moment, though nobody has given them up.
    """

    weights: Mapping[PeerId, float]
    hosts: Mapping[PeerId, str] = field(default_factory=dict)
    silent: frozenset[PeerId] = frozenset()


@dataclass(frozen=True, slots=True)
class CoordinatorHeard:
    task: TaskId
    term: int


@dataclass(frozen=True, slots=True)
class EntryHeard:
    task: TaskId
    entry: Entry


@dataclass(frozen=True, slots=True)
class CoordinatorLost:
    """The conversation of this term broke, or could not be opened."""

    task: TaskId
    term: int
    why: str


@dataclass(frozen=True, slots=True)
class CoordinatorDeclined:
    """It answered no to this term's grant, or gave up.

    It `failed`; or it is `busy`, and worth asking again; or it is `leaving`, and hands over; or it
    is `unable`: nobody in the mesh has what the task needs.
    """

    task: TaskId
    term: int
    why: str
    how: Decline = "failed"


@dataclass(frozen=True, slots=True)
class CancelAsked:
    task: TaskId
    reason: str


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Its owner would have it tried now, by anybody."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class SettledHeard:
    task: TaskId
    term: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = (
    Submitted
    | Restored
    | WeightsChanged
    | CoordinatorHeard
    | EntryHeard
    | CoordinatorLost
    | CoordinatorDeclined
    | CancelAsked
    | ResumeAsked
    | SettledHeard
    | TimePassed
)


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Save:
    """Put the task's row on disk before any later effect."""

    task: Task


@dataclass(frozen=True, slots=True)
class SaveWithPast:
    """Put the task's row and its first entries on disk, all or nothing, before any later effect."""

    task: Task
    entries: tuple[Entry, ...]
    contents: tuple[ContentRef, ...]


@dataclass(frozen=True, slots=True)
class Append:
    """Put the entry on disk before any later effect; `task` is the row as it is with it.

    `contents` is what the entry refers to.
    """

    task: Task
    entry: Entry
    contents: tuple[ContentRef, ...] = ()


@dataclass(frozen=True, slots=True)
class GrantTerm:
    """Open the conversation of this term, ending any earlier one of the task.

    `holders` may have more of its journal than the ledger has.
    """

    task: Task
    standbys: tuple[PeerId, ...]
    holders: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True)
class Accept:
    task: TaskId
    term: int
    index: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Renew:
    task: TaskId
    term: int


@dataclass(frozen=True, slots=True)
class PassCancel:
    task: TaskId
    term: int
    reason: str


@dataclass(frozen=True, slots=True)
class SettleTask:
    task: TaskId
    term: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """End the conversation of an earlier term without more words."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class Show:
    """The task has changed for those who watch; `entry` if one became visible."""

    task: Task
    entry: Entry | None = None


Effect = (
    Save
    | SaveWithPast
    | Append
    | GrantTerm
    | Accept
    | Renew
    | PassCancel
    | SettleTask
    | Revoke
    | Show
)
