"""Whose word counts in this mesh: certificates that were checked, and what was revoked since."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from kowalski.mesh.core.roster import RevocationList
from kowalski.mesh.membership_certificates import (
    CertificateError,
    Rules,
    decode_certificate,
    is_current,
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

EPOCH_MAX = 2**53
"""Whoever is revoked at this epoch can never be invited again; it needs a new identity."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A certificate that was checked, and that of the admin who made it."""

    signed: SignedCertificate
    certificate: Certificate
    issuer: Certificate | None


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
        self._entries: dict[PeerId, _Entry] = {}
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
        """Remember a certificate that was checked; the oldest makes room for it."""
        self._entries.pop(peer, None)
        if len(self._entries) >= PEERS_MAX:
            oldest = next(name for name in self._entries if name != self._me)
            del self._entries[oldest]
            self._names.pop(oldest, None)
        issuer = decode_certificate(signed.issuer.frame) if signed.issuer else None
        self._entries[peer] = _Entry(signed, checked, issuer)
        if name:
            self._names[peer] = name

    def meet(self, member: KnownMember) -> PeerId | None:
        """A peer told us of another: believe the certificate, not the word.

        One that is older than what we have changes nothing, nor does any when the book is full.
        """
        try:
            peer = decode_certificate(member.certificate.frame).peer
            if peer == self._me:
                return None
            known = self._entries.get(peer)
            if known is not None and known.signed == member.certificate:
                return None if self.fault(peer) else peer
            certificate = self.check(peer, member.certificate)
        except CertificateError as no:
            log.debug("introduced-stranger", why=str(no))
            return None
        is_news = known is None or _age(certificate) > _age(known.certificate)
        if is_news and (known is not None or len(self._entries) < PEERS_MAX):
            self.enter(peer, member.certificate, certificate)
        return peer

    def admits(self, origin: PeerId) -> bool:
        """Whether gossip of `origin` is to be decoded at all."""
        return not self.fault(origin)

    def fault(self, peer: PeerId) -> str:
        """Why it is no member now, in a word: as of `verify`, or `not_member`; empty if it is.

        What was checked once holds until something changes, so this costs no signature.
        """
        entry = self._entries.get(peer)
        if entry is None:
            return "not_member"
        certificate, issuer = entry.certificate, entry.issuer
        if self._revocations.revoked:
            if self._is_revoked(peer, certificate.epoch):
                return "revoked"
            if issuer is not None and self._is_revoked(issuer.peer, issuer.epoch):
                return "issuer_revoked"
        # Each message of gossip asks this: what needs no clock comes first.
        if self._forgives_expiry(certificate) or is_current(certificate, self._unix_clock()):
            return ""
        return "expired"

    def roles(self, peer: PeerId) -> tuple[str, ...]:
        """What its certificate lets it ask for; nothing for those who are no members now."""
        entry = self._entries.get(peer)
        return () if entry is None or self.fault(peer) else entry.certificate.roles

    def certificate(self, peer: PeerId) -> Certificate | None:
        entry = self._entries.get(peer)
        return entry.certificate if entry else None

    def signed(self, peer: PeerId) -> SignedCertificate | None:
        entry = self._entries.get(peer)
        return entry.signed if entry else None

    def name(self, peer: PeerId) -> str:
        return self._names.get(peer, peer[-8:])

    # --- revocations ----------------------------------------------------------------------------

    @property
    def roster(self) -> Roster:
        return self._revocations.message()

    @property
    def roster_version(self) -> int:
        return self._revocations.version

    def revocation(self, peer: PeerId) -> SignedRevocation | None:
        revoked = self._revocations.revoked.get(peer)
        return revoked.signed if revoked else None

    def next_epoch(self, peer: PeerId) -> int:
        """Of a new certificate for `peer`: above whatever was revoked."""
        revoked = self._revocations.revoked.get(peer)
        return min(revoked.revocation.epoch + 1, EPOCH_MAX) if revoked else 0

    def hear_roster(self, roster: Roster) -> tuple[PeerId, ...]:
        """Take in what is news and holds; the peers that are no members any more for it.

        Among them are those whom a revoked admin had let in.
        """
        told = {one.signed.signature for one in self._revocations.revoked.values()}
        news = {self._hear(one) for one in roster.revocations if one.signature not in told} - {None}
        if not news:
            return ()
        self._save()
        unknown = [peer for peer in news if peer is not None and peer not in self._entries]
        fallen = [
            peer
            for peer, entry in self._entries.items()
            if (peer in news or (entry.issuer is not None and entry.issuer.peer in news))
            and self.fault(peer) in {"revoked", "issuer_revoked"}
        ]
        return (*fallen, *unknown)

    def _hear(self, signed: SignedRevocation) -> PeerId | None:
        try:
            revocation = verify_revocation(signed, mesh=self._mesh)
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

    def see(self, peer: PeerId) -> None:
        """`peer` is here now. Admins with a current certificate could renew those of others."""
        certificate = self.certificate(peer)
        if certificate is None or peer == self._me or "admin" not in self.roles(peer):
            return
        now = int(self._unix_clock())
        if not is_current(certificate, now):
            return
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


def _age(certificate: Certificate) -> tuple[int, int]:
    """Greater for the newer of two certificates of one peer."""
    return certificate.epoch, certificate.not_after_unix_s
