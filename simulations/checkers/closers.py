"""At whose word sessions end: a cell that runs is its asker's, and nobody else's to stop."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import inf

from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Refused
from kowalski.protocol.messages.repl import CellAsked, CellDone, SessionClosed
from simulations.checkers.submitters import Submitters
from simulations.witness import NoChecker, Said, Witness

TOGETHER_S = 0.25
"""Between the end of a session and that of the cell in it, by the clock of their worker."""

Where = tuple[int, int, TaskId]
"""A task at a worker: whose node, the submitter's, the name."""


@dataclass(frozen=True, slots=True)
class _Word:
    """Somebody's, in a term: a cell asked for, or sessions closed."""

    who: int
    term: int
    at_s: float
    since_s: float = 0.0
    """When a cell was asked for: what was closed before that had not begun."""

    def stops(self, cell: _Word) -> bool:
        """Whether it closes the session of a cell that is not its own to stop."""
        is_together = abs(self.at_s - cell.at_s) <= TOGETHER_S and self.at_s >= cell.since_s
        return is_together and self.who != cell.who and self.term <= cell.term


class Closers(NoChecker):
    """`closed_by_its_leader`: no cell is lost as somebody closes its session who has not asked.

    Unless that one names a higher term: then it leads the task now. Looked at as cells end.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._submitters = Submitters(witness)
        self._asked: dict[Hashable, tuple[Where, _Word]] = {}
        self._closed: dict[Where, _Word] = {}
        self._lost: dict[Where, _Word] = {}
        """The last of each."""

    def heard(self, said: Said) -> None:
        asked = said.message
        if isinstance(asked, CellAsked) and said.by_asker:
            where = said.hearer, self._submitters.of(said), asked.task
            self._asked[said.request] = where, _Word(said.speaker, asked.term, inf, said.own_s)

    def said(self, said: Said) -> None:
        message = said.message
        if said.by_asker:
            return
        if isinstance(message, SessionClosed):
            where = said.speaker, self._submitters.of(said), message.task
            self._closed[where] = _Word(said.hearer, message.term, said.own_s)
            self._look(where)
        elif isinstance(message, Refused | CellDone) and said.request in self._asked:
            where, cell = self._asked.pop(said.request)
            if isinstance(message, Refused) and message.reason == "session_lost":
                self._lost[where] = replace(cell, at_s=said.own_s)
            self._look(where)

    def _look(self, where: Where) -> None:
        closed, lost = self._closed.get(where), self._lost.get(where)
        is_stopped = closed is not None and lost is not None and closed.stops(lost)
        self.witness.check(
            "closed_by_its_leader",
            holds=not is_stopped,
            words=f"node {where[0]} lost a cell of {where[2]}, {lost}, as somebody else closed "
            f"its session, {closed}",
        )
