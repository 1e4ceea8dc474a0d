"""What a coordinator has recorded of its task, and what of it the submitter has not accepted yet.

Entries are kept until they are accepted, and offered again in every conversation. When the same
peer is appointed anew, its unaccepted entries become entries of the new term: what happened has
happened, whoever leads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from kowalski.node.core.invariants import must
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.task import Digest, Entry
from kowalski.rlm.journal import GENESIS, digest


class Recorded(NamedTuple):
    entry: Entry
    digest: Digest


@dataclass(frozen=True, slots=True)
class CoordinatorJournal:
    task: TaskId
    term: int
    accepted: int = 0
    accepted_digest: Digest = GENESIS
    unaccepted: tuple[Recorded, ...] = ()

    @property
    def entries(self) -> int:
        return self.accepted + len(self.unaccepted)

    @property
    def last_digest(self) -> Digest:
        return self.unaccepted[-1].digest if self.unaccepted else self.accepted_digest

    def digest_at(self, entries: int) -> Digest | None:
        """What a journal of so many of these entries ends in; None if we do not remember."""
        if entries == self.accepted:
            return self.accepted_digest
        if self.accepted < entries <= self.entries:
            return self.unaccepted[entries - self.accepted - 1].digest
        return None


def record(journal: CoordinatorJournal, body: bytes) -> tuple[CoordinatorJournal, Entry]:
    """One more thing that happened."""
    entry = Entry(term=journal.term, index=journal.entries, parent=journal.last_digest, body=body)
    recorded = Recorded(entry, digest(journal.task, entry))
    return replace(journal, unaccepted=(*journal.unaccepted, recorded)), entry


def accept(journal: CoordinatorJournal, index: int) -> CoordinatorJournal:
    """The submitter has every entry up to `index`."""
    count = index + 1 - journal.accepted
    if count <= 0 or count > len(journal.unaccepted):
        return journal  # again, or of another term's journal
    last = journal.unaccepted[count - 1]
    return replace(
        journal,
        accepted=index + 1,
        accepted_digest=last.digest,
        unaccepted=journal.unaccepted[count:],
    )


def adopt(
    journal: CoordinatorJournal, term: int, prefix_entries: int, last_digest: Digest
) -> CoordinatorJournal | None:
    """The journal under a higher term, on top of what the submitter says it has.

    None: what it has is not the beginning of this journal, so somebody else has led meanwhile.
    """
    must(term > journal.term, "fence_monotone", f"{journal.task}: {term} after {journal.term}")
    if journal.digest_at(prefix_entries) != last_digest:
        return None
    bodies = [one.entry.body for one in journal.unaccepted[prefix_entries - journal.accepted :]]
    anew = CoordinatorJournal(journal.task, term, prefix_entries, last_digest)
    for body in bodies:
        anew, _ = record(anew, body)
    return anew
