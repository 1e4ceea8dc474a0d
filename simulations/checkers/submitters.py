"""Whose task a message is about: names are their submitters' own choice, and two may choose one."""

from __future__ import annotations

from collections.abc import Hashable

from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.inference import CompletionAsked
from kowalski.protocol.messages.repl import CellAsked, SessionClosed
from kowalski.protocol.messages.task import Grant
from simulations.witness import Said, Witness


class Submitters:
    """Remembers who has granted on which stream: renewals and entries do not say it again."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._granted: dict[Hashable, int] = {}

    def of(self, said: Said) -> int:
        """The number of the submitter's node; -1 for one that is none."""
        match said.message:
            case Grant(submitter=submitter):
                whose = self._granted[said.request] = self._number(submitter, said)
                return whose
            case CellAsked(claim=claim) | CompletionAsked(claim=claim):
                return self._number(claim.submitter, said)
            case SessionClosed(submitter=submitter):
                return self._number(submitter, said)
            case _:
                return self._granted.get(said.request, said.speaker)

    def _number(self, submitter: PeerId | None, said: Said) -> int:
        return said.speaker if submitter is None else self._witness.number_of(submitter)
