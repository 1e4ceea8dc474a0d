"""What makes a node a member: a certificate signed by the mesh's root key, and where it is kept.

The mesh id is the hash of the root public key, so a certificate proves itself to whoever knows
the id. Revocation and renewal stand elsewhere; here is making, checking and storing.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kowalski.mesh.core.renewal import CERTIFICATE_LIFE_S
from kowalski.mesh.identity import Identity
from kowalski.mesh.identity import verify as is_signed_by
from kowalski.mesh.private_files import write_private
from kowalski.protocol import codec, ids
from kowalski.protocol.errors import ConfigError, KowalskiError, RemoteProtocolError
from kowalski.protocol.ids import MeshId, PeerId
from kowalski.protocol.messages.trust import (
    ROLES,
    Certificate,
    Issuer,
    Revocation,
    Role,
    SignedCertificate,
    SignedRevocation,
)

CLOCK_GRACE_S = 300
"""Clocks of home devices are minutes off."""

CERTIFICATES_KEPT = 4096
"""Of those that were read, and of signatures that were verified: many show us the same ones."""

_PROOF_OF_MESH = b"kowalski mesh proof 1\0"
_PROOF_OF_INVITE = b"kowalski invite proof 1\0"


class CertificateError(KowalskiError):
    """A certificate that does not hold; `reason` is one word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Seal:
    """What makes bytes the word of a mesh: a signature, and whose it is."""

    root_key: bytes
    signature: bytes
    issuer: Issuer | None


class Authority(Protocol):
    """Whoever may make members: the holder of the root key, or an admin."""

    @property
    def mesh(self) -> MeshId: ...

    def seal(self, data: bytes) -> Seal: ...

    def may_grant(self, role: Role) -> bool: ...


@dataclass(frozen=True, slots=True)
class MeshRoot:
    """The key of a mesh. Whoever has it can make members, admins among them."""

    private_key_bytes: bytes = field(repr=False)

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    @property
    def mesh(self) -> MeshId:
        return ids.mesh_id(self.public_key)

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private_key_bytes)

    def seal(self, data: bytes) -> Seal:
        return Seal(self.public_key, self._key.sign(data), None)

    def may_grant(self, role: Role) -> bool:  # noqa: ARG002 all of them
        return True

    def certify(
        self, peer: PeerId, roles: tuple[Role, ...], *, now_unix_s: int, epoch: int = 0
    ) -> SignedCertificate:
        return certify(self, peer, roles, now_unix_s=now_unix_s, epoch=epoch)


@dataclass(frozen=True, slots=True)
class Admin:
    """A member that the root has made an admin: it signs with its own identity."""

    identity: Identity
    certificate: SignedCertificate

    @property
    def mesh(self) -> MeshId:
        return ids.mesh_id(self.certificate.root_key)

    def seal(self, data: bytes) -> Seal:
        issuer = Issuer(frame=self.certificate.frame, signature=self.certificate.signature)
        return Seal(self.certificate.root_key, self.identity.sign(data), issuer)

    def may_grant(self, role: Role) -> bool:
        """Admins make members; only the root makes admins."""
        return role != "admin"


@dataclass(frozen=True, slots=True)
class Membership:
    """What a member holds. `root` only where the mesh was founded, or its key was brought to."""

    mesh: MeshId
    certificate: SignedCertificate
    root: MeshRoot | None


def found_mesh(peer: PeerId, *, now_unix_s: int) -> Membership:
    """A new mesh with one member, who may do everything."""
    root = MeshRoot(secrets.token_bytes(32))
    return Membership(root.mesh, certify(root, peer, ROLES, now_unix_s=now_unix_s), root)


def authority_of(membership: Membership, identity: Identity) -> Authority | None:
    """What this member may sign with, if it may sign at all."""
    if membership.root is not None:
        return membership.root
    certificate = decode_certificate(membership.certificate.frame)
    if membership.certificate.issuer is None and "admin" in certificate.roles:
        return Admin(identity, membership.certificate)
    return None


def certify(
    authority: Authority,
    peer: PeerId,
    roles: tuple[Role, ...],
    *,
    now_unix_s: int,
    epoch: int = 0,
) -> SignedCertificate:
    """A certificate of those of `roles` that the authority may grant."""
    certificate = Certificate(
        mesh=authority.mesh,
        peer=peer,
        roles=tuple(role for role in ROLES if role in roles and authority.may_grant(role)),
        not_after_unix_s=now_unix_s + CERTIFICATE_LIFE_S,
        epoch=epoch,
    )
    frame = codec.encode(certificate)
    seal = authority.seal(frame)
    return SignedCertificate(
        frame=frame, root_key=seal.root_key, signature=seal.signature, issuer=seal.issuer
    )


def revoke(
    authority: Authority, peer: PeerId, *, epoch: int, now_unix_s: int, why: str = ""
) -> SignedRevocation:
    revocation = Revocation(
        mesh=authority.mesh, peer=peer, epoch=epoch, issued_unix_s=now_unix_s, why=why
    )
    frame = codec.encode(revocation)
    seal = authority.seal(frame)
    return SignedRevocation(
        frame=frame, root_key=seal.root_key, signature=seal.signature, issuer=seal.issuer
    )


# --- checking -----------------------------------------------------------------------------------


def _nobody_is(_peer: PeerId, _epoch: int) -> bool:
    return False


def _never(_certificate: Certificate) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Rules:
    """What a check knows beside the mesh id.

    `is_revoked` by peer and epoch. `forgives_expiry`: where no admin was seen since a certificate
    ended, nobody could have renewed it, and its holder is no less a member for that.
    """

    is_revoked: Callable[[PeerId, int], bool] = _nobody_is
    forgives_expiry: Callable[[Certificate], bool] = _never


STRICT = Rules()


def verify(
    signed: SignedCertificate,
    *,
    mesh: MeshId,
    peer: PeerId,
    now_unix_s: float,
    rules: Rules = STRICT,
) -> Certificate:
    """The certificate inside, if it makes `peer` a member of `mesh` now.

    Raises:
        CertificateError: `wrong_mesh`, `bad_signature`, `malformed`, `wrong_peer`, `expired`,
            `revoked`, or one of its issuer's (`issuer_...`).
    """
    issuer = _check_seal(signed, mesh, rules)
    certificate = decode_certificate(signed.frame)
    if certificate.mesh != mesh:
        raise CertificateError("malformed", f"a certificate of mesh {certificate.mesh}")
    if certificate.peer != peer:
        raise CertificateError("wrong_peer", f"certificate of {certificate.peer}, shown by {peer}")
    if issuer is not None and "admin" in certificate.roles:
        raise CertificateError("issuer_overreach", "only the root key makes admins")
    if rules.is_revoked(peer, certificate.epoch):
        raise CertificateError("revoked", "this membership was revoked")
    if not is_current(certificate, now_unix_s) and not rules.forgives_expiry(certificate):
        late_s = int(now_unix_s - certificate.not_after_unix_s)
        raise CertificateError("expired", f"the certificate ended {late_s} s ago")
    return certificate


def verify_revocation(signed: SignedRevocation, *, mesh: MeshId) -> Revocation:
    """The revocation inside, if somebody who may has signed it.

    One by an admin who was revoked counts as well: else it would hang on who heard what first,
    and to revoke an admin would bring back those whom it had put out.

    Raises:
        CertificateError: `wrong_mesh`, `bad_signature`, `malformed`, or of its issuer.
    """
    _check_seal(signed, mesh, STRICT)
    try:
        revocation = codec.decode(signed.frame)
    except RemoteProtocolError as broken:
        raise CertificateError("malformed", str(broken)) from broken
    if not isinstance(revocation, Revocation) or revocation.mesh != mesh:
        raise CertificateError("malformed", f"a {revocation.KIND} is no revocation of {mesh}")
    return revocation


# A meeting shows the certificates of all members: the same ones, meeting after meeting.
@lru_cache(maxsize=CERTIFICATES_KEPT)
def decode_certificate(frame: bytes) -> Certificate:
    """Raises CertificateError: `malformed`."""
    try:
        certificate = codec.decode(frame)
    except RemoteProtocolError as broken:
        raise CertificateError("malformed", str(broken)) from broken
    if not isinstance(certificate, Certificate):
        raise CertificateError("malformed", f"a {certificate.KIND} is no certificate")
    return certificate


class _Sealed(Protocol):
    @property
    def frame(self) -> bytes: ...
    @property
    def root_key(self) -> bytes: ...
    @property
    def signature(self) -> bytes: ...
    @property
    def issuer(self) -> Issuer | None: ...


def _check_seal(sealed: _Sealed, mesh: MeshId, rules: Rules) -> Certificate | None:
    """The issuing admin's certificate, None where the root itself signed.

    Not checked: whether the admin's certificate has expired since. It held when it signed, and
    whoever distrusts an admin revokes it.
    """
    if ids.mesh_id(sealed.root_key) != mesh:
        other = ids.mesh_id(sealed.root_key)
        raise CertificateError("wrong_mesh", f"a member of mesh {other}, not of {mesh}")
    if sealed.issuer is None:
        if not _is_signed(sealed.root_key, sealed.frame, sealed.signature):
            raise CertificateError("bad_signature", "the mesh root key did not sign this")
        return None
    if not _is_signed(sealed.root_key, sealed.issuer.frame, sealed.issuer.signature):
        raise CertificateError("bad_signature", "the mesh root key did not sign its issuer")
    issuer = decode_certificate(sealed.issuer.frame)
    if issuer.mesh != mesh or "admin" not in issuer.roles:
        raise CertificateError("issuer_not_allowed", f"{issuer.peer} may not make members")
    if rules.is_revoked(issuer.peer, issuer.epoch):
        raise CertificateError("issuer_revoked", "the admin that made it was revoked")
    if not is_signed_by(issuer.peer, sealed.frame, sealed.signature):
        raise CertificateError("bad_signature", f"{issuer.peer} did not sign this")
    return issuer


def is_current(certificate: Certificate, now_unix_s: float) -> bool:
    return now_unix_s <= certificate.not_after_unix_s + CLOCK_GRACE_S


@lru_cache(maxsize=CERTIFICATES_KEPT)  # as above
def _is_signed(public_key: bytes, data: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


# --- joining ------------------------------------------------------------------------------------


def join_transcript(
    joiner: PeerId, inviter: PeerId, joiner_nonce: bytes, inviter_nonce: bytes
) -> bytes:
    """What both proofs of a join are bound to; fixed-length digests, so nothing can be shifted."""
    parts = (joiner.encode(), inviter.encode(), joiner_nonce, inviter_nonce)
    return b"".join(sha256(part).digest() for part in parts)


def mesh_proof(authority: Authority, transcript: bytes) -> Seal:
    """Sign a join's transcript; see `is_mesh_proof`."""
    return authority.seal(_PROOF_OF_MESH + transcript)


@dataclass(frozen=True, slots=True)
class _Proof:
    frame: bytes
    root_key: bytes
    signature: bytes
    issuer: Issuer | None


def is_mesh_proof(mesh: MeshId, inviter: PeerId, transcript: bytes, seal: Seal) -> bool:
    """Whether the root key of `mesh`, or `inviter` as one of its admins, signed this join."""
    proof = _Proof(_PROOF_OF_MESH + transcript, seal.root_key, seal.signature, seal.issuer)
    try:
        issuer = _check_seal(proof, mesh, STRICT)
    except CertificateError:
        return False
    return issuer is None or issuer.peer == inviter


def invite_proof(secret: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, _PROOF_OF_INVITE + transcript, "sha256")


def is_invite_proof(secret: bytes, transcript: bytes, proof: bytes) -> bool:
    return hmac.compare_digest(invite_proof(secret, transcript), proof)


# --- the file -----------------------------------------------------------------------------------


def save_membership(path: Path, membership: Membership) -> None:
    """Write the file, mode 0600, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    text = json.dumps(
        {
            "mesh": membership.mesh,
            "certificate": membership.certificate.frame.hex(),
            "root_key": membership.certificate.root_key.hex(),
            "signature": membership.certificate.signature.hex(),
            "issuer": membership.certificate.issuer
            and {
                "frame": membership.certificate.issuer.frame.hex(),
                "signature": membership.certificate.issuer.signature.hex(),
            },
            "root_private_key": membership.root.private_key_bytes.hex()
            if membership.root
            else None,
        },
        indent=1,
    )
    write_private(path, text.encode())


def load_membership(path: Path) -> Membership | None:
    """What the file says, or None where there is none.

    Raises:
        ConfigError: it cannot be read, or is damaged. Whether the certificate holds is for
            `verify` to say.
    """
    try:
        raw = json.loads(path.read_bytes())
        signed = SignedCertificate(
            frame=bytes.fromhex(raw["certificate"]),
            root_key=bytes.fromhex(raw["root_key"]),
            signature=bytes.fromhex(raw["signature"]),
            issuer=_issuer(raw.get("issuer")),
        )
        private = raw["root_private_key"]
        root = MeshRoot(bytes.fromhex(private)) if private else None
        mesh = ids.mesh_id(signed.root_key)
        if raw["mesh"] != mesh or (root is not None and root.mesh != mesh):
            raise ValueError("keys of another mesh")
        return Membership(mesh, signed, root)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"membership file {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"membership file {path} is damaged; restore it from a backup, or delete it and join "
            "again with a new invite"
        ) from error


def _issuer(raw: dict[str, str] | None) -> Issuer | None:
    if raw is None:
        return None
    return Issuer(frame=bytes.fromhex(raw["frame"]), signature=bytes.fromhex(raw["signature"]))
