"""Where a task would go, from whoever would lead it (/kowalski/rehearse/1). Nothing is begun.

who would submit it                       who would lead it
RehearsalAsked ──►
                                 ◄──      DecisionTold, one for each kind of work it would want
                                 ◄──      Rehearsed: how it would be opened, or why it cannot be
"""

from __future__ import annotations

from typing import ClassVar

from kowalski.protocol.ids import TaskIdField
from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Code, Count, Line, Message, ModelName
from kowalski.protocol.messages.task import TaskSpec


class RehearsalAsked(Message):
    """Small inputs are fetched, as whoever leads a task fetches them; offers hold no place."""

    KIND: ClassVar[str] = "rehearsing/asked"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    task: TaskIdField
    spec: TaskSpec


class Rehearsed(Message):
    """`mode` and `model` it would be opened with, `why`; `obstacle` is the code of what is missing.

    `decisions`: how many were told before.
    """

    KIND: ClassVar[str] = "rehearsing/done"

    task: TaskIdField
    mode: Code | None = None
    model: ModelName | None = None
    why: Line = ""
    obstacle: Code | None = None
    detail: Line = ""
    decisions: Count = 0
