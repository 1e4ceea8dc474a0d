"""Model calls of tasks that a peer keeps for whoever leads the task next (/kowalski/inference/1).

    coordinator                               peer with a model
    CallsSought ──►
                                     ◄──      CallsHeld

A call outlives its asker: who asks the same call of the same task again, with the same request,
joins it while it is under way, or is given its answer.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from kowalski.protocol.ids import PeerIdField, TaskIdField
from kowalski.protocol.messages.base import Message, Term

CallName = Annotated[str, StringConstraints(pattern=r"^[0-9a-z-]{1,64}$")]
"""Of a call within its task; the same whoever leads, see `kowalski.rlm.call_names`."""

CallNames = Annotated[tuple[CallName, ...], Field(strict=False, fail_fast=True, max_length=64)]
"""Of the prompts of one request, in their order."""

HELD_MAX = 400


class CallsSought(Message):
    """Which calls of this task do you have, under way or answered? Fenced by `term`.

    `submitter` as in the claims of the calls: names of tasks are their submitters' own choice.
    """

    KIND: ClassVar[str] = "calls/sought"

    task: TaskIdField
    term: Term
    submitter: PeerIdField


class CallsHeld(Message):
    """The latest ones, where they are too many."""

    KIND: ClassVar[str] = "calls/held"
    FRAME_BYTES_MAX: ClassVar[int] = 128 * 1024

    calls: Annotated[
        tuple[CallName, ...], Field(strict=False, fail_fast=True, max_length=HELD_MAX)
    ] = ()
