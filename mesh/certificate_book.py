"""The certificates of this mesh that were checked, by peer: whose word counts."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from kowalski.mesh.membership_certificates import CertificateError, is_current, verify
from kowalski.protocol import codec
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.ids import MeshId, PeerId
from kowalski.protocol.messages.trust import Certificate, KnownMember, SignedCertificate

log = structlog.get_logger(__name__)

PEERS_MAX = 2048


class CertificateBook:
    def __init__(self, me: PeerId, mesh: MeshId, unix_clock: Callable[[], float]) -> None:
        self._me = me
        self._mesh = mesh
        self._unix_clock = unix_clock
        self._signed: dict[PeerId, SignedCertificate] = {}
        self._checked: dict[PeerId, Certificate] = {}
        self._names: dict[PeerId, str] = {}

    def enter(
        self, peer: PeerId, signed: SignedCertificate, checked: Certificate, name: str = ""
    ) -> None:
        """Remember a certificate that the caller has verified; the oldest makes room for it."""
        self._checked.pop(peer, None)
        if len(self._checked) >= PEERS_MAX:
            oldest = next(iter(self._checked))
            del self._checked[oldest], self._signed[oldest]
            self._names.pop(oldest, None)
        self._signed[peer] = signed
        self._checked[peer] = checked
        if name:
            self._names[peer] = name

    def meet(self, member: KnownMember) -> PeerId | None:
        """A peer told us of another: believe the certificate, not the word.

        One that is older than what we have changes nothing, nor does any when the book is full.
        """
        try:
            claimed = codec.decode(member.certificate.frame)
            if not isinstance(claimed, Certificate) or claimed.peer == self._me:
                return None
            certificate = verify(
                member.certificate,
                mesh=self._mesh,
                peer=claimed.peer,
                now_unix_s=self._unix_clock(),
            )
        except (CertificateError, RemoteProtocolError) as no:
            log.debug("introduced-stranger", why=str(no))
            return None
        known = self._checked.get(certificate.peer)
        is_news = known is None or _age(certificate) > _age(known)
        if is_news and (known is not None or len(self._checked) < PEERS_MAX):
            self.enter(certificate.peer, member.certificate, certificate)
        return certificate.peer

    def admits(self, origin: PeerId) -> bool:
        """Whether `origin` has a certificate that holds now."""
        certificate = self._checked.get(origin)
        return certificate is not None and is_current(certificate, self._unix_clock())

    def roles(self, peer: PeerId) -> tuple[str, ...]:
        """What its certificate lets it ask for; nothing for strangers."""
        return self._checked[peer].roles if self.admits(peer) else ()

    def signed(self, peer: PeerId) -> SignedCertificate | None:
        return self._signed.get(peer)

    def name(self, peer: PeerId) -> str:
        return self._names.get(peer, peer[-8:])


def _age(certificate: Certificate) -> tuple[int, int]:
    """Greater for the newer of two certificates of one peer."""
    return certificate.epoch, certificate.not_after_unix_s
