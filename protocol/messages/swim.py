"""How members notice that others are gone, and tell each other (/kowalski/swim/1).

    Probe ──►   ◄── ProbeAnswered            are you there?
    HelpAsked ──►   ◄── HelpAnswered         do you reach a third one, whom I do not?
    ClaimsTold ──►   ◄── ClaimsHeard         have you heard?
    SyncAsked ──►   ◄── SyncAnswered         do we know the same?

Every message may carry claims. Of two claims about a peer the one with the higher incarnation
stands, at the same incarnation the one that is worse: alive, suspect, failed, left. Only a peer
itself raises its incarnation, and it does so to contradict. SWIM (Das, Gupta, Motivala, DSN 2002).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from kowalski.protocol.ids import PeerIdField
from kowalski.protocol.limits import CLAIMS_MAX, FRAME_BYTES_MAX, ROWS_MAX
from kowalski.protocol.messages.base import Count, Message, Record, Seconds
from kowalski.protocol.messages.trust import Members


class MemberClaim(Record):
    """What somebody says of `peer`. `accuser`: whose suspicion it is."""

    peer: PeerIdField
    state: Literal["alive", "suspect", "failed", "left"]
    incarnation: Count
    accuser: PeerIdField | None = None


Claims = Annotated[
    tuple[MemberClaim, ...], Field(strict=False, fail_fast=True, max_length=CLAIMS_MAX)
]
Rows = Annotated[tuple[MemberClaim, ...], Field(strict=False, fail_fast=True, max_length=ROWS_MAX)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""Exclusive or, over all rows of a table, the sender's own among them, of BLAKE2b with 8 bytes of
digest over "INCARNATION STATE PEER"; in hexadecimal."""


class Probe(Message):
    """Answered at once by whoever is there."""

    KIND: ClassVar[str] = "swim/probe"

    claims: Claims = ()


class ProbeAnswered(Message):
    KIND: ClassVar[str] = "swim/probe-answered"

    claims: Claims = ()


class HelpAsked(Message):
    """Probe `target` for me and tell me within `within_s` what came of it."""

    KIND: ClassVar[str] = "swim/help-asked"

    target: PeerIdField
    within_s: Seconds
    claims: Claims = ()


class HelpAnswered(Message):
    KIND: ClassVar[str] = "swim/help-answered"

    has_reached: bool
    claims: Claims = ()


class ClaimsTold(Message):
    """News, or what the asker of a sync knew better."""

    KIND: ClassVar[str] = "swim/claims-told"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    claims: Rows = ()


class ClaimsHeard(Message):
    KIND: ClassVar[str] = "swim/claims-heard"

    claims: Claims = ()


class SyncAsked(Message):
    KIND: ClassVar[str] = "swim/sync-asked"

    digest: Digest


class SyncAnswered(Message):
    """Where the digests differ: the answerer's table, and the certificates that belong to it."""

    KIND: ClassVar[str] = "swim/sync-answered"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    digest: Digest
    rows: Rows = ()
    members: Members = ()
