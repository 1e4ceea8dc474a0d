"""Who belongs to the mesh and how it is with them, as far as anybody has told: SWIM's table.

A claim about a peer stands above another if its incarnation is higher, or at the same incarnation
if it is worse news. That is a total order and the table keeps the maximum, so that claims may come
late, twice, in any order or as replays, and all tables end alike. Only a peer itself raises its
incarnation: nobody is resurrected by what was said before it failed.

Source: A. Das, I. Gupta, A. Motivala, "SWIM", DSN 2002, section 4.2. Who is asked, and when
suspicion becomes a verdict, is `failure_detector`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple

from kowalski.protocol.ids import PeerId

State = Literal["alive", "suspect", "failed", "left"]

RANK: dict[State, int] = {"alive": 0, "suspect": 1, "failed": 2, "left": 3}
"""At one incarnation the higher one stands: a peer that says goodbye is believed last."""

INCARNATION_LEAP_MAX = 1_000_000
"""By how much a claim may exceed what we know. A lie near the top of the numbers could never be
refuted; a restart, or a disk restored from a backup, leaps by far less."""

LINES_KEPT = 4096
"""As many as a table has rows. The same are joined again and again."""


class Claim(NamedTuple):
    """What somebody says of `peer`. `accuser`: whose suspicion it is, where it is one."""

    peer: PeerId
    state: State
    incarnation: int
    accuser: PeerId | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """`since`: when the driver's clock showed this change."""

    state: State
    incarnation: int
    since: float

    @property
    def is_living(self) -> bool:
        """Alive, or at least not given up."""
        return self.state in {"alive", "suspect"}


@dataclass(frozen=True, slots=True)
class Membership:
    """One node's table; `members` are the others. Those that failed or left stay as tombstones."""

    me: PeerId
    incarnation: int = 0
    has_left: bool = False
    members: dict[PeerId, Member] = field(default_factory=dict)
    living: int = 0
    """How many of them are alive or suspect."""
    digest: int = 0
    """Equal exactly where tables are, but for collisions of 64 bits; our own line is part of it."""

    def own_claim(self) -> Claim:
        return Claim(self.me, "left" if self.has_left else "alive", self.incarnation)

    def state_of(self, peer: PeerId) -> State | None:
        """None for those that we have never heard of."""
        if peer == self.me:
            return "left" if self.has_left else "alive"
        known = self.members.get(peer)
        return known.state if known else None

    def is_living(self, peer: PeerId) -> bool:
        known = self.members.get(peer)
        return known is not None and known.is_living


def new(me: PeerId, incarnation: int) -> Membership:
    """A table with nobody else in it. `incarnation` has been raised since we last ran."""
    return Membership(me, incarnation, digest=_line("alive", incarnation, me))


def learn(
    table: Membership, claims: Iterable[Claim], now: float, *, members_max: int
) -> tuple[Membership, tuple[Claim, ...]]:
    """Take in what is news of others, and say what was, one claim a peer.

    The very same table where nothing is. Costs one copy of it, however many claims there are.
    """
    members, living, digest = table.members, table.living, table.digest
    news: dict[PeerId, Claim] = {}
    for claim in claims:
        before = members.get(claim.peer)
        if claim.peer == table.me or not _is_news(before, claim):
            continue
        if before is None and len(members) >= members_max and living == len(members):
            continue
        if not news:
            members = members.copy()
        if before is not None:
            digest ^= _line(before.state, before.incarnation, claim.peer)
            living -= before.is_living
        elif len(members) >= members_max:
            gone = _oldest_tombstone(members)
            digest ^= _line(members[gone].state, members[gone].incarnation, gone)
            del members[gone]
        members[claim.peer] = after = Member(claim.state, claim.incarnation, now)
        living += after.is_living
        digest ^= _line(after.state, after.incarnation, claim.peer)
        news[claim.peer] = claim
    if not news:
        return table, ()
    return replace(table, members=members, living=living, digest=digest), tuple(news.values())


def _is_news(known: Member | None, claim: Claim) -> bool:
    """Whether the claim stands above what we know of a peer.

    Of peers that we have never heard of, we do not want to know that they are gone: tombstones
    that were forgotten would be handed round for ever.
    """
    if known is None:
        return claim.state in {"alive", "suspect"}
    is_above = (claim.incarnation, RANK[claim.state]) > (known.incarnation, RANK[known.state])
    return is_above and claim.incarnation - known.incarnation <= INCARNATION_LEAP_MAX


def refute(table: Membership, claim: Claim) -> Membership:
    """Answer a claim about ourselves: the same table where it is no worse than what we say.

    Whoever has left does not argue.
    """
    ours = table.own_claim()
    is_worse = (claim.incarnation, RANK[claim.state]) > (ours.incarnation, RANK[ours.state])
    is_reasonable = claim.incarnation - table.incarnation <= INCARNATION_LEAP_MAX
    if table.has_left or not is_worse or not is_reasonable:
        return table
    return _say(table, claim.incarnation + 1, has_left=False)


def leave(table: Membership) -> Membership:
    return _say(table, table.incarnation, has_left=True)


def _say(table: Membership, incarnation: int, *, has_left: bool) -> Membership:
    after = replace(table, incarnation=incarnation, has_left=has_left)
    before, ours = table.own_claim(), after.own_claim()
    digest = (
        table.digest
        ^ _line(before.state, before.incarnation, table.me)
        ^ _line(ours.state, ours.incarnation, table.me)
    )
    return replace(after, digest=digest)


def expel(table: Membership, peer: PeerId) -> Membership:
    """Forget a peer that is no member any more. Claims about it must not come in afterwards."""
    if peer not in table.members:
        return table
    return _without(table, {peer})


def bury(table: Membership, now: float, *, after_s: float) -> Membership:
    """Forget those that failed or left so long ago."""
    if table.living == len(table.members):
        return table
    old = {
        peer
        for peer, member in table.members.items()
        if not member.is_living and now - member.since >= after_s
    }
    return _without(table, old) if old else table


def _without(table: Membership, gone: set[PeerId]) -> Membership:
    digest, living = table.digest, table.living
    for peer in gone:
        member = table.members[peer]
        digest ^= _line(member.state, member.incarnation, peer)
        living -= member.is_living
    kept = {peer: member for peer, member in table.members.items() if peer not in gone}
    return replace(table, members=kept, living=living, digest=digest)


def rows(table: Membership) -> Iterator[Claim]:
    """All we know, ourselves first."""
    yield table.own_claim()
    for peer, member in table.members.items():
        yield Claim(peer, member.state, member.incarnation)


def better_rows(table: Membership, theirs: Iterable[Claim]) -> tuple[Claim, ...]:
    """What we know and `theirs`, a whole table, does not say, or says less of."""
    told = {claim.peer: (claim.incarnation, RANK[claim.state]) for claim in theirs}
    return tuple(
        claim
        for claim in rows(table)
        if told.get(claim.peer, (-1, 0)) < (claim.incarnation, RANK[claim.state])
    )


def _oldest_tombstone(members: dict[PeerId, Member]) -> PeerId:
    gone = (peer for peer, member in members.items() if not member.is_living)
    return min(gone, key=lambda peer: members[peer].since)


@lru_cache(maxsize=LINES_KEPT)
def _line(state: State, incarnation: int, peer: PeerId) -> int:
    """One row of the digest; rows are joined by exclusive or, in any order."""
    row = f"{incarnation} {state} {peer}".encode()
    return int.from_bytes(blake2b(row, digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class Held:
    """The rows of a table as they were when they held, and what follows from them alone."""

    rows: dict[PeerId, Member]
    digest: int
    living: frozenset[PeerId]
    suspects: frozenset[PeerId]


def check(table: Membership) -> None:
    """What must hold after every step."""
    check_news(table, None)


def check_news(table: Membership, held: Held | None) -> Held:
    """`check`, given rows that have held before: nothing is computed again from the same ones.

    Returns those that hold now, for the next time. They are a copy: a table that was altered in
    place would be found as any other.
    """
    assert table.me not in table.members
    if held is None or held.rows != table.members:
        held = _summed(table.members)
    assert table.living == len(held.living)
    ours = table.own_claim()
    assert table.digest == held.digest ^ _line(ours.state, ours.incarnation, table.me)
    return held


def _summed(members: dict[PeerId, Member]) -> Held:
    digest = 0
    for peer, member in members.items():
        digest ^= _line(member.state, member.incarnation, peer)
    living = frozenset(peer for peer, member in members.items() if member.is_living)
    suspects = frozenset(peer for peer, member in members.items() if member.state == "suspect")
    return Held(members.copy(), digest, living, suspects)
