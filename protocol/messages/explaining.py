"""Why a task went where it did, from whoever decided so (/kowalski/explain/1).

    peer                                      who submitted the task, or led it
    ExplainAsked ──►
                                     ◄──      AppointmentTold, one for each term it granted
                                     ◄──      DecisionTold, one for each choice it made
                                     ◄──      Explained: how many there were

Ages and not times: clocks differ. Whoever decided tells what it decided on, as it saw it then; it
remembers the latest only, and nothing of it is on a disk.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from kowalski.protocol.ids import PeerIdField, TaskIdField
from kowalski.protocol.limits import FRAME_BYTES_MAX, MEMBERS_MAX
from kowalski.protocol.messages.base import (
    Code,
    Count,
    Fraction,
    Line,
    Message,
    ModelName,
    Record,
    Seconds,
    Term,
)
from kowalski.protocol.messages.telemetry import Places, TokensPerSecond

CANDIDATES_MAX = 64
"""So many, with all their words, fit a frame."""

Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Called = Annotated[str, StringConstraints(max_length=128)]


class ExplainAsked(Message):
    """`submitter`: whose task, where several call theirs so."""

    KIND: ClassVar[str] = "explaining/asked"

    task: TaskIdField
    submitter: PeerIdField | None = None


class OfferTold(Record):
    """What a candidate offered. `expected_s`: when it would be done, as far as that was believed.

    `held`: how many of the contents that the work reads it had.
    """

    wait_s: Seconds
    service_s: Seconds
    saved_s: Seconds = 0.0
    running: Places = 0
    queued: Places = 0
    slots: Places = 0
    cached_tokens: Count = 0
    held: Count = 0
    expected_s: Seconds = 0.0


class CandidateTold(Record):
    """One peer as it was seen: what its score is made of, and what it offered or refused.

    Without a `score` it was not asked, `why` says what for. `running`, `queued` and `slots` are
    what it last told, `ours` what was sent there since. `slowness`: what it promises was
    multiplied by that. `unit_s`: what a unit of such work took there.
    """

    peer: PeerIdField
    name: Called = ""
    why: Line
    score: Number | None = None
    is_ready: bool = True
    running: Places = 0
    queued: Places = 0
    slots: Places = 0
    ours: Places = 0
    memory_used: Fraction = 0.0
    tokens_per_s: TokensPerSecond | None = None
    rtt_s: Seconds | None = None
    speed: Number = 1.0
    slowness: Number = 1.0
    unit_s: Seconds | None = None
    holds_prefix: bool = False
    offer: OfferTold | None = None
    refused: Line = ""
    retry_after_s: Seconds | None = None


Candidates = Annotated[
    tuple[CandidateTold, ...], Field(strict=False, fail_fast=True, max_length=CANDIDATES_MAX)
]


class DecisionTold(Message):
    """One choice of a peer for a piece of work, `age_s` ago.

    `way`, so far: nobody, only, direct, offers, bound. Without `chosen` nobody could, or all were
    full. `candidates`: who could first, best score first.
    """

    KIND: ClassVar[str] = "explaining/decision"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    age_s: Seconds
    kind: Code
    language: Code | None = None
    model: ModelName | None = None
    units: Number = 1.0
    way: Code
    chosen: PeerIdField | None = None
    why: Line
    expected_s: Seconds | None = None
    retry_after_s: Seconds | None = None
    candidates: Candidates = ()


class LeaderTold(Record):
    """One who could have led. The highest `score` wins: -weight / ln(h), h of task and peer."""

    peer: PeerIdField
    name: Called = ""
    weight: Number
    score: Number
    is_excluded: bool = False
    is_standby: bool = False


class AppointmentTold(Message):
    """A term, and whom it was granted to, `age_s` ago. `why` another than before."""

    KIND: ClassVar[str] = "explaining/appointment"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    age_s: Seconds
    term: Term
    chosen: PeerIdField
    why: Line = ""
    candidates: Annotated[
        tuple[LeaderTold, ...], Field(strict=False, fail_fast=True, max_length=MEMBERS_MAX)
    ] = ()


class Explained(Message):
    """That was all: so many appointments and decisions are remembered here.

    `forgotten`: choices for this task that had to make room for later ones. Nothing is remembered
    from before the last `remembers_s`, when this node was started.
    """

    KIND: ClassVar[str] = "explaining/explained"

    task: TaskIdField
    appointments: Count = 0
    decisions: Count = 0
    forgotten: Count = 0
    remembers_s: Seconds | None = None
