"""How two connected peers prove to each other that they belong (/kowalski/membership/1).

The peer with the lower id asks, whoever dialled. Until both have proven it, nothing else is served.

    Hello ──►   ◄── Welcome   Ready ──►   ◄── Ready

How members notice that others are gone stands in `swim`.
"""

from __future__ import annotations

from typing import ClassVar

from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Boot, Count, Message, Name
from kowalski.protocol.messages.telemetry import Profile
from kowalski.protocol.messages.trust import Addresses, Members, Roster, SignedCertificate


class Hello(Message):
    """Here is my certificate; Noise has proven that I am the peer it names."""

    KIND: ClassVar[str] = "membership/hello"

    certificate: SignedCertificate
    boot: Boot
    name: Name
    addresses: Addresses


class Welcome(Message):
    """The same from the other side, once it has checked the asker's, and whom and what it knows.

    `incarnation` is the sender's own, see `swim`.
    """

    KIND: ClassVar[str] = "membership/welcome"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    certificate: SignedCertificate
    boot: Boot
    name: Name
    addresses: Addresses
    members: Members = ()
    profile: Profile | None = None
    roster: Roster | None = None
    incarnation: Count = 0


class Ready(Message):
    """I have checked yours: from now on you may ask me anything.

    From the asker it brings what a Welcome brings: nobody is told who else is here before it has
    proven that it belongs.
    """

    KIND: ClassVar[str] = "membership/ready"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    members: Members = ()
    profile: Profile | None = None
    roster: Roster | None = None
    incarnation: Count = 0


class RoundTrip(Message):
    """Asked and answered with itself, for the time it takes."""

    KIND: ClassVar[str] = "membership/round-trip"
