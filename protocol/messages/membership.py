"""How two connected peers prove to each other that they belong (/kowalski/membership/1).

The peer with the lower id asks, whoever dialled. Until both have proven it, nothing else is served.

    Hello ──►   ◄── Welcome   Hello ──►   ◄── Ready

The first hello names no members and has no profile: the asker says who else is there once the other
side has proven itself. A bare `Ready` in place of the second hello says that there is nothing more.
"""

from __future__ import annotations

from typing import ClassVar

from kowalski.protocol.limits import FRAME_BYTES_MAX
from kowalski.protocol.messages.base import Boot, Message, Name
from kowalski.protocol.messages.telemetry import Profile
from kowalski.protocol.messages.trust import Addresses, Members, SignedCertificate


class Hello(Message):
    """Here is my certificate; Noise has proven that I am the peer it names."""

    KIND: ClassVar[str] = "membership/hello"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    certificate: SignedCertificate
    boot: Boot
    name: Name
    addresses: Addresses
    members: Members = ()
    profile: Profile | None = None


class Welcome(Message):
    """The same from the other side, once it has checked the asker's."""

    KIND: ClassVar[str] = "membership/welcome"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    certificate: SignedCertificate
    boot: Boot
    name: Name
    addresses: Addresses
    members: Members = ()
    profile: Profile | None = None


class Ready(Message):
    """I have checked yours: from now on you may ask me anything."""

    KIND: ClassVar[str] = "membership/ready"


class RoundTrip(Message):
    """Asked and answered with itself, for the time it takes."""

    KIND: ClassVar[str] = "membership/round-trip"
