"""Who belongs to the mesh: certificates, and how a newcomer gets one (/kowalski/join/1).

    joiner                                   inviter
    JoinAsked{invite, nonce}        ──►
                                    ◄──      MeshProven{root key, signature}
    InviteProven{proof, name}       ──►
                                    ◄──      JoinGranted{certificate, members}

The joiner checks that the answering peer can sign for the mesh before it shows that it knows the
secret; what it then shows is bound to both peer ids and the nonces, and is of no use to others.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kowalski.protocol.ids import AddressField, MeshIdField, PeerIdField
from kowalski.protocol.limits import ADDRESSES_MAX, FRAME_BYTES_MAX, MEMBERS_MAX
from kowalski.protocol.messages.base import Count, Line, Message, Name, Record

Role = Literal["submit", "coordinate", "repl", "infer", "fold", "admin"]
ROLES: tuple[Role, ...] = ("submit", "coordinate", "repl", "infer", "fold", "admin")

Roles = Annotated[tuple[Role, ...], Field(strict=False, fail_fast=True, max_length=len(ROLES))]
Addresses = Annotated[
    tuple[AddressField, ...], Field(strict=False, fail_fast=True, max_length=ADDRESSES_MAX)
]
Key = Annotated[bytes, Field(min_length=32, max_length=32)]
Signature = Annotated[bytes, Field(min_length=64, max_length=64)]
Nonce = Annotated[bytes, Field(min_length=16, max_length=32)]


class Certificate(Message):
    """That `peer` is a member of `mesh` with `roles` until `not_after_unix_s`."""

    KIND: ClassVar[str] = "trust/certificate"

    mesh: MeshIdField
    peer: PeerIdField
    roles: Roles
    not_after_unix_s: Count
    epoch: Count


class Issuer(Record):
    """A member with role `admin`: its own certificate's frame, signed by the mesh root key."""

    frame: Annotated[bytes, Field(max_length=2048)]
    signature: Signature


class SignedCertificate(Record):
    """A certificate's frame exactly as signed.

    The signature is the mesh root key's, or the key's of the peer in `issuer` where there is one.
    """

    frame: Annotated[bytes, Field(max_length=2048)]
    root_key: Key
    signature: Signature
    issuer: Issuer | None = None


class Revocation(Message):
    """Certificates of `peer` up to and including `epoch` are no good any more."""

    KIND: ClassVar[str] = "trust/revocation"

    mesh: MeshIdField
    peer: PeerIdField
    epoch: Count
    issued_unix_s: Count
    why: Line = ""


class SignedRevocation(Record):
    """Signed like a certificate: by the root key, or by an admin.

    Small enough that a message carries all that a mesh may have.
    """

    frame: Annotated[bytes, Field(max_length=1024)]
    root_key: Key
    signature: Signature
    issuer: Issuer | None = None


class Roster(Message):
    """All revocations that the sender knows of. Each proves itself; together they only grow."""

    KIND: ClassVar[str] = "trust/roster"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    revocations: Annotated[
        tuple[SignedRevocation, ...], Field(strict=False, fail_fast=True, max_length=MEMBERS_MAX)
    ] = ()


class RenewalAsked(Message):
    """A member wants its certificate anew, from a peer that may issue; same roles, same epoch."""

    KIND: ClassVar[str] = "trust/renewal-asked"


class KnownMember(Record):
    """A peer that the sender has seen prove its membership, and where it was last reachable."""

    certificate: SignedCertificate
    addresses: Addresses


Members = Annotated[
    tuple[KnownMember, ...], Field(strict=False, fail_fast=True, max_length=MEMBERS_MAX)
]


class JoinAsked(Message):
    KIND: ClassVar[str] = "trust/join-asked"

    invite: Nonce
    nonce: Nonce


class MeshProven(Message):
    """The root key's signature over nonces, joiner and answering peer, or an admin's."""

    KIND: ClassVar[str] = "trust/mesh-proven"

    root_key: Key
    signature: Signature
    nonce: Nonce
    issuer: Issuer | None = None


class InviteProven(Message):
    """HMAC-SHA256 with the invite's secret over both nonces and both peers."""

    KIND: ClassVar[str] = "trust/invite-proven"

    proof: Annotated[bytes, Field(min_length=32, max_length=32)]
    name: Name


class JoinGranted(Message):
    KIND: ClassVar[str] = "trust/join-granted"
    FRAME_BYTES_MAX: ClassVar[int] = FRAME_BYTES_MAX

    certificate: SignedCertificate
    members: Members = ()
