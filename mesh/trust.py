"""Who belongs, who may ask for what, and who does no more: all that hangs on certificates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
import trio

from kowalski.mesh import conversation
from kowalski.mesh.admission import (
    JOIN_PROTOCOL,
    MEMBERSHIP_PROTOCOL,
    Admission,
    Doorkeeper,
    MembershipError,
    Proven,
)
from kowalski.mesh.certificate_book import CertificateBook
from kowalski.mesh.conversation import Asker
from kowalski.mesh.identity import Identity
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.membership_certificates import (
    Authority,
    Membership,
    authority_of,
    certify,
    decode_certificate,
    revoke,
)
from kowalski.mesh.renewal import Renewal
from kowalski.mesh.roster_gossip import RosterGossip
from kowalski.mesh.transport import Transport
from kowalski.protocol import ids
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.limits import ADDRESSES_MAX, MEMBERS_MAX
from kowalski.protocol.messages.membership import Welcome
from kowalski.protocol.messages.trust import KnownMember, Role, SignedCertificate

log = structlog.get_logger(__name__)

REFUSALS_LOGGED_MAX = 1000
"""Refusals that are told of, one for each peer, protocol and reason; all are counted."""

LOOK_AROUND_S = 60.0
"""How often it is noted that admins are here, and whose certificates have ended."""

SHOW_TIMEOUT_S = 5.0


def _forget_it(_membership: Membership) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Keeping:
    """What outlives the process.

    `identity` signs where its owner is an admin, `roster_path` holds revocations, `on_renewed` is
    told of a new certificate, `incarnation_path` holds how often we started or contradicted.
    """

    identity: Identity | None = None
    roster_path: Path | None = None
    on_renewed: Callable[[Membership], None] = _forget_it
    incarnation_path: Path | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What trust needs to know of the mesh around it."""

    introduce: Callable[[], Welcome]
    on_proven: Callable[[Proven], None]
    on_fallen: Callable[[PeerId, str], None]
    """Hears of a peer that is no member any more, and why, in a word."""
    members: Callable[[], dict[PeerId, tuple[Address, ...]]]
    """Those that are here, and where."""
    is_member: Callable[[PeerId], bool]
    """Whether a peer is one of them: asked at each request."""


class Trust:
    def __init__(
        self,
        transport: Transport,
        membership: Membership,
        invites: InviteBook,
        around: Surroundings,
        *,
        asker: Asker,
        unix_clock: Callable[[], float],
        keeping: Keeping,
    ) -> None:
        self.membership = membership
        self.refused: Counter[str] = Counter()
        """Requests that were refused because of who asked, by reason."""
        self._me = transport.peer
        self._transport = transport
        self._asker = asker
        self._around = around
        self._unix_clock = unix_clock
        self._keeping = keeping
        self._logged: set[tuple[PeerId, str, str]] = set()
        self._is_renewed = trio.Event()
        self.book = CertificateBook(self._me, membership.mesh, unix_clock, keeping.roster_path)
        self._enter_ourselves()
        self._roster = RosterGossip(
            transport,
            ids.topic(membership.mesh, "roster"),
            self.book,
            on_revoked=self._on_revoked,
        )
        self.admission = Admission(
            self.book,
            introduce=around.introduce,
            on_proven=self._on_proven,
            on_roster=self._roster.hear,
            on_refused=self.note_refusal,
            is_member=self.is_here,
        )
        self._doorkeeper = Doorkeeper(
            self._me,
            self.authority,
            invites,
            self.book,
            known_members=self.known_members,
            on_refused=self.note_refusal,
            is_member=self.is_here,
            unix_clock=unix_clock,
        )
        self._renewal = Renewal(
            self._me,
            ours=lambda: self.membership.certificate,
            adopt=self._adopt,
            authority=self.authority,
            admins=self._admins,
            asker=asker,
            unix_clock=unix_clock,
        )

    # --- who may ask ----------------------------------------------------------------------------

    def is_here(self, peer: PeerId) -> bool:
        return peer == self._me or self._around.is_member(peer)

    def check_asker(
        self, peer: PeerId, protocol: str, askers: frozenset[Role] | None = None
    ) -> None:
        """Let pass or refuse, at each request, where it takes effect.

        Raises:
            RequestRefusedError: `not_member`, or `not_allowed` where its certificate has none of
                the roles in `askers`.
        """
        if not self.is_here(peer):
            why = "prove your membership first"
            self.note_refusal(peer, protocol, "not_member", why)
            raise RequestRefusedError("not_member", why)
        if fault := self.book.fault(peer):
            self.note_refusal(peer, protocol, fault, "it is no member any more")
            raise RequestRefusedError("not_member", f"{fault}: you are no member any more")
        roles = self.book.roles(peer)
        if askers is not None and askers.isdisjoint(roles):
            needed, has = " or ".join(sorted(askers)), ", ".join(roles) or "none"
            why = f"this needs role {needed}; yours: {has}"
            self.note_refusal(peer, protocol, "not_allowed", why)
            raise RequestRefusedError("not_allowed", why)

    def note_refusal(self, peer: PeerId, protocol: str, reason: str, why: str) -> None:
        """Count it; tell of it once."""
        self.refused[reason] += 1
        key = (peer, reason, protocol)
        if key not in self._logged and len(self._logged) < REFUSALS_LOGGED_MAX:
            self._logged.add(key)
            log.warning("refused", peer=peer, protocol=protocol, reason=reason, why=why)

    # --- who may stay ---------------------------------------------------------------------------

    def authority(self) -> Authority | None:
        """What we may let others in with, and put them out; None for most members."""
        if self.is_revoked:
            return None
        if self._keeping.identity is None:
            return self.membership.root
        return authority_of(self.membership, self._keeping.identity)

    def revoke(self, peer: PeerId, why: str) -> None:
        """Put a member out: here at once, everywhere as the word spreads.

        Raises:
            RequestRefusedError: `not_allowed`, we are no admin, or it is ourselves.
        """
        authority = self.authority()
        if authority is None:
            raise RequestRefusedError("not_allowed", "only the founding node and admins revoke")
        if peer == self._me:
            raise RequestRefusedError("not_allowed", "a node does not revoke itself; it leaves")
        known = self.book.certificate(peer)
        is_revoked = known is None or self.book.fault(peer) == "revoked"
        epoch = self.book.next_epoch(peer) if known is None or is_revoked else known.epoch
        now_unix_s = int(self._unix_clock())
        self._roster.revoke(revoke(authority, peer, epoch=epoch, now_unix_s=now_unix_s, why=why))

    @property
    def is_revoked(self) -> bool:
        """Somebody who may has put us out."""
        return self.book.fault(self._me) in {"revoked", "issuer_revoked"}

    def _on_revoked(self, peer: PeerId) -> None:
        if peer == self._me and self.membership.root is not None:
            self._come_back(self.membership.root)
        elif peer == self._me:
            log.error("we-are-revoked", cure="ask for a new invite, and join again")
        else:
            self._around.on_fallen(peer, "revoked")

    def _come_back(self, root: Authority) -> None:
        """An admin has put us out, but we have the root key: no admin's word stands above it."""
        log.error("we-were-revoked", cure="revoke the admin who did it, if it was no mistake")
        ours = decode_certificate(self.membership.certificate.frame)
        now_unix_s = int(self._unix_clock())
        epoch = self.book.next_epoch(self._me)
        self._adopt(certify(root, self._me, ours.roles, now_unix_s=now_unix_s, epoch=epoch))

    def known_members(self) -> tuple[KnownMember, ...]:
        """The members we have seen, ourselves included, for a peer to meet."""
        ours = KnownMember(
            certificate=self.membership.certificate,
            addresses=self._transport.addresses[:ADDRESSES_MAX],
        )
        others = (
            KnownMember(certificate=signed, addresses=addresses)
            for peer, addresses in self._around.members().items()
            if not self.book.fault(peer) and (signed := self.book.signed(peer)) is not None
        )
        return (ours, *others)[: MEMBERS_MAX // 2]

    # --- our own certificate --------------------------------------------------------------------

    def _enter_ourselves(self) -> None:
        ours = self.membership.certificate
        self.book.enter(self._me, ours, decode_certificate(ours.frame))

    def _admins(self) -> tuple[PeerId, ...]:
        members = self._around.members()
        return tuple(peer for peer in members if "admin" in self.book.roles(peer))

    def _adopt(self, signed: SignedCertificate) -> None:
        self.membership = replace(self.membership, certificate=signed)
        self._enter_ourselves()
        self._keeping.on_renewed(self.membership)
        self._is_renewed.set()

    def _on_proven(self, proven: Proven) -> None:
        self._around.on_proven(proven)
        self.book.see(proven.peer)
        if "admin" in proven.certificate.roles:
            self._renewal.look()

    async def _show_renewed(self) -> None:
        """Show a new certificate of ours to those who know the old one."""
        while True:
            await self._is_renewed.wait()
            self._is_renewed = trio.Event()
            for peer in self._around.members():
                try:
                    with trio.move_on_after(SHOW_TIMEOUT_S):
                        await self.admission.ask(peer, self._asker, timeout_s=SHOW_TIMEOUT_S)
                except (
                    MembershipError,
                    PeerUnreachableError,
                    RemoteProtocolError,
                    RequestFailedError,
                ) as no:
                    log.debug("certificate-not-shown", peer=peer, why=str(no))

    async def _look_around(self) -> None:
        """Note that admins are here, and let go of members whose certificates have ended."""
        while True:
            await trio.sleep(LOOK_AROUND_S)
            for admin in self._admins():
                self.book.see(admin)
            for peer in tuple(self._around.members()):
                if fault := self.book.fault(peer):
                    self._around.on_fallen(peer, fault)

    # --- the tasks of an open mesh --------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Answer strangers, gossip revocations, renew ourselves, until cancelled."""
        for protocol, answer in (
            (MEMBERSHIP_PROTOCOL, self.admission.answer),
            (JOIN_PROTOCOL, self._doorkeeper.answer),
        ):
            limits = conversation.FOR_STRANGERS
            conversation.serve(self._transport, protocol, answer, limits=limits)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._roster.listen)
            nursery.start_soon(self._roster.announce)
            nursery.start_soon(self._renewal.run)
            nursery.start_soon(self._show_renewed)
            nursery.start_soon(self._look_around)
            task_status.started()
