"""This device's own key, membership and root key, in the hands of its owner.

Works on the files alone. What changes them is for a node at rest: see `at_rest`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kowalski.mesh.certificate_book import CertificateBook
from kowalski.mesh.identity import Identity, load_or_create_identity
from kowalski.mesh.membership_certificates import (
    CertificateError,
    Membership,
    MeshRoot,
    Rules,
    certify,
    decode_certificate,
    load_membership,
    save_membership,
    verify,
)
from kowalski.mesh.private_files import create_private
from kowalski.node import control
from kowalski.node.config import NodeConfig
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.messages.trust import ROLES

_ROOT_HEADER = "kowalski-node mesh root key 1"
_ROOT_FILE_BYTES_MAX = 1024
ENDED_IS_FINE = Rules(forgives_expiry=lambda _certificate: True)


@dataclass(frozen=True, slots=True)
class Own:
    """What the files say of this device; `problem` is empty where all is well."""

    identity: Identity
    membership: Membership | None
    roles: tuple[str, ...] = ()
    ends_in_s: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Rotated:
    old: Identity
    new: Identity
    kept_path: Path
    """Where the old key lies now."""
    must_join: bool
    """The membership was of the old key, and nobody here can make another."""


@contextmanager
def at_rest(data_dir: Path) -> Iterator[None]:
    """Nobody else changes the files in this block.

    Raises:
        NodeRunningError: a node runs here; what to do is in the message.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(control.claim_data_dir(data_dir))
        except control.NodeRunningError as running:
            raise control.NodeRunningError(f"{running}; stop it first (Ctrl-C)") from running
        yield


def own(config: NodeConfig, now_unix_s: float) -> Own:
    """What this device is. Makes nothing.

    Raises:
        ConfigError: it is nobody yet, or a file is damaged.
    """
    identity = _identity(config)
    membership = load_membership(config.mesh_path)
    if membership is None:
        return Own(identity, None, problem="a member of no mesh yet")
    certificate = decode_certificate(membership.certificate.frame)
    ends_in_s = certificate.not_after_unix_s - now_unix_s
    problem = "" if ends_in_s > 0 else "the certificate has ended"
    try:
        verify(
            membership.certificate,
            mesh=membership.mesh,
            peer=identity.peer,
            now_unix_s=now_unix_s,
            rules=ENDED_IS_FINE,
        )
        book = _book(config, identity, membership)
        if book.rules.is_revoked(identity.peer, certificate.epoch):
            problem = "revoked: ask for a new invite, and join again"
    except CertificateError as no:
        problem = str(no)
    return Own(identity, membership, certificate.roles, ends_in_s, problem)


def _identity(config: NodeConfig) -> Identity:
    if not config.identity_path.exists():
        raise ConfigError(
            f"this device has no identity yet ({config.identity_path}); "
            "`kowalski-node start` makes one"
        )
    return load_or_create_identity(config.identity_path)


def _book(config: NodeConfig, identity: Identity, membership: Membership) -> CertificateBook:
    return CertificateBook(identity.peer, membership.mesh, time.time, config.roster_path)


def is_revoked(config: NodeConfig, identity: Identity, membership: Membership) -> bool:
    """Whether we have heard that this membership was taken back."""
    epoch = decode_certificate(membership.certificate.frame).epoch
    return _book(config, identity, membership).rules.is_revoked(identity.peer, epoch)


def leave(config: NodeConfig, *, force: bool) -> Membership | None:
    """Forget the mesh; the key stays. The membership that was left, None if there was none.

    Raises:
        ConfigError: the root key of the mesh would be lost, and `force` is not given.
    """
    membership = load_membership(config.mesh_path)
    check_may_leave(membership, force=force)
    for path in (config.invites_path, config.roster_path, config.peers_path, config.mesh_path):
        path.unlink(missing_ok=True)
    return membership


def check_may_leave(membership: Membership | None, *, force: bool) -> None:
    """Raises ConfigError; see `leave`."""
    if membership is not None and membership.root is not None and not force:
        raise ConfigError(
            "this device holds the root key of its mesh, which would be lost: first "
            "`kowalski-node identity export-root FILE`, then `kowalski-node leave --force`"
        )


def rotate(config: NodeConfig, now_unix_s: float) -> Rotated:
    """Become another peer, with a new key. A holder of the root key makes itself a member again.

    What is left half done by a crash, doing it again mends.
    """
    old = _identity(config)
    membership = load_membership(config.mesh_path)
    root = membership.root if membership else None
    date = time.strftime("%Y%m%d", time.gmtime(now_unix_s))
    if membership is not None and root is None:
        config.mesh_path.rename(_free(config.mesh_path, date))
        config.roster_path.unlink(missing_ok=True)
    # Lines that were given out name the old peer.
    config.invites_path.unlink(missing_ok=True)
    kept = _free(config.identity_path, date)
    config.identity_path.rename(kept)
    new = load_or_create_identity(config.identity_path)
    if root is not None:
        save_membership(config.mesh_path, _certified(root, config, new, now_unix_s))
    return Rotated(old, new, kept, must_join=membership is not None and root is None)


def _free(path: Path, date: str) -> Path:
    """A name beside `path` that is not taken."""
    number = 1
    while True:
        mark = f".old-{date}" if number == 1 else f".old-{date}-{number}"
        kept = path.with_name(path.name + mark)
        if not kept.exists():
            return kept
        number += 1


def _certified(
    root: MeshRoot, config: NodeConfig, identity: Identity, now_unix_s: float
) -> Membership:
    """Ourselves as a member who may do everything, by the root key in our hands."""
    book = CertificateBook(identity.peer, root.mesh, time.time, config.roster_path)
    signed = certify(
        root,
        identity.peer,
        ROLES,
        now_unix_s=int(now_unix_s),
        epoch=book.next_epoch(identity.peer),
    )
    return Membership(root.mesh, signed, root)


def export_root(config: NodeConfig, path: Path) -> Membership:
    """Write the root key to a new file.

    Raises:
        ConfigError: it is not here, or the file exists.
    """
    membership = load_membership(config.mesh_path)
    if membership is None or membership.root is None:
        raise ConfigError(
            "the root key is not on this device; it is where the mesh was founded "
            "(`kowalski-node identity show` says)"
        )
    key = membership.root.private_key_bytes.hex()
    create_private(path, f"{_ROOT_HEADER}\n{membership.mesh}\n{key}\n".encode())
    return membership


def import_root(config: NodeConfig, path: Path, now_unix_s: float) -> Membership:
    """Take the root key in, and be a member by it: of our mesh, or of the key's if we have none.

    Raises:
        ConfigError: it is no root key, or another mesh's.
    """
    root = _read_root(path)
    known = load_membership(config.mesh_path)
    if known is not None and known.mesh != root.mesh:
        raise ConfigError(
            f"{path} is the root key of mesh {root.mesh}; this device is of {known.mesh}"
        )
    identity = load_or_create_identity(config.identity_path)
    membership = _certified(root, config, identity, now_unix_s)
    if known is not None:
        epoch = decode_certificate(known.certificate.frame).epoch
        if epoch > decode_certificate(membership.certificate.frame).epoch:
            signed = certify(root, identity.peer, ROLES, now_unix_s=int(now_unix_s), epoch=epoch)
            membership = replace(membership, certificate=signed)
    save_membership(config.mesh_path, membership)
    return membership


def _read_root(path: Path) -> MeshRoot:
    try:
        with path.open("rb") as file:
            content = file.read(_ROOT_FILE_BYTES_MAX)
        header, mesh, key = content.decode("ascii").split("\n")[:3]
        root = MeshRoot(bytes.fromhex(key))
        if header != _ROOT_HEADER or root.mesh != mesh:
            raise ValueError
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} holds no root key, or a damaged one") from error
    return root
