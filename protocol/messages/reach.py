"""How a node looks from outside: its clock, and its addresses (/kowalski/reach/1).

    peer                          another
    ReachAsked{addresses} ──►
                                  dials each, ends each as soon as the asker has proven itself there
                          ◄──     ReachTold

For people: nothing is decided on what is told. Whoever is asked too often refuses `busy`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kowalski.protocol.ids import AddressField
from kowalski.protocol.messages.base import Message

DIALLED_MAX = 4

FewAddresses = Annotated[
    tuple[AddressField, ...], Field(strict=False, fail_fast=True, max_length=DIALLED_MAX)
]

UnixSeconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
"""What a clock shows; the one place where that travels, since clocks are what is compared."""


class ReachAsked(Message):
    """Tell what your clock says, and whether you find me at these addresses of mine."""

    KIND: ClassVar[str] = "reach/asked"

    addresses: FewAddresses = ()


class ReachTold(Message):
    """When the request came and when this left, by the sender's clock: T2 and T3 of RFC 5905.

    `reached`: those of the addresses where the asker has proven to be. Why others were not is not
    told: nobody is to learn by it what else listens near the sender.
    """

    KIND: ClassVar[str] = "reach/told"

    received_unix_s: UnixSeconds
    sent_unix_s: UnixSeconds
    reached: FewAddresses = ()
