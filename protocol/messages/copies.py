"""Copies of a task's journal, kept by its coordinator and its standbys (/kowalski/copies/1).

    coordinator                               standby
    CopyOffered{start, parent, entries} ──►
                                     ◄──      CopyHeld{entries}: go on from there
    CopyDropped (the task is settled) ──►
                                     ◄──      CopyDropped

    coordinator of a later term               holder
    CopyAsked{start, parent} ──►
                                     ◄──      CopyFound{entries}: what followed, as far as known

A copy is no truth: what the submitter has accepted is. It saves the work behind entries that it has
not accepted yet, and all of it while the submitter is away. Every message carries its term; a
holder that knows a higher one refuses `stale`.
"""

from __future__ import annotations

from typing import ClassVar

from kowalski.protocol.ids import PeerIdField, TaskIdField
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Message, Term
from kowalski.protocol.messages.repl import Inputs
from kowalski.protocol.messages.task import Digest, Entries, Index


class CopyOffered(Message):
    """Entries from `start` on, the first of which stands on `parent`; none: are you still there?

    `inputs` are the task's, when `start` is 0: a holder fetches them, and whatever the entries
    refer to, in its own time.
    """

    KIND: ClassVar[str] = "copies/offered"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    term: Term
    submitter: PeerIdField
    start: Index
    parent: Digest
    entries: Entries = ()
    inputs: Inputs = ()


class CopyHeld(Message):
    """How many entries are held, whole and in order; what is offered next starts there.

    `has_contents`: and all that they and the task refer to.
    """

    KIND: ClassVar[str] = "copies/held"

    task: TaskIdField
    entries: Index
    digest: Digest
    has_contents: bool = False


class CopyAsked(Message):
    """What do you hold that follows the `start` entries that end in `parent`?"""

    KIND: ClassVar[str] = "copies/asked"

    task: TaskIdField
    term: Term
    submitter: PeerIdField
    start: Index
    parent: Digest


class CopyFound(Message):
    """As many as fit a frame; ask again behind the last. None: that was all."""

    KIND: ClassVar[str] = "copies/found"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    entries: Entries = ()


class CopyDropped(Message):
    """The task is settled, nobody needs the copy; answered with itself."""

    KIND: ClassVar[str] = "copies/dropped"

    task: TaskIdField
    term: Term
    submitter: PeerIdField
