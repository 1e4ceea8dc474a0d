"""Keeping our own certificate alive, while any admin is there to renew it."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from kowalski.mesh.admission import renew
from kowalski.mesh.conversation import Asker
from kowalski.mesh.core.renewal import due_at_unix_s
from kowalski.mesh.membership_certificates import (
    Authority,
    CertificateError,
    certify,
    decode_certificate,
)
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.trust import Certificate, SignedCertificate

log = structlog.get_logger(__name__)

LOOK_S = 600.0
"""How often to look whether it is time."""


class Renewal:
    """`ours` is the certificate as it is, `adopt` takes a new one, `admins` are connected now."""

    def __init__(
        self,
        me: PeerId,
        *,
        ours: Callable[[], SignedCertificate],
        adopt: Callable[[SignedCertificate], None],
        authority: Callable[[], Authority | None],
        admins: Callable[[], tuple[PeerId, ...]],
        asker: Asker,
        unix_clock: Callable[[], float],
    ) -> None:
        self._me = me
        self._ours = ours
        self._adopt = adopt
        self._authority = authority
        self._admins = admins
        self._asker = asker
        self._unix_clock = unix_clock
        self._days_told: float | None = None
        self._looks = trio.Event()

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled."""
        while True:
            certificate = decode_certificate(self._ours().frame)
            if self._unix_clock() >= due_at_unix_s(certificate):
                await self._renew()
            self._looks = trio.Event()
            with trio.move_on_after(LOOK_S):
                await self._looks.wait()

    def look(self) -> None:
        """Look now whether it is time: an admin has come."""
        self._looks.set()

    async def _renew(self) -> None:
        certificate = decode_certificate(self._ours().frame)
        authority = self._authority()
        if authority is not None and all(authority.may_grant(role) for role in certificate.roles):
            self._adopt(
                certify(
                    authority,
                    self._me,
                    certificate.roles,
                    now_unix_s=int(self._unix_clock()),
                    epoch=certificate.epoch,
                )
            )
            return
        for admin in self._admins():
            try:
                signed = await renew(certificate, admin, self._asker, unix_clock=self._unix_clock)
            except (
                PeerUnreachableError,
                RequestRefusedError,
                RequestFailedError,
                RemoteProtocolError,
                CertificateError,
            ) as error:
                log.info("not-renewed", admin=admin, why=str(error))
            else:
                self._adopt(signed)
                return
        self._complain(certificate)

    def _complain(self, certificate: Certificate) -> None:
        """Once a day: it may take a hundred of them."""
        days = (certificate.not_after_unix_s - self._unix_clock()) / 86400
        if self._days_told is not None and days > self._days_told - 1:
            return
        self._days_told = days
        log.warning(
            "certificate-not-renewed",
            days_left=round(days, 1),
            cure="start the node that founded the mesh, or one with role admin",
        )
