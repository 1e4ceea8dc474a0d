"""Whose word counts in this mesh: certificates that were checked, and what was revoked since."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import structlog

from kowalski.mesh.core.roster import RevocationList
from kowalski.mesh.membership_certificates import (
    CertificateError,
    Rules,
    decode_certificate,
    verify,
    verify_revocation,
)
from kowalski.mesh.private_files import write_private
from kowalski.protocol import codec
from kowalski.protocol.errors import ConfigError, RemoteProtocolError
from kowalski.protocol.ids import MeshId, PeerId
from kowalski.protocol.messages.trust import (
    Certificate,
    KnownMember,
    Roster,
    SignedCertificate,
    SignedRevocation,
)

log = structlog.get_logger(__name__)

PEERS_MAX = 2048
ADMIN_SEEN_STEP_S = 3600
"""How exactly it is kept on disk when an admin was last seen."""


class CertificateBook:
    """With a `path` revocations survive a restart; without one they last as long as the book."""

    def __init__(
        self,
        me: PeerId,
        mesh: MeshId,
        unix_clock: Callable[[], float],
        path: Path | None = None,
    ) -> None:
        self._me = me
        self._mesh = mesh
        self._unix_clock = unix_clock
        self._path = path
        self._signed: dict[PeerId, SignedCertificate] = {}
        self._checked: dict[PeerId, Certificate] = {}
        self._names: dict[PeerId, str] = {}
        self._revocations = RevocationList()
        self._admin_seen_unix_s = 0
        self.rules = Rules(self._is_revoked, self._forgives_expiry)
        self._load()

    # --- certificates ---------------------------------------------------------------------------

    def check(self, peer: PeerId, signed: SignedCertificate) -> Certificate:
        """The certificate, if it makes `peer` a member now. Raises CertificateError."""
        now_unix_s = self._unix_clock()
        return verify(signed, mesh=self._mesh, peer=peer, now_unix_s=now_unix_s, rules=self.rules)

    def enter(
        self, peer: PeerId, signed: SignedCertificate, checked: Certificate, name: str = ""
    ) -> None:
        """Remember a certificate that was checked."""
        if peer not in self._checked and len(self._checked) >= PEERS_MAX:
            return
        self._signed[peer] = signed
        self._checked[peer] = checked
        if name:
            self._names[peer] = name
        if "admin" in checked.roles and peer != self._me:
            self._see_admin()

    def meet(self, member: KnownMember) -> PeerId | None:
        """A peer told us of another: believe the certificate, not the word."""
        try:
            peer = decode_certificate(member.certificate.frame).peer
            if peer == self._me:
                return None
            self.enter(peer, member.certificate, self.check(peer, member.certificate))
        except CertificateError as no:
            log.debug("introduced-stranger", why=str(no))
            return None
        return peer

    def admits(self, origin: PeerId) -> bool:
        """Whether gossip of `origin` is to be decoded at all."""
        certificate = self._checked.get(origin)
        if certificate is None or self._is_revoked(origin, certificate.epoch):
            return False
        is_over = self._unix_clock() > certificate.not_after_unix_s
        return not is_over or self._forgives_expiry(certificate)

    def roles(self, peer: PeerId) -> tuple[str, ...]:
        """What its certificate lets it ask for; nothing for strangers and the revoked."""
        certificate = self._checked.get(peer)
        if certificate is None or self._is_revoked(peer, certificate.epoch):
            return ()
        return certificate.roles

    def certificate(self, peer: PeerId) -> Certificate | None:
        return self._checked.get(peer)

    def signed(self, peer: PeerId) -> SignedCertificate:
        return self._signed[peer]

    def name(self, peer: PeerId) -> str:
        return self._names.get(peer, peer[-8:])

    # --- revocations ----------------------------------------------------------------------------

    @property
    def roster(self) -> Roster:
        return self._revocations.message()

    @property
    def roster_version(self) -> int:
        return self._revocations.version

    def next_epoch(self, peer: PeerId) -> int:
        """Of a new certificate for `peer`: above whatever was revoked."""
        revoked = self._revocations.revoked.get(peer)
        return revoked.revocation.epoch + 1 if revoked else 0

    def hear_roster(self, roster: Roster) -> tuple[PeerId, ...]:
        """Take in what is news and holds; the peers that it revokes."""
        news = [peer for one in roster.revocations if (peer := self._hear(one))]
        if news:
            self._save()
        return tuple(news)

    def _hear(self, signed: SignedRevocation) -> PeerId | None:
        try:
            revocation = verify_revocation(signed, mesh=self._mesh, rules=self.rules)
        except CertificateError as no:
            log.warning("bad-revocation", why=no.reason)
            return None
        before = self._revocations
        self._revocations = before.hear(revocation, signed)
        return None if self._revocations is before else revocation.peer

    def _is_revoked(self, peer: PeerId, epoch: int) -> bool:
        return self._revocations.is_revoked(peer, epoch)

    # --- expiry ---------------------------------------------------------------------------------

    def _forgives_expiry(self, certificate: Certificate) -> bool:
        """No admin was here since it ended, so nobody could have renewed it."""
        return self._admin_seen_unix_s <= certificate.not_after_unix_s

    def _see_admin(self) -> None:
        now = int(self._unix_clock())
        is_worth_a_write = now >= self._admin_seen_unix_s + ADMIN_SEEN_STEP_S
        self._admin_seen_unix_s = max(now, self._admin_seen_unix_s)
        if is_worth_a_write:
            self._save()

    # --- the file -------------------------------------------------------------------------------

    def _save(self) -> None:
        if self._path is None:
            return
        roster = codec.encode(self.roster).hex()
        text = json.dumps({"admin_seen_unix_s": self._admin_seen_unix_s, "roster": roster})
        try:
            write_private(self._path, text.encode())
        except ConfigError as error:
            log.warning("roster-not-saved", error=str(error))

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            raw = json.loads(self._path.read_bytes())
            self._admin_seen_unix_s = int(raw["admin_seen_unix_s"])
            roster = codec.decode(bytes.fromhex(raw["roster"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, RemoteProtocolError) as error:
            raise ConfigError(
                f"roster file {self._path} is damaged ({error}); delete it: the other members "
                "tell it again"
            ) from error
        if isinstance(roster, Roster):
            for one in roster.revocations:
                self._hear(one)
