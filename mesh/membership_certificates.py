"""What makes a node a member: a certificate signed by the mesh's root key, and where it is kept.

The mesh id is the hash of the root public key, so a certificate proves itself to whoever knows
the id. Revocation and renewal stand elsewhere; here is making, checking and storing.
"""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kowalski.mesh.private_files import write_private
from kowalski.protocol import codec, ids
from kowalski.protocol.errors import ConfigError, KowalskiError, RemoteProtocolError
from kowalski.protocol.ids import MeshId, PeerId
from kowalski.protocol.messages.trust import ROLES, Certificate, Role, SignedCertificate

CERTIFICATE_LIFE_S = 180 * 24 * 3600
"""Certificates renew themselves long before; without any admin a mesh lives on for this long."""

CLOCK_GRACE_S = 300
"""Clocks of home devices are minutes off."""

_PROOF_OF_MESH = b"kowalski mesh proof 1\0"
_PROOF_OF_INVITE = b"kowalski invite proof 1\0"


class CertificateError(KowalskiError):
    """A certificate that does not hold; `reason` is one word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class MeshRoot:
    """The key of a mesh. Whoever has it can make members."""

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

    def certify(
        self, peer: PeerId, roles: tuple[Role, ...], *, now_unix_s: int, epoch: int = 0
    ) -> SignedCertificate:
        certificate = Certificate(
            mesh=self.mesh,
            peer=peer,
            roles=tuple(role for role in ROLES if role in roles),
            not_after_unix_s=now_unix_s + CERTIFICATE_LIFE_S,
            epoch=epoch,
        )
        frame = codec.encode(certificate)
        return SignedCertificate(
            frame=frame, root_key=self.public_key, signature=self._key.sign(frame)
        )

    def prove(self, transcript: bytes) -> bytes:
        """Sign a join's transcript; see `is_mesh_proof`."""
        return self._key.sign(_PROOF_OF_MESH + transcript)


@dataclass(frozen=True, slots=True)
class Membership:
    """What a member holds. `root` only where the mesh was founded, or its key was brought to."""

    mesh: MeshId
    certificate: SignedCertificate
    root: MeshRoot | None


def found_mesh(peer: PeerId, *, now_unix_s: int) -> Membership:
    """A new mesh with one member, who may do everything."""
    root = MeshRoot(secrets.token_bytes(32))
    return Membership(root.mesh, root.certify(peer, ROLES, now_unix_s=now_unix_s), root)


def verify(
    signed: SignedCertificate, *, mesh: MeshId, peer: PeerId, now_unix_s: float
) -> Certificate:
    """The certificate inside, if it makes `peer` a member of `mesh` now.

    Raises:
        CertificateError: `wrong_mesh`, `bad_signature`, `malformed`, `wrong_peer` or `expired`.
    """
    if ids.mesh_id(signed.root_key) != mesh:
        other = ids.mesh_id(signed.root_key)
        raise CertificateError("wrong_mesh", f"a member of mesh {other}, not of {mesh}")
    if not _is_signed(signed.root_key, signed.frame, signed.signature):
        raise CertificateError("bad_signature", "the mesh root key did not sign this certificate")
    try:
        certificate = codec.decode(signed.frame)
    except RemoteProtocolError as broken:
        raise CertificateError("malformed", str(broken)) from broken
    if not isinstance(certificate, Certificate) or certificate.mesh != mesh:
        raise CertificateError("malformed", f"a {certificate.KIND} is no certificate of {mesh}")
    if certificate.peer != peer:
        raise CertificateError("wrong_peer", f"certificate of {certificate.peer}, shown by {peer}")
    if not is_current(certificate, now_unix_s):
        late_s = int(now_unix_s - certificate.not_after_unix_s)
        raise CertificateError("expired", f"the certificate ended {late_s} s ago")
    return certificate


def is_current(certificate: Certificate, now_unix_s: float) -> bool:
    return now_unix_s <= certificate.not_after_unix_s + CLOCK_GRACE_S


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


def is_mesh_proof(mesh: MeshId, root_key: bytes, transcript: bytes, signature: bytes) -> bool:
    """Whether the owner of the root key of `mesh` signed this join."""
    return ids.mesh_id(root_key) == mesh and _is_signed(
        root_key, _PROOF_OF_MESH + transcript, signature
    )


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
