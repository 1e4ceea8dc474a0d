"""What happens to `connectivity`, and what it wants done."""

from __future__ import annotations

from dataclasses import dataclass

from kowalski.protocol.ids import Address, MeshId, PeerId

# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sighted:
    """Somebody says that `peer` is at `addresses`. A hint, never proof.

    `is_static`: the owner says it. `is_remembered`: it was there in the last run. `is_announced`:
    anybody may have said it, on the network.
    """

    peer: PeerId
    addresses: tuple[Address, ...]
    mesh: MeshId | None = None
    is_static: bool = False
    is_remembered: bool = False
    is_announced: bool = False


@dataclass(frozen=True, slots=True)
class Introduced:
    """A member names those that it knows, all at once: one step, however many they are."""

    sightings: tuple[Sighted, ...]


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Reached:
    """We dialled it there, and it was there."""

    peer: PeerId
    address: Address


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class DialFailed:
    peer: PeerId
    why: str


@dataclass(frozen=True, slots=True)
class MembershipProven:
    """Both sides have seen each other's certificate."""

    peer: PeerId
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class MembershipRefused:
    """The peer's certificate does not hold, or it would not take ours."""

    peer: PeerId
    why: str


@dataclass(frozen=True, slots=True)
class AskingFailed:
    """Weather, or a peer that has not joined yet."""

    peer: PeerId
    why: str


@dataclass(frozen=True, slots=True)
class Answered:
    """It has given a sign of life."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Spoke:
    """It asked us something: it is there, whether or not what we ask is answered.

    No reason to send it work; but a connection on which it speaks is not half-open, and whoever is
    short of time is not helped by having to connect anew.
    """

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Missed:
    """It should have given one."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Suspected:
    """Somebody in the mesh has had no answer from it: we ask for ourselves, and once is enough."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Vouched:
    """It has contradicted, or somebody has heard from it: what we doubt may be over."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The mesh has given it up: nobody probes it any more, and we find out by asking ourselves.

    Again and again, for it may say one thing more and be silent then. Not by hanging up: who is
    merely slow would be slower yet for having to connect anew.
    """

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Woke:
    """This machine was asleep or stopped: what it was connected to may be gone."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


EventOfKnown = (
    Reached
    | ConnectionClosed
    | DialFailed
    | MembershipProven
    | MembershipRefused
    | AskingFailed
    | Answered
    | Spoke
    | Missed
    | Suspected
    | Vouched
    | GivenUp
)
Event = Sighted | Introduced | ConnectionOpened | Woke | TimePassed | EventOfKnown


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dial:
    """`is_vouched`: more than an announcement says that somebody is there."""

    peer: PeerId
    addresses: tuple[Address, ...]
    is_vouched: bool = True


@dataclass(frozen=True, slots=True)
class AskMembership:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask for a sign of life, now; `Answered` or `Missed` comes of it."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class HangUp:
    peer: PeerId
    why: str


@dataclass(frozen=True, slots=True)
class MemberConnected:
    peer: PeerId
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class MemberDisconnected:
    peer: PeerId


Effect = Dial | AskMembership | Verify | HangUp | MemberConnected | MemberDisconnected
