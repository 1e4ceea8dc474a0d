"""Letting peers in: proving membership on a connection, and joining with an invite.

What is said in which order stands in `protocol.messages.membership` and `.trust`. Noise has proven
the peer id of the other side before any of this; here it is tied to a certificate.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from kowalski.mesh import membership_certificates as certificates
from kowalski.mesh.certificate_book import CertificateBook
from kowalski.mesh.conversation import Asker, Conversation
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.membership_certificates import (
    Authority,
    CertificateError,
    Membership,
    Seal,
)
from kowalski.protocol.errors import (
    ConfigError,
    KowalskiError,
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.membership import Hello, Ready, RoundTrip, Welcome
from kowalski.protocol.messages.telemetry import Profile
from kowalski.protocol.messages.trust import (
    Certificate,
    InviteProven,
    JoinAsked,
    JoinGranted,
    KnownMember,
    MeshProven,
    RenewalAsked,
    Role,
    Roster,
    SignedCertificate,
)

log = structlog.get_logger(__name__)

MEMBERSHIP_PROTOCOL = "/kowalski/membership/1"
JOIN_PROTOCOL = "/kowalski/join/1"
NONCE_BYTES = 16
REFUSES_US = "it refuses us: "
"""How the complaint begins about a peer that would not take our certificate."""

RENEWAL_TIMEOUT_S = 5.0

NEXT_WORD_S = 10.0
"""How long we wait for what the other side has to say next in a proof."""


@dataclass(frozen=True, slots=True)
class Proven:
    """What a peer showed of itself, checked."""

    peer: PeerId
    certificate: Certificate
    signed: SignedCertificate
    boot: str
    name: str
    addresses: tuple[Address, ...]
    members: tuple[KnownMember, ...]
    profile: Profile | None
    incarnation: int


OnRefused = Callable[[PeerId, str, str, str], None]
"""Hears of each refusal: who, of which protocol, the reason in a word, and in a sentence."""


class MembershipError(KowalskiError):
    """The other side is no member, or says that we are none. Not weather: do not try again soon."""


class Admission:
    """Our half of every proof. `introduce` makes all that we say of ourselves, as it is now.

    What we know of others is said only to a peer that has proven that it belongs.
    """

    def __init__(
        self,
        book: CertificateBook,
        *,
        introduce: Callable[[], Welcome],
        on_proven: Callable[[Proven], None],
        on_roster: Callable[[Roster], None],
        on_refused: OnRefused,
        is_member: Callable[[PeerId], bool],
    ) -> None:
        self._book = book
        self._introduce = introduce
        self._on_proven = on_proven
        self._on_roster = on_roster
        self._on_refused = on_refused
        self._is_member = is_member

    async def ask(self, peer: PeerId, asker: Asker, *, timeout_s: float) -> None:
        """Prove ourselves to `peer` and have it do the same; `on_proven` hears of success.

        Who the other members are, and what we are, is not for strangers: we say it once the other
        side has proven itself.

        Raises:
            MembershipError: one of the two certificates does not hold.
            PeerUnreachableError, RemoteProtocolError, RequestFailedError: weather.
        """
        ours = self._introduce()
        hello = Hello(
            certificate=ours.certificate, boot=ours.boot, name=ours.name, addresses=ours.addresses
        )
        try:
            async with asker.converse(
                peer, MEMBERSHIP_PROTOCOL, hello, open_timeout_s=timeout_s
            ) as asked:
                shown = await asked.receive()
                if isinstance(shown, Ready) and shown.roster is not None:
                    self._on_roster(shown.roster)
                    shown = await asked.receive()
                if not isinstance(shown, Welcome):
                    raise RemoteProtocolError(f"{shown.KIND} in answer to a hello")
                try:
                    proven = self._check(peer, shown, shown)
                except CertificateError as no:
                    await self._say_revoked(asked, no)
                    raise
                ready = Ready(
                    members=ours.members,
                    profile=ours.profile,
                    roster=ours.roster,
                    incarnation=ours.incarnation,
                )
                await asked.send(ready)
                last = await asked.receive()
                if not isinstance(last, Ready):
                    raise RemoteProtocolError(f"{last.KIND} in place of ready")
        except CertificateError as no:
            self._on_refused(peer, MEMBERSHIP_PROTOCOL, no.reason, str(no))
            raise MembershipError(f"{no.reason}: {no}") from no
        except RequestRefusedError as no:
            if no.reason != "not_member":
                raise PeerUnreachableError(f"it has no time for us: {no}") from no
            raise MembershipError(f"{REFUSES_US}{no}") from no
        self._on_proven(proven)

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        """Serve the membership conversation, to strangers too."""
        match request:
            case Hello():
                return await self._welcome(conversation, request)
            case RoundTrip():
                if not self._is_member(conversation.peer):
                    why = "prove your membership first"
                    self._on_refused(conversation.peer, MEMBERSHIP_PROTOCOL, "not_member", why)
                    raise RequestRefusedError("not_member", why)
                return request
            case _:
                raise RemoteProtocolError(f"{request.KIND} in a membership conversation")

    async def _welcome(self, conversation: Conversation, hello: Hello) -> Message:
        peer = conversation.peer
        try:
            self._book.check(peer, hello.certificate)
            await conversation.send(self._introduce())
            ready = await _next_word(conversation)
            if not isinstance(ready, Ready):
                raise RemoteProtocolError(f"{ready.KIND} in place of ready")
            proven = self._check(peer, hello, ready)
        except CertificateError as no:
            self._on_refused(peer, MEMBERSHIP_PROTOCOL, no.reason, str(no))
            await self._say_revoked(conversation, no)
            raise RequestRefusedError("not_member", f"{no.reason}: {no}") from no
        self._on_proven(proven)
        return Ready()

    async def _say_revoked(self, conversation: Conversation, no: CertificateError) -> None:
        """Show a revoked peer its own revocation, of which nobody would tell it any more."""
        signed = self._book.revocation(conversation.peer)
        if no.reason == "revoked" and signed is not None:
            await conversation.send(Ready(roster=Roster(revocations=(signed,))))

    def _check(self, peer: PeerId, who: Hello | Welcome, what: Welcome | Ready) -> Proven:
        """What a peer has shown; its certificate must hold by what both know of revocations."""
        certificate = self._book.check(peer, who.certificate)
        if what.roster is not None:  # of strangers it is not even read
            self._on_roster(what.roster)
            certificate = self._book.check(peer, who.certificate)
        return Proven(
            peer,
            certificate,
            who.certificate,
            who.boot,
            who.name,
            who.addresses,
            what.members,
            what.profile,
            what.incarnation,
        )


async def _next_word(conversation: Conversation) -> Message:
    """What comes next; whom we wait for may be a stranger.

    Raises:
        RequestFailedError: `timeout`.
    """
    with trio.move_on_after(NEXT_WORD_S):
        return await conversation.receive()
    raise RequestFailedError("timeout", f"nothing said for {NEXT_WORD_S:g} s")


# --- joining ------------------------------------------------------------------------------------


class Doorkeeper:
    """Serves the join conversation where somebody may let others in: the root, and admins."""

    def __init__(
        self,
        me: PeerId,
        authority: Callable[[], Authority | None],
        invites: InviteBook,
        book: CertificateBook,
        *,
        known_members: Callable[[], tuple[KnownMember, ...]],
        on_refused: OnRefused,
        is_member: Callable[[PeerId], bool],
        unix_clock: Callable[[], float],
    ) -> None:
        self._me = me
        self._authority = authority
        self._invites = invites
        self._book = book
        self._known_members = known_members
        self._on_refused = on_refused
        self._is_member = is_member
        self._unix_clock = unix_clock

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        authority = self._authority()
        if authority is None:
            why = "this peer cannot let anybody in"
            raise self._refusal(conversation.peer, "not_allowed", "not_allowed", why)
        match request:
            case JoinAsked():
                return await self._let_in(conversation, request, authority)
            case RenewalAsked():
                return self._renew(conversation.peer, authority)
            case _:
                raise RemoteProtocolError(f"{request.KIND} in a join conversation")

    async def _let_in(
        self, conversation: Conversation, request: JoinAsked, authority: Authority
    ) -> Message:
        joiner, nonce = conversation.peer, secrets.token_bytes(NONCE_BYTES)
        transcript = certificates.join_transcript(joiner, self._me, request.nonce, nonce)
        seal = certificates.mesh_proof(authority, transcript)
        await conversation.send(
            MeshProven(
                root_key=seal.root_key, signature=seal.signature, nonce=nonce, issuer=seal.issuer
            )
        )
        shown = await _next_word(conversation)
        if not isinstance(shown, InviteProven):
            raise RemoteProtocolError(f"{shown.KIND} in place of a proof")
        invite = self._invites.find(request.invite.hex())
        secret = bytes.fromhex(invite.secret) if invite else secrets.token_bytes(NONCE_BYTES)
        if not certificates.is_invite_proof(secret, transcript, shown.proof) or invite is None:
            raise self._refusal(
                joiner, "bad_invite", "not_allowed", "this invite is unknown, spent or expired"
            )
        self._invites.spend(invite.id)
        log.info("joined", peer=joiner, name=shown.name, roles=invite.roles)
        return self._grant(joiner, invite.roles, authority, self._book.next_epoch(joiner))

    def _renew(self, member: PeerId, authority: Authority) -> Message:
        """The same again, for longer. A certificate that has ended is renewed, too."""
        known = self._book.certificate(member)
        fault = self._book.fault(member)
        if known is None or fault not in {"", "expired"} or not self._is_member(member):
            why = "prove your membership first"
            raise self._refusal(member, fault or "not_member", "not_member", why)
        if not all(authority.may_grant(role) for role in known.roles):
            why = "only the node with the root key renews admins"
            raise self._refusal(member, "not_allowed", "not_allowed", why)
        log.info("renewed", peer=member)
        return self._grant(member, known.roles, authority, known.epoch)

    def _refusal(self, peer: PeerId, counted_as: str, reason: str, why: str) -> RequestRefusedError:
        self._on_refused(peer, JOIN_PROTOCOL, counted_as, why)
        return RequestRefusedError(reason, why)

    def _grant(
        self, peer: PeerId, roles: tuple[Role, ...], authority: Authority, epoch: int
    ) -> JoinGranted:
        now_unix_s = int(self._unix_clock())
        signed = certificates.certify(authority, peer, roles, now_unix_s=now_unix_s, epoch=epoch)
        return JoinGranted(certificate=signed, members=self._known_members())


async def join(
    me: PeerId,
    name: str,
    line: JoinLine,
    asker: Asker,
    *,
    unix_clock: Callable[[], float],
    timeout_s: float = 20.0,
) -> Membership:
    """Become a member through the inviter, to whom a connection is open already.

    Raises:
        ConfigError: it is another mesh, the invite is no good, or what we got does not hold.
        PeerUnreachableError: weather, or no end within `timeout_s`.
    """
    with trio.move_on_after(timeout_s):
        return await _join(me, name, line, asker, unix_clock)
    raise PeerUnreachableError(f"the inviting peer did not let us in within {timeout_s:g} s")


async def _join(
    me: PeerId, name: str, line: JoinLine, asker: Asker, unix_clock: Callable[[], float]
) -> Membership:
    nonce = secrets.token_bytes(NONCE_BYTES)
    request = JoinAsked(invite=line.invite, nonce=nonce)
    try:
        async with asker.converse(line.inviter, JOIN_PROTOCOL, request) as asked:
            shown = await asked.receive()
            if not isinstance(shown, MeshProven):
                raise RemoteProtocolError(f"{shown.KIND} in place of a proof")
            transcript = certificates.join_transcript(me, line.inviter, nonce, shown.nonce)
            seal = Seal(shown.root_key, shown.signature, shown.issuer)
            if not certificates.is_mesh_proof(line.mesh, line.inviter, transcript, seal):
                raise ConfigError("the peer that answered cannot prove that it is of this mesh")
            proof = certificates.invite_proof(line.secret, transcript)
            await asked.send(InviteProven(proof=proof, name=name))
            granted = await asked.receive()
            if not isinstance(granted, JoinGranted):
                raise RemoteProtocolError(f"{granted.KIND} in place of a certificate")
        certificates.verify(granted.certificate, mesh=line.mesh, peer=me, now_unix_s=unix_clock())
    except (RequestRefusedError, RequestFailedError) as no:
        raise ConfigError(f"the invite was refused ({no}); ask for a new one") from no
    except (CertificateError, RemoteProtocolError) as broken:
        raise ConfigError(f"joining failed: {broken}") from broken
    return Membership(line.mesh, granted.certificate, None)


async def renew(
    ours: Certificate, admin: PeerId, asker: Asker, *, unix_clock: Callable[[], float]
) -> SignedCertificate:
    """Our certificate anew, from a connected admin.

    Raises:
        PeerUnreachableError, RequestRefusedError, RequestFailedError, RemoteProtocolError: weather.
        CertificateError: what came does not hold, or is no better (`other_roles`, `older`).
    """
    granted = await asker.request(
        admin, JOIN_PROTOCOL, RenewalAsked(), JoinGranted, timeout_s=RENEWAL_TIMEOUT_S
    )
    certificate = certificates.verify(
        granted.certificate, mesh=ours.mesh, peer=ours.peer, now_unix_s=unix_clock()
    )
    if certificate.roles != ours.roles:
        raise CertificateError("other_roles", f"renewed with roles {certificate.roles}")
    if certificate.epoch < ours.epoch or certificate.not_after_unix_s <= ours.not_after_unix_s:
        raise CertificateError("older", "what came is no newer than ours")
    return granted.certificate
