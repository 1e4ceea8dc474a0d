"""Who a node is: one Ed25519 key in a file, and the libp2p peer id that follows from it.

The peer id of an Ed25519 key inlines the key (libp2p peer-ids specification: the base58 text of an
identity multihash over the protobuf `PublicKey`), so anybody can verify what a peer signed. libp2p
itself is not imported here: commands that only need a name or a signature start fast.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import PeerId

if TYPE_CHECKING:
    from pathlib import Path

KEY_BYTES = 32
SIGNATURE_BYTES = 64

# An identity multihash of 36 bytes, which are a protobuf `PublicKey` of type 1 (Ed25519) and 32
# bytes of key.
_PEER_ID_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PEER_ID_CHARS_MAX = 64
_KEY_FILE_HEADER = b"kowalski-node identity 1\n"


@dataclass(frozen=True, slots=True)
class Identity:
    peer: PeerId
    private_key_bytes: bytes = field(repr=False)
    """The 32-byte Ed25519 seed."""

    def sign(self, data: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.private_key_bytes).sign(data)


def identity_from_seed(seed: bytes) -> Identity:
    """The identity whose Ed25519 seed is these 32 bytes."""
    public_key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return Identity(peer=peer_of(public_key), private_key_bytes=seed)


def new_identity() -> Identity:
    """A fresh identity that is stored nowhere."""
    return identity_from_seed(secrets.token_bytes(KEY_BYTES))


def peer_of(public_key: bytes) -> PeerId:
    """The peer id of a 32-byte Ed25519 public key."""
    if len(public_key) != KEY_BYTES:
        raise ValueError(f"public key of {len(public_key)} bytes")
    return PeerId(_to_base58(_PEER_ID_PREFIX + public_key))


def public_key_of(peer: PeerId) -> bytes:
    """The 32-byte Ed25519 public key inside a peer id.

    Raises:
        ValueError: not a peer id, or one of another kind of key.
    """
    raw = _from_base58(peer)
    if len(raw) != len(_PEER_ID_PREFIX) + KEY_BYTES or not raw.startswith(_PEER_ID_PREFIX):
        raise ValueError(f"not the peer id of an Ed25519 key: {peer[:_PEER_ID_CHARS_MAX]!r}")
    return raw[len(_PEER_ID_PREFIX) :]


def verify(peer: PeerId, data: bytes, signature: bytes) -> bool:
    """Whether `peer` signed exactly `data`; false also for a malformed peer id or signature."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key_of(peer))
        key.verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_or_create_identity(path: Path) -> Identity:
    """Read the key file, or write a new one where there is none.

    The file is created whole or not at all, with mode 0600, in a folder of mode 0700 if that has to
    be made too. Two processes that start at once end with the same identity.

    Raises:
        ConfigError: the file cannot be read or written, is damaged, or others can read it.
    """
    try:
        if not path.exists():
            _create(path)
        return _load(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"identity file {path}: {reason}; choose another data folder") from error


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_KEY_FILE_HEADER + secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link never replaces: of two processes that start at once, the second keeps the
            # first one's key.
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
    _sync_folder(path.parent)


def _load(path: Path) -> Identity:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        content = file.read(1024)
    if not stat.S_ISREG(mode):
        raise ConfigError(f"identity file {path} is not a regular file; move it away")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"identity file {path} is open to other users (mode {stat.S_IMODE(mode):04o}); "
            f"run: chmod 600 {path}"
        )
    try:
        seed = content.removeprefix(_KEY_FILE_HEADER)
        return identity_from_seed(bytes.fromhex(seed.decode("ascii")))
    except ValueError as error:
        raise ConfigError(
            f"identity file {path} is damaged; restore it from a backup, or delete it to become a "
            "new peer that has to be invited again"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_base58(raw: bytes) -> str:
    value = int.from_bytes(raw, "big")
    digits = ""
    while value:
        value, digit = divmod(value, 58)
        digits = _BASE58[digit] + digits
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return _BASE58[0] * zeros + digits


def _from_base58(text: str) -> bytes:
    if len(text) > _PEER_ID_CHARS_MAX:
        raise ValueError(f"peer id of {len(text)} characters")
    value = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise ValueError(f"not base58: {character!r}")
        value = value * 58 + digit
    zeros = len(text) - len(text.lstrip(_BASE58[0]))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")
