"""Whom a node asks that keeps failing: hardly anybody, for a while."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from kowalski.protocol.messages.base import Failed, Refused
from kowalski.protocol.messages.inference import CompletionAsked, CompletionDone
from simulations.menu import Fault
from simulations.places import Part
from simulations.witness import NoChecker, Said, Witness

FAILURES_IN_A_ROW = 3
OPEN_S_MIN = 1.5
SUCCESSES = 5
"""After which a breaker is closed for certain; two are promised, and some may be of before."""
SENT_MAX = 2
"""In that time: one that finds out, and one more where that was taken back."""
ITS_OWN = frozenset({"backend", "internal", "sandbox"})
"""Codes of failures that say something of the peer. Promised, and not what the code says."""

WATCHED = frozenset({"model-errs"})
"""What may go wrong in stories that are watched: nobody is lost and found again, which is a clean
record, and who answers is there."""


@dataclass(slots=True)
class _Record:
    """What one node has seen of another's answers."""

    succeeded_s: float = -1.0
    """When the last one was heard that was no failure."""
    has_failed: bool = False
    failures: int = 0
    """In a row, of calls that were sent after that."""
    successes: int = 0
    """In a row."""
    sent_s: list[float] = field(default_factory=list)
    """New calls to a peer that had failed so often, where somebody else was to be asked."""

    @property
    def is_sound(self) -> bool:
        return not self.has_failed or self.successes >= SUCCESSES

    @property
    def is_broken(self) -> bool:
        return self.failures >= FAILURES_IN_A_ROW


class Breakers(NoChecker):
    """`breaker_opens`: who failed three times in a row is left alone for a second and a half.

    One call may find out how it is. It is not promised of calls that failed elsewhere before, which
    have few left to go to, and where half of those that could are no better.
    """

    def __init__(self, witness: Witness, able: Iterable[int]) -> None:
        """`able`: the nodes that have models."""
        super().__init__(witness)
        self._able = frozenset(able)
        self._records: dict[tuple[int, int], _Record] = {}
        self._calls: dict[Hashable, float] = {}
        """Under way: when each was sent."""
        self._asked: set[Hashable] = set()

    def _record(self, asker: int, asked: int) -> _Record:
        return self._records.setdefault((asker, asked), _Record())

    def said(self, said: Said) -> None:
        message, asker = said.message, said.speaker
        if not (isinstance(message, CompletionAsked) and said.by_asker and said.is_first):
            return
        if asker < 0 or said.hearer < 0 or asker == said.hearer:
            return
        self._calls[said.request] = said.own_s
        call = (asker, message.task, message.term, message.messages, message.prompt)
        is_new = call not in self._asked
        self._asked.add(call)
        record = self._record(asker, said.hearer)
        if not (is_new and record.is_broken and self._are_heeded(asker)):
            return
        record.sent_s = [at for at in record.sent_s if at > said.own_s - OPEN_S_MIN] + [said.own_s]
        self.witness.check(
            "breaker_opens",
            holds=len(record.sent_s) <= SENT_MAX,
            words=f"node {asker} sent {len(record.sent_s)} new calls within {OPEN_S_MIN:g} s to "
            f"node {said.hearer}, which had failed {record.failures} times in a row",
        )

    def _are_heeded(self, asker: int) -> bool:
        """Whether more than half of those that it could ask have no breaker that is open."""
        others = self._able - {asker}
        sound = sum(self._record(asker, other).is_sound for other in others)
        return sound > len(others) - sound

    def heard(self, said: Said) -> None:
        message = said.message
        if said.by_asker or not isinstance(message, CompletionDone | Refused | Failed):
            return
        sent_s = self._calls.pop(said.request, None)
        if sent_s is None:
            return
        record = self._record(said.hearer, said.speaker)
        if isinstance(message, Failed) and message.code in ITS_OWN:
            record.has_failed = True
            record.successes = 0
            record.failures += sent_s >= record.succeeded_s
            return
        record.succeeded_s = said.own_s
        record.failures = 0
        record.successes += isinstance(message, CompletionDone)
        record.sent_s.clear()


def breakers(
    witness: Witness, faults: Iterable[Fault], parts: Sequence[Part]
) -> tuple[Breakers, ...]:
    """One to engage, where the story is one that is watched."""
    if not all(fault.kind in WATCHED for fault in faults):
        return ()
    return (Breakers(witness, [number for number, part in enumerate(parts) if part.models]),)
