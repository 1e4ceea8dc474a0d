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
from kowalski.mesh.conversation import Asker, Conversation
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.membership_certificates import CertificateError, Membership
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
    SignedCertificate,
)

log = structlog.get_logger(__name__)

MEMBERSHIP_PROTOCOL = "/kowalski/membership/1"
JOIN_PROTOCOL = "/kowalski/join/1"
NONCE_BYTES = 16

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


class MembershipError(KowalskiError):
    """The other side is no member, or says that we are none. Not weather: do not try again soon."""


class Admission:
    """Our half of every proof. `introduce` makes what we say of ourselves, as it is now."""

    def __init__(
        self,
        me: PeerId,
        membership: Membership,
        *,
        introduce: Callable[[], Hello],
        on_proven: Callable[[Proven], None],
        is_member: Callable[[PeerId], bool],
        unix_clock: Callable[[], float],
    ) -> None:
        self._me = me
        self._membership = membership
        self._introduce = introduce
        self._on_proven = on_proven
        self._is_member = is_member
        self._unix_clock = unix_clock

    async def ask(self, peer: PeerId, asker: Asker, *, timeout_s: float) -> None:
        """Prove ourselves to `peer` and have it do the same; `on_proven` hears of success.

        Who the other members are, and what we are, is not for strangers: we say it once the other
        side has proven itself.

        Raises:
            MembershipError: one of the two certificates does not hold.
            PeerUnreachableError, RemoteProtocolError, RequestFailedError: weather.
        """
        bare = self._introduce().model_copy(update={"members": (), "profile": None})
        try:
            async with asker.converse(
                peer, MEMBERSHIP_PROTOCOL, bare, open_timeout_s=timeout_s
            ) as asked:
                welcome = await asked.receive()
                if not isinstance(welcome, Welcome):
                    raise RemoteProtocolError(f"{welcome.KIND} in answer to a hello")
                proven = self._check(peer, welcome)
                await asked.send(self._introduce())
                ready = await asked.receive()
                if not isinstance(ready, Ready):
                    raise RemoteProtocolError(f"{ready.KIND} in place of ready")
        except CertificateError as no:
            raise MembershipError(f"{no.reason}: {no}") from no
        except RequestRefusedError as no:
            if no.reason != "not_member":
                raise PeerUnreachableError(f"it has no time for us: {no}") from no
            raise MembershipError(f"it refuses us: {no}") from no
        self._on_proven(proven)

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        """Serve the membership conversation, to strangers too."""
        match request:
            case Hello():
                return await self._welcome(conversation, request)
            case RoundTrip():
                if not self._is_member(conversation.peer):
                    raise RequestRefusedError("not_member", "prove your membership first")
                return request
            case _:
                raise RemoteProtocolError(f"{request.KIND} in a membership conversation")

    async def _welcome(self, conversation: Conversation, hello: Hello) -> Message:
        proven = self._check_asker(conversation.peer, hello)
        ours = self._introduce()
        await conversation.send(
            Welcome(
                certificate=ours.certificate,
                boot=ours.boot,
                name=ours.name,
                addresses=ours.addresses,
                members=ours.members,
                profile=ours.profile,
            )
        )
        match await _next_word(conversation):
            case Ready():
                self._on_proven(proven)
            case Hello() as more:
                self._on_proven(self._check_asker(conversation.peer, more))
            case other:
                raise RemoteProtocolError(f"{other.KIND} in place of ready")
        return Ready()

    def _check_asker(self, peer: PeerId, hello: Hello) -> Proven:
        try:
            return self._check(peer, hello)
        except CertificateError as no:
            log.warning("stranger-refused", peer=peer, why=no.reason)
            raise RequestRefusedError("not_member", f"{no.reason}: {no}") from no

    def _check(self, peer: PeerId, shown: Hello | Welcome) -> Proven:
        certificate = certificates.verify(
            shown.certificate,
            mesh=self._membership.mesh,
            peer=peer,
            now_unix_s=self._unix_clock(),
        )
        return Proven(
            peer,
            certificate,
            shown.certificate,
            shown.boot,
            shown.name,
            shown.addresses,
            shown.members,
            shown.profile,
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
    """Serves the join conversation where the mesh's root key is."""

    def __init__(
        self,
        me: PeerId,
        membership: Membership,
        invites: InviteBook,
        *,
        known_members: Callable[[], tuple[KnownMember, ...]],
        unix_clock: Callable[[], float],
    ) -> None:
        self._me = me
        self._membership = membership
        self._invites = invites
        self._known_members = known_members
        self._unix_clock = unix_clock

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        if not isinstance(request, JoinAsked):
            raise RemoteProtocolError(f"{request.KIND} in a join conversation")
        root = self._membership.root
        if root is None:
            raise RequestRefusedError("not_allowed", "this peer cannot let anybody in")
        joiner, nonce = conversation.peer, secrets.token_bytes(NONCE_BYTES)
        transcript = certificates.join_transcript(joiner, self._me, request.nonce, nonce)
        await conversation.send(
            MeshProven(root_key=root.public_key, signature=root.prove(transcript), nonce=nonce)
        )
        shown = await _next_word(conversation)
        if not isinstance(shown, InviteProven):
            raise RemoteProtocolError(f"{shown.KIND} in place of a proof")
        invite = self._invites.find(request.invite.hex())
        secret = bytes.fromhex(invite.secret) if invite else secrets.token_bytes(NONCE_BYTES)
        if not certificates.is_invite_proof(secret, transcript, shown.proof) or invite is None:
            log.warning("join-refused", peer=joiner)
            raise RequestRefusedError("not_allowed", "this invite is unknown, spent or expired")
        self._invites.spend(invite.id)
        log.info("joined", peer=joiner, name=shown.name, roles=invite.roles)
        now_unix_s = int(self._unix_clock())
        signed = root.certify(joiner, invite.roles, now_unix_s=now_unix_s)
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
            if not certificates.is_mesh_proof(
                line.mesh, shown.root_key, transcript, shown.signature
            ):
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
