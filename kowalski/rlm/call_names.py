"""Names of a task's model calls: the same for whoever leads the task, in whatever term.

A name says where in the task a call stands, as its journal numbers that. Sub-calls of a cell that
runs again may come in another order, so they are named by what they ask and the how manieth time.
"""

from __future__ import annotations

from kowalski.protocol.ids import ContentHash
from kowalski.protocol.messages.calls import CallName

FOLD: CallName = "fold"
"""All that are made to fold one window: what they ask tells them apart."""


def of_turn(call: int) -> CallName:
    """Of a call of the session itself; `call` is its number in the journal."""
    return f"turn-{call}"


def of_sub_call(cell: int, question: ContentHash, nth: int) -> CallName:
    """Of the `nth` time, from 0, that one run of a cell asks this question."""
    return f"cell-{cell}-{question[:32]}-{nth}"
