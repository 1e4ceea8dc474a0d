"""A detached task, kept by a group of three peers in place of its submitter (/kowalski/detached/1).

    whoever has the delegation                member
    Delegated ──►
                                     ◄──      DelegationKept: on disk, and all inputs with it

    member                                    member
    VoteAsked ──►                    ◄──      VoteGiven
    LogOffered{entries} ──►          ◄──      LogHeld
    CancelAsked, ResumeAsked ──►     ◄──      DelegationKept: the leader has heard it

The submitter signs once who the three are, and has no say from then on: a term wants the votes of
two, and an entry counts once two hold it. Raft, with a membership that never changes; what differs
is told in `kowalski.node.core.detached_member`. A member that does not know the task refuses
`unknown`, and is sent the delegation.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kowalski.protocol.ids import PeerIdField, TaskIdField
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Count, Message, Record, Term
from kowalski.protocol.messages.task import Digest, Entries, Index, Peers, TaskSpec

GROUP_SIZE = 3


class Resumed(Record):
    """A task that the same three kept, and that did not end well."""

    task: TaskIdField
    submitter: PeerIdField


class Delegation(Message):
    """What a submitter signs: from now on these three keep the task, and it does not.

    They are `GROUP_SIZE` different peers; any other number is nobody's to keep. It goes on from
    where `resumes` ended, whose events are the first of its own: who leads it first writes them.
    """

    KIND: ClassVar[str] = "detached/delegation"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX - 4096

    task: TaskIdField
    submitter: PeerIdField
    group: Peers
    submitted_unix_s: Count
    spec: TaskSpec
    resumes: Resumed | None = None


class Delegated(Message):
    """`frame` is that of a Delegation, and what its submitter has signed."""

    KIND: ClassVar[str] = "detached/delegated"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    frame: Annotated[bytes, Field(max_length=FRAME_BYTES_MAX - 4096)]
    signature: Annotated[bytes, Field(min_length=64, max_length=64)]


class DelegationKept(Message):
    KIND: ClassVar[str] = "detached/kept"

    task: TaskIdField
    submitter: PeerIdField


class VoteAsked(Message):
    """Vote for me in this term? `confirmed` and `entries` say how much of the journal I hold.

    `is_trial`: would you? Nothing changes by the answer.
    """

    KIND: ClassVar[str] = "detached/vote-asked"

    task: TaskIdField
    submitter: PeerIdField
    term: Term
    confirmed: Count
    entries: Index
    is_trial: bool = False


class VoteGiven(Message):
    """`term` is the member's own, 0 before the first."""

    KIND: ClassVar[str] = "detached/vote-given"

    task: TaskIdField
    term: Count
    is_granted: bool


class LogOffered(Message):
    """Entries from `start` on, the first of which stands on `parent`; none: I lead still.

    The leader began its term with `base` entries; the first `committed` are held by two.
    `retries`: so often a coordinator was lost and another one begun, in all terms. `is_leaving`: it
    leads no more, though nothing was lost.
    """

    KIND: ClassVar[str] = "detached/log-offered"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    submitter: PeerIdField
    term: Term
    base: Index
    start: Index
    parent: Digest
    entries: Entries = ()
    committed: Index
    retries: Count = 0
    is_leaving: bool = False


class LogHeld(Message):
    """So many entries of the leader's are on disk, with what they refer to; offer what follows."""

    KIND: ClassVar[str] = "detached/log-held"

    task: TaskIdField
    term: Count
    held: Index
    committed: Index
