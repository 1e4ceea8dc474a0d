"""Who will take a piece of work (/kowalski/placement/1).

    asker                                     worker
    OfferAsked ──►
                                     ◄──      Offer, or Refused with `retry_after_s`
                                              (the place is held while the conversation is open)
    the work itself, on its own conversation, with the offer's reservation in its `claim`
    Cancel ──►                                (an asker that goes elsewhere gives the place back)

An offer is for choosing only. A worker may still refuse the work; without a reservation it may be
asked for all the same.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from kowalski.protocol.ids import ContentHashField, PeerIdField
from kowalski.protocol.limits import INPUTS_MAX
from kowalski.protocol.messages.base import (
    Code,
    Count,
    Fraction,
    Message,
    ModelName,
    Record,
    Seconds,
)
from kowalski.protocol.messages.telemetry import Hot, Places, TokensPerSecond

Priority = Literal["batch", "normal", "interactive"]
"""Strictly the higher first, but for those that have waited long."""

PREFIXES_MAX = 64
PrefixDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""Of a model and the messages up to some point; see `kowalski.mesh.core.prefixes`."""


class Claim(Record):
    """On what grounds a request wants a place.

    `submitter`: for whom it is done, in whose name it queues; whoever asks, where it is left out.
    `reservation`: from an offer to the same asker, spent by this.
    """

    submitter: PeerIdField | None = None
    priority: Priority = "normal"
    reservation: Count | None = None


class OfferAsked(Message):
    """Would you do this, and when? What is not said about the work is not known.

    `prefixes`: the longest first. `content`: what the work reads. `reserve_s`: how long to hold a
    place, at most; 0 only asks.
    """

    KIND: ClassVar[str] = "placement/offer-asked"
    FRAME_BYTES_MAX: ClassVar[int] = 128 * 1024

    kind: Code
    language: Code | None = None
    model: ModelName | None = None
    claim: Claim = Claim()
    prompt_tokens: Count | None = None
    max_tokens: Count | None = None
    prefixes: Annotated[
        tuple[PrefixDigest, ...], Field(strict=False, fail_fast=True, max_length=PREFIXES_MAX)
    ] = ()
    content: Annotated[
        tuple[ContentHashField, ...], Field(strict=False, fail_fast=True, max_length=INPUTS_MAX)
    ] = ()
    reserve_s: Seconds = 0.0
    remaining_s: Seconds


class Offer(Message):
    """`wait_s` until it would begin, `service_s` from then to its end, as the worker sees it.

    `saved_s` is what the cached prefix has taken off `service_s` already. `held`: which of the
    `content` asked for is here, by position.
    """

    KIND: ClassVar[str] = "placement/offer"
    FRAME_BYTES_MAX: ClassVar[int] = 128 * 1024

    reservation: Count | None = None
    wait_s: Seconds
    service_s: Seconds
    saved_s: Seconds = 0.0
    running: Places = 0
    queued: Places = 0
    slots: Places = 0
    memory_used: Fraction = 0.0
    tokens_per_s: TokensPerSecond | None = None
    cached_tokens: Count = 0
    held: Annotated[
        tuple[Count, ...], Field(strict=False, fail_fast=True, max_length=INPUTS_MAX)
    ] = ()
    hot: Hot | None = None
