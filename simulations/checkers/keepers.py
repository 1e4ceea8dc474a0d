"""Who keeps a detached task: votes, leaders and what counts, from what is said and is on disk.

Raft's promises (Ongaro and Ousterhout, 2014, figure 3), with a group of three that never changes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf

from kowalski.node.core.detached_state import Member
from kowalski.node.core.fences import TaskKey
from kowalski.protocol import codec
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import detached as wire
from kowalski.protocol.messages.task import Accepted, Digest, Grant
from simulations.witness import NoChecker, Said, Witness

MAJORITY = 2


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """What one keeper would know after a power cut."""

    term: int = 0
    voted_for: PeerId | None = None
    marks: tuple[Digest, ...] = ()


@dataclass(slots=True)
class Group:
    """The keepers of one task, by their numbers, and what was seen of them."""

    members: tuple[int, ...]
    ended_s: float = inf
    """When its end first counted anywhere."""
    disks: dict[int, _OnDisk] = field(default_factory=dict)
    votes: dict[tuple[int, int], int] = field(default_factory=dict)
    """By keeper and term: for whom."""
    saved_votes: dict[tuple[int, int], PeerId] = field(default_factory=dict)
    """The same on its disk, at any time: what it says of one may leave it a term later."""
    leaders: dict[int, int] = field(default_factory=dict)
    counts: tuple[Digest, ...] = ()
    """What has counted anywhere, at any time."""
    unaware: set[int] = field(default_factory=set)
    """On whose disk it was not when it ended: who led it then tells them, as long as it lives."""
    is_orphaned: bool = False
    """Whether that one has died since."""

    @property
    def excused(self) -> set[int]:
        """Keepers that need not have heard of it: there was nobody to tell them."""
        return self.unaware if self.is_orphaned else set()

    def voters_for(self, leader: int, term: int) -> int:
        return sum(whom == leader and at_term == term for (_, at_term), whom in self.votes.items())

    def holders_of(self, marks: tuple[Digest, ...]) -> int:
        return sum(one.marks[: len(marks)] == marks for one in self.disks.values())


class Keepers(NoChecker):
    """Of votes: `vote_is_given_once`, `vote_is_saved_first`; of who leads: `leader_has_two_votes`.

    `one_leader_per_term`; of entries: `held_is_on_disk`, `two_hold_what_counts`,
    `what_counts_stays`.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self.groups: dict[TaskKey, Group] = {}
        self._asked: dict[Hashable, tuple[TaskKey, wire.VoteAsked | wire.LogOffered]] = {}
        self._led: dict[Hashable, TaskKey] = {}
        """By the stream on which its leader has it led."""

    # --- disks and processes --------------------------------------------------------------------

    def ended(self, number: int) -> None:
        for group in self.groups.values():
            if group.ended_s < inf and group.leaders.get(max(group.leaders, default=0)) == number:
                group.is_orphaned = True

    def stored(self, number: int, method: str, arguments: tuple[object, ...]) -> None:
        match method, arguments:
            case "detached.take", (tuple() as key, wire.Delegated() as delegated, *_):
                delegation = codec.decode(delegated.frame)
                assert isinstance(delegation, wire.Delegation)
                members = tuple(map(self.witness.number_of, delegation.group))
                group = self.groups.setdefault(_key(key), Group(members))
                if number in members:
                    group.disks.setdefault(number, _OnDisk())
            case "detached.save", (tuple() as key, Member() as member, *written):
                self._saved(number, self.groups[_key(key)], member, has_entries=bool(written))
            case "detached.end", (tuple() as key, *_):
                group = self.groups[_key(key)]
                if group.ended_s == inf:
                    group.ended_s = self.witness.now
                    group.unaware = set(group.members) - group.disks.keys()
            case _:
                pass

    def _saved(self, number: int, group: Group, member: Member, *, has_entries: bool) -> None:
        before = group.disks.get(number, _OnDisk())
        self.witness.check(
            "term_monotone",
            holds=member.term >= before.term,
            words=f"node {number} writes term {member.term} after {before.term}",
        )
        marks = member.marks if has_entries else before.marks
        if member.voted_for is not None:
            group.saved_votes[number, member.term] = member.voted_for
        group.disks[number] = _OnDisk(member.term, member.voted_for, marks)

    # --- what is said ---------------------------------------------------------------------------

    def said(self, said: Said) -> None:
        match said.message:
            case wire.VoteAsked() as asked if said.by_asker:
                if (group := self._asks(said, asked)) and not asked.is_trial:
                    self._votes(group, said.speaker, asked.term, said.speaker)
            case wire.LogOffered() as offered if said.by_asker:
                if group := self._asks(said, offered):
                    self._leads(group, said.speaker, offered.term)
                    marks = group.disks[said.speaker].marks[: offered.committed]
                    self._count(group, said.speaker, marks, offered.committed)
            case wire.VoteGiven(is_granted=True) if said.request in self._asked:
                key, voted = self._asked.pop(said.request)
                if isinstance(voted, wire.VoteAsked) and not voted.is_trial:
                    self._votes(self.groups[key], said.speaker, voted.term, said.hearer)
            case wire.LogHeld(held=held) if said.request in self._asked:
                key, _ = self._asked.pop(said.request)
                on_disk = len(self.groups[key].disks.get(said.speaker, _OnDisk()).marks)
                self.witness.check(
                    "held_is_on_disk",
                    holds=held <= on_disk,
                    words=f"node {said.speaker} says it holds {held} entries of {key[1]}, "
                    f"{on_disk} are on its disk",
                )
            case _:
                self._led_by_itself(said)

    def _asks(self, said: Said, asked: wire.VoteAsked | wire.LogOffered) -> Group | None:
        """The group, where one of its members asks."""
        key = (asked.submitter, asked.task)
        group = self.groups.get(key)
        if group is None or said.speaker not in group.members:
            return None
        self._asked[said.request] = key, asked
        return group

    def _led_by_itself(self, said: Said) -> None:
        """Its leader has it led at home, and says there what counts."""
        message = said.message
        if isinstance(message, Grant) and message.submitter is not None:
            key = (message.submitter, message.task)
            if group := self.groups.get(key):
                self._led[said.request] = key
                self._leads(group, said.speaker, message.term)
        elif isinstance(message, Accepted) and (led := self._led.get(said.request)):
            group = self.groups[led]
            marks = group.disks[said.speaker].marks[: message.index + 1]
            self._count(group, said.speaker, marks, message.index + 1)

    # --- promises -------------------------------------------------------------------------------

    def _votes(self, group: Group, voter: int, term: int, candidate: int) -> None:
        known = group.votes.setdefault((voter, term), candidate)
        self.witness.check(
            "vote_is_given_once",
            holds=known == candidate,
            words=f"node {voter} votes for node {candidate} in term {term}, after node {known}",
        )
        saved = group.saved_votes.get((voter, term))
        whom = None if saved is None else self.witness.number_of(saved)
        self.witness.check(
            "vote_is_saved_first",
            holds=whom == candidate,
            words=f"node {voter} votes for node {candidate} in term {term}; on its disk was a vote "
            f"for node {whom} in that term",
        )

    def _leads(self, group: Group, leader: int, term: int) -> None:
        known = group.leaders.setdefault(term, leader)
        self.witness.check(
            "one_leader_per_term",
            holds=known == leader,
            words=f"node {leader} leads in term {term}, as node {known} does",
        )
        votes = group.voters_for(leader, term)
        self.witness.check(
            "leader_has_two_votes",
            holds=votes >= MAJORITY,
            words=f"node {leader} leads in term {term} with {votes} votes",
        )

    def _count(self, group: Group, leader: int, marks: tuple[Digest, ...], count: int) -> None:
        holders = group.holders_of(marks)
        self.witness.check(
            "two_hold_what_counts",
            holds=len(marks) == count and holders >= MAJORITY,
            words=f"node {leader} says that {count} entries count: it has {len(marks)} of them on "
            f"disk, and {holders} of its group have the same",
        )
        self.counts(group, leader, marks)

    def counts(self, group: Group, number: int, marks: tuple[Digest, ...]) -> None:
        """A node holds these for what counts, the first to the last."""
        shorter = min(len(marks), len(group.counts))
        self.witness.check(
            "what_counts_stays",
            holds=marks[:shorter] == group.counts[:shorter],
            words=f"node {number} has other entries among the first {shorter} than once counted",
        )
        group.counts = max(group.counts, marks, key=len)


def _key(key: tuple[object, ...]) -> TaskKey:
    submitter, task = key
    return PeerId(str(submitter)), TaskId(str(task))
