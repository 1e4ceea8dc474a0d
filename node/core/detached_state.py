"""What a member of a detached task's group knows, hears and wants done.

How it moves on is in `detached_member`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from kowalski.node.core.invariants import must
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.detached import GROUP_SIZE
from kowalski.protocol.messages.task import Digest, Entry, Failover, RetryPolicy
from kowalski.rlm.journal import GENESIS

Role = Literal["follower", "trial", "candidate", "leader"]
"""A trial asks whether a vote would be won; a candidate asks for votes."""


RETRIES_COUNTED_MAX = 1_000_000
"""Of a task that may be begun again for ever."""


@dataclass(frozen=True, slots=True)
class Params:
    """Seconds."""

    lease_s: float = 3.0
    """Of the leader's coordinator; shorter than the silence after which others may be elected."""
    losses_max: int = 4
    """Of coordinators in a row that wrote nothing: then another member shall lead."""
    pulse_s: float = 1.0
    """Between two offers without news."""
    over_pulse_s: float = 30.0
    """The same after the end, as long as a member has not heard of it."""
    silence_s: float = 4.0
    """Without a word of the leader's, or for a leader of anybody's."""
    stagger_s: float = 0.3
    """Between the members, so that they do not stand against each other."""
    vote_s: float = 1.5
    """How long a vote takes at most."""
    again_s: float = 0.5
    """Until a coordinator that was lost is begun anew."""


@dataclass(frozen=True, slots=True)
class Durable:
    """What must be on disk before anybody hears what came of it; the entries are beside it."""

    term: int
    voted_for: PeerId | None
    confirmed: int
    retries: int


@dataclass(frozen=True, slots=True)
class Member:
    """Times are the driver's clock, and are not saved."""

    me: PeerId
    group: tuple[PeerId, ...]
    params: Params = field(default_factory=Params)
    failover: Failover = "redistribute"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    # On disk.
    term: int = 0
    """The highest that it has heard or stood for."""
    voted_for: PeerId | None = None
    """In this term."""
    confirmed: int = 0
    """The latest term whose leader has made sure of the whole log, as it was when it began."""
    retries: int = 0
    """How often a coordinator was lost, with its leader or without, and another one begun."""
    marks: tuple[Digest, ...] = ()
    """The digests of all entries that are held."""
    ends_at: int | None = None
    """How many entries there are with the one that closes the task, if it is held."""
    # In memory.
    committed: int = 0
    """So many entries count, as far as we know: two members hold them."""
    role: Role = "follower"
    leader: PeerId | None = None
    heard_at: float = -inf
    """The leader's last word."""
    reachable: frozenset[PeerId] = frozenset()
    votes: frozenset[PeerId] = frozenset()
    base: int = 0
    """How many entries a leader began with."""
    held: Mapping[PeerId, int] = field(default_factory=dict)
    told: Mapping[PeerId, int] = field(default_factory=dict)
    """What each knows to be committed."""
    answered_at: Mapping[PeerId, float] = field(default_factory=dict)
    in_flight: frozenset[PeerId] = frozenset()
    """To whom an offer is under way."""
    act_at: float = inf
    lead_at: float = inf
    """When this leader has the task led, or closes it."""
    closing: Close | None = None
    """How this leader ends the task itself, since nobody leads it any more."""
    handed_over: int = 0
    """The latest term whose leader has left of its own accord: no coordinator was lost by it."""
    handed_over_at: float = -inf
    losses: int = 0
    """Coordinators that this leader lost one after the other, none of which wrote anything."""
    lost_at: int = 0
    """How many entries there were at the last of these losses."""

    @property
    def others(self) -> frozenset[PeerId]:
        return frozenset(self.group) - {self.me}

    @property
    def majority(self) -> int:
        return len(self.group) // 2 + 1

    @property
    def entries(self) -> int:
        return len(self.marks)

    @property
    def retries_max(self) -> int:
        return RETRIES_COUNTED_MAX if self.failover == "queue" else self.retry.retries_max

    @property
    def durable(self) -> Durable:
        return Durable(self.term, self.voted_for, self.confirmed, self.retries)

    @property
    def is_over(self) -> bool:
        """The end is committed."""
        return self.ends_at is not None and self.committed >= self.ends_at

    @property
    def rank(self) -> int:
        """Whose turn it is to stand; it goes round with the terms."""
        return (self.group.index(self.me) + self.term) % len(self.group)

    @property
    def timeout_s(self) -> float:
        return self.params.silence_s + self.rank * 2 * self.params.stagger_s

    def mark_before(self, index: int) -> Digest | None:
        """The digest on which entry `index` stands; None where we do not hold so much."""
        if index == 0:
            return GENESIS
        return self.marks[index - 1] if index <= len(self.marks) else None


def wake_at(state: Member) -> float:
    return min(state.act_at, state.lead_at)


def check(state: Member) -> None:
    """What holds of a member at any moment."""
    must(state.committed <= state.entries, "no_lost_ack", f"{state.committed}, {state.entries}")
    must(state.confirmed <= state.term, "term_monotone", f"{state.confirmed} over {state.term}")
    must(len(state.group) == GROUP_SIZE, "single_authority", f"{len(state.group)} members")
    must(state.ends_at in {None, state.entries}, "visible_once", "entries after the end")
    must(state.retries <= state.retries_max, "attempt_budget", f"{state.retries} retries")
    if state.role == "leader":
        must(state.voted_for == state.me, "detached_majority", "leads without its own vote")


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


@dataclass(frozen=True, slots=True)
class Reachable:
    peers: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class VoteWanted:
    peer: PeerId
    term: int
    confirmed: int
    entries: int
    is_trial: bool


@dataclass(frozen=True, slots=True)
class VoteHeard:
    """`term` is the other's; `asked_term` the one that was asked for."""

    peer: PeerId
    term: int
    asked_term: int
    is_granted: bool
    is_trial: bool


@dataclass(frozen=True, slots=True)
class LogOffered:
    """Entries from `start` on, which stand on `parent`, with their digests.

    The leader began its term with `base`; `ends`: the last of these closes the task.
    """

    peer: PeerId
    term: int
    base: int
    start: int
    parent: Digest
    entries: tuple[Entry, ...]
    marks: tuple[Digest, ...]
    committed: int
    ends: bool = False
    retries: int = 0
    is_leaving: bool = False
    """It leads no more: another member shall, and no coordinator was lost by it."""


@dataclass(frozen=True, slots=True)
class HeldHeard:
    """So many entries of the leader's log are on the other's disk."""

    peer: PeerId
    term: int
    held: int
    committed: int


@dataclass(frozen=True, slots=True)
class OfferLost:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Written:
    """Our coordinator offers an entry."""

    entry: Entry
    mark: Digest
    ends: bool = False


@dataclass(frozen=True, slots=True)
class CoordinatorLost:
    """`is_declined`: this peer cannot lead the task, or not now."""

    term: int
    is_declined: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class CancelWanted:
    """Its owner wants it to end."""

    reason: str


@dataclass(frozen=True, slots=True)
class ResumeWanted:
    """Its owner does not want to wait for the pause to end."""


@dataclass(frozen=True, slots=True)
class Yielded:
    """This peer is about to leave."""


Event = (
    TimePassed
    | Reachable
    | VoteWanted
    | VoteHeard
    | LogOffered
    | HeldHeard
    | OfferLost
    | Written
    | CoordinatorLost
    | CancelWanted
    | ResumeWanted
    | Yielded
)


# --- effects: in this order, and those for the disk are done before the next begins -------------


@dataclass(frozen=True, slots=True)
class Note:
    """Save what of `member` is to be on disk, and how much is committed."""

    member: Member


@dataclass(frozen=True, slots=True)
class Write:
    """As `Note`, and these entries in place of all from `cut_to` on; or nothing."""

    member: Member
    cut_to: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    term: int
    is_granted: bool


@dataclass(frozen=True, slots=True)
class Held:
    term: int
    held: int
    committed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """To whoever's message this step was about."""

    answer: Granted | Held


@dataclass(frozen=True, slots=True)
class AskVotes:
    """Of both others."""

    term: int
    confirmed: int
    entries: int
    is_trial: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """What `peer` lacks of our log, from `start` on; as it is when it is sent.

    `is_leaving`: it is the last of this term.
    """

    peer: PeerId
    term: int
    start: int
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class Lead:
    """Have the task led here in this term, on what the log holds."""

    term: int


@dataclass(frozen=True, slots=True)
class PassCancel:
    """Our coordinator is to end the task, with what there is of an answer."""

    term: int
    reason: str


@dataclass(frozen=True, slots=True)
class Close:
    """Write the last entry in a coordinator's place, as `Written`; there is none."""

    outcome: Literal["failed", "cancelled"]
    detail: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Somebody else may lead now."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Entry `index` counts: tell the coordinator."""

    term: int
    index: int
    mark: Digest


@dataclass(frozen=True, slots=True)
class Show:
    """Entries from `start` on, up to `end`, have become visible."""

    start: int
    end: int


Effect = (
    Note | Write | Answer | AskVotes | Offer | Lead | PassCancel | Close | Retire | Accept | Show
)
Step = tuple[Member, tuple[Effect, ...]]
