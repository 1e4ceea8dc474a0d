from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from kowalski.mesh import membership_certificates as certificates
from kowalski.mesh.admission import (
    JOIN_PROTOCOL,
    MEMBERSHIP_PROTOCOL,
    NEXT_WORD_S,
    Admission,
    Doorkeeper,
    MembershipError,
    Proven,
    join,
)
from kowalski.mesh.certificate_book import CertificateBook
from kowalski.mesh.conversation import Asker, Conversation, open_asker, serve
from kowalski.mesh.invites import Invite, InviteBook
from kowalski.mesh.loopback_transport import (
    LoopbackTransport,
    open_loopback_network,
)
from kowalski.mesh.membership_certificates import (
    CERTIFICATE_LIFE_S,
    CLOCK_GRACE_S,
    Membership,
    invite_proof,
    join_transcript,
)
from kowalski.protocol import codec
from kowalski.protocol.errors import (
    ConfigError,
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.membership import Hello, Ready, RoundTrip, Welcome
from kowalski.protocol.messages.trust import (
    InviteProven,
    JoinAsked,
    JoinGranted,
    KnownMember,
    MeshProven,
    Roster,
    SignedCertificate,
)
from tests.mesh import transport_promises
from tests.mesh.members import (
    NOW_UNIX_S,
    OTHER_ROOT,
    ROOT,
    address_of,
    membership,
    peer_of,
    wall_clock,
)

pytestmark = pytest.mark.trio
Clock = trio.testing.MockClock

A, B, C = peer_of("A"), peer_of("B"), peer_of("C")
BOOT = "00000000000000b0"


@asynccontextmanager
async def connected(
    asks: str, answers: str
) -> AsyncIterator[tuple[LoopbackTransport, LoopbackTransport]]:
    async with (
        open_loopback_network() as network,
        network.transport(peer_of(asks)) as near,
        network.transport(peer_of(answers)) as far,
    ):
        await transport_promises.join(near, far)
        yield near, far


# --- proving membership -------------------------------------------------------------------------


@dataclass
class Side:
    """One side of a proof; `shows` may be a certificate that is not its own."""

    peer: PeerId
    shows: SignedCertificate
    proven: list[Proven] = field(default_factory=list)
    unix_s: float = NOW_UNIX_S
    rosters: list[Roster] = field(default_factory=list)
    refusals: list[tuple[PeerId, str, str, str]] = field(default_factory=list)

    @property
    def admission(self) -> Admission:
        book = CertificateBook(self.peer, ROOT.mesh, lambda: self.unix_s)
        admin = membership(peer_of("D")).certificate
        book.enter(peer_of("D"), admin, book.check(peer_of("D"), admin))
        book.see(peer_of("D"))  # who could have renewed what has ended
        return Admission(
            book,
            introduce=lambda: Welcome(
                certificate=self.shows, boot=BOOT, name=f"name of {self.peer}", addresses=()
            ),
            on_proven=self.proven.append,
            on_roster=self.rosters.append,
            on_refused=lambda *refusal: self.refusals.append(refusal),
            is_member=lambda peer: any(peer == one.peer for one in self.proven),
        )


def side(peer: PeerId, shows: SignedCertificate | None = None) -> Side:
    return Side(peer, shows or membership(peer).certificate)


def tampered() -> SignedCertificate:
    good = membership(A).certificate
    return good.model_copy(update={"frame": good.frame[:-1] + bytes([good.frame[-1] ^ 1])})


def signed(frame: bytes) -> SignedCertificate:
    return SignedCertificate(frame=frame, root_key=ROOT.public_key, signature=ROOT._key.sign(frame))


def expired() -> SignedCertificate:
    then = NOW_UNIX_S - CERTIFICATE_LIFE_S - CLOCK_GRACE_S - 1
    return ROOT.certify(A, ("submit",), now_unix_s=then)


BAD = [
    pytest.param(membership(A, root=OTHER_ROOT).certificate, "wrong_mesh", id="of another mesh"),
    pytest.param(membership(C).certificate, "wrong_peer", id="of another peer"),
    pytest.param(expired(), "expired", id="expired"),
    pytest.param(tampered(), "bad_signature", id="tampered with"),
    pytest.param(signed(b"garbage"), "malformed", id="garbage"),
    pytest.param(signed(codec.encode(RoundTrip())), "malformed", id="another kind"),
]


async def test_two_members_prove_themselves_to_each_other(autojump_clock: Clock) -> None:
    one, two = side(A), side(B)
    async with connected("A", "B") as (near, far), open_asker(near) as asker:
        serve(far, MEMBERSHIP_PROTOCOL, two.admission.answer)
        await one.admission.ask(B, asker, timeout_s=5)
        for mine, theirs in ((one, two), (two, one)):
            (proven,) = mine.proven
            assert (proven.peer, proven.name) == (theirs.peer, f"name of {theirs.peer}")
            assert proven.certificate.peer == theirs.peer
            assert proven.signed == theirs.shows


@pytest.mark.parametrize(("shown", "reason"), BAD)
async def test_who_shows_a_bad_certificate_is_refused_and_learns_nothing(
    shown: SignedCertificate, reason: str, autojump_clock: Clock
) -> None:
    one, two = side(A, shown), side(B)
    async with connected("A", "B") as (near, far), open_asker(near) as asker:
        serve(far, MEMBERSHIP_PROTOCOL, two.admission.answer)
        with pytest.raises(MembershipError, match=f"it refuses us: not_member: {reason}"):
            await one.admission.ask(B, asker, timeout_s=5)
        assert one.proven == two.proven == []
        assert [refusal[:3] for refusal in two.refusals] == [(A, MEMBERSHIP_PROTOCOL, reason)]
        with pytest.raises(RequestRefusedError, match="not_member"):
            await asker.request(B, MEMBERSHIP_PROTOCOL, RoundTrip(), RoundTrip, timeout_s=5)


@pytest.mark.parametrize(("shown", "reason"), BAD)
async def test_who_is_shown_a_bad_certificate_does_not_believe_it(
    shown: SignedCertificate, reason: str, autojump_clock: Clock
) -> None:
    one, two = side(B), side(A, shown)
    async with connected("B", "A") as (near, far), open_asker(near) as asker:
        serve(far, MEMBERSHIP_PROTOCOL, two.admission.answer)
        with pytest.raises(MembershipError, match=f"^{reason}: "):
            await one.admission.ask(A, asker, timeout_s=5)
        await trio.sleep(1)
        assert one.proven == two.proven == []
        assert [refusal[:3] for refusal in one.refusals] == [(A, MEMBERSHIP_PROTOCOL, reason)]


async def test_the_asker_is_no_member_before_it_has_accepted_our_proof(
    autojump_clock: Clock,
) -> None:
    two = side(B)
    async with connected("A", "B") as (near, far), open_asker(near) as asker:
        serve(far, MEMBERSHIP_PROTOCOL, two.admission.answer)
        hello = Hello(certificate=membership(A).certificate, boot=BOOT, name="a", addresses=())
        async with asker.converse(B, MEMBERSHIP_PROTOCOL, hello) as conversation:
            assert isinstance(await conversation.receive(), Welcome)
            await conversation.send(RoundTrip())
            with pytest.raises(RequestFailedError, match="bad_request"):
                await conversation.receive()
        assert two.proven == []


async def test_who_never_says_ready_is_not_waited_for_long(autojump_clock: Clock) -> None:
    two = side(B)
    async with connected("A", "B") as (near, far), open_asker(near) as asker:
        serve(far, MEMBERSHIP_PROTOCOL, two.admission.answer)
        hello = Hello(certificate=membership(A).certificate, boot=BOOT, name="a", addresses=())
        async with asker.converse(B, MEMBERSHIP_PROTOCOL, hello) as conversation:
            await conversation.receive()
            with trio.fail_after(NEXT_WORD_S + 1):
                with pytest.raises(RequestFailedError, match="timeout"):
                    await conversation.receive()


async def test_an_answer_out_of_turn_is_a_broken_protocol(autojump_clock: Clock) -> None:
    one = side(A)

    async def ready_at_once(conversation: Conversation, request: Message) -> Message:
        return Ready()

    async def welcome_twice(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, Hello)
        shown = membership(B).certificate
        welcome = Welcome(certificate=shown, boot=BOOT, name="b", addresses=())
        await conversation.send(welcome)
        await conversation.receive()
        return welcome

    async with connected("A", "B") as (near, far):
        for answer in (ready_at_once, welcome_twice):
            serve(far, MEMBERSHIP_PROTOCOL, answer)
            async with open_asker(near) as asker:
                with pytest.raises(RemoteProtocolError):
                    await one.admission.ask(B, asker, timeout_s=5)
        assert one.proven == []


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (RequestRefusedError("not_member", "expired"), MembershipError),
        (RequestRefusedError("busy"), PeerUnreachableError),
        (RequestFailedError("internal"), RequestFailedError),
    ],
)
async def test_only_a_no_to_our_membership_is_final(
    raised: Exception, error: type[Exception], autojump_clock: Clock
) -> None:
    async def refuse(conversation: Conversation, request: Message) -> Message:
        raise raised

    async with connected("A", "B") as (near, far), open_asker(near) as asker:
        serve(far, MEMBERSHIP_PROTOCOL, refuse)
        with pytest.raises(error):
            await side(A).admission.ask(B, asker, timeout_s=5)


async def test_other_messages_have_no_place_in_a_membership_conversation(
    autojump_clock: Clock,
) -> None:
    async with connected("A", "B") as (near, far), open_asker(near) as asker:
        serve(far, MEMBERSHIP_PROTOCOL, side(B).admission.answer)
        with pytest.raises(RequestFailedError, match="bad_request"):
            await asker.request(B, MEMBERSHIP_PROTOCOL, Ready(), Ready, timeout_s=5)


async def test_members_may_measure_the_round_trip(autojump_clock: Clock) -> None:
    one, two = side(A), side(B)
    async with connected("A", "B") as (near, far), open_asker(near) as asker:
        serve(far, MEMBERSHIP_PROTOCOL, two.admission.answer)
        await one.admission.ask(B, asker, timeout_s=5)
        await asker.request(B, MEMBERSHIP_PROTOCOL, RoundTrip(), RoundTrip, timeout_s=5)


# --- joining ------------------------------------------------------------------------------------


@dataclass
class Door:
    """An inviter, who has heard what newcomers said, and a newcomer before it."""

    inviter: LoopbackTransport
    newcomer: LoopbackTransport
    asker: Asker
    book: InviteBook
    heard: list[Message]
    unix: list[float]

    def line(self, invite: Invite | None = None, **changes: object) -> JoinLine:
        invite = invite or self.book.issue(("submit", "repl"), ttl_s=3600, uses=1)
        line = JoinLine(
            mesh=ROOT.mesh,
            inviter=B,
            addresses=(address_of("B"),),
            invite=bytes.fromhex(invite.id),
            secret=bytes.fromhex(invite.secret),
            not_after_unix_s=invite.not_after_unix_s,
            roles=invite.roles,
        )
        return line.model_copy(update=changes)

    async def join(self, line: JoinLine) -> Membership:
        return await join(A, "newcomer", line, self.asker, unix_clock=wall_clock)


class Overhearing:
    """A conversation of which somebody takes notes."""

    def __init__(self, conversation: Conversation, heard: list[Message]) -> None:
        self._conversation = conversation
        self._heard = heard

    @property
    def peer(self) -> PeerId:
        return self._conversation.peer

    async def send(self, message: Message) -> None:
        await self._conversation.send(message)

    async def receive(self) -> Message:
        self._heard.append(message := await self._conversation.receive())
        return message


KNOWN = KnownMember(certificate=membership(C).certificate, addresses=(address_of("C"),))


@asynccontextmanager
async def open_door(path: Path, inviter: Membership | None = None) -> AsyncIterator[Door]:
    async with connected("A", "B") as (newcomer, door), open_asker(newcomer) as asker:
        unix: list[float] = [NOW_UNIX_S]
        book = InviteBook(path / "invites.json", lambda: unix[0])
        heard: list[Message] = []
        belongs = inviter or membership(B, is_founder=True)
        keeper = Doorkeeper(
            B,
            lambda: belongs.root,
            book,
            CertificateBook(B, belongs.mesh, lambda: unix[0]),
            known_members=lambda: (KNOWN,),
            on_refused=lambda *_refusal: None,
            is_member=lambda _peer: False,
            unix_clock=lambda: unix[0],
        )

        async def answer(conversation: Conversation, request: Message) -> Message:
            heard.append(request)
            return await keeper.answer(Overhearing(conversation, heard), request)

        serve(door, JOIN_PROTOCOL, answer)
        yield Door(door, newcomer, asker, book, heard, unix)


async def test_a_good_invite_makes_a_member_with_its_roles(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_door(tmp_path) as door:
        joined = await door.join(door.line())
        assert joined.mesh == ROOT.mesh
        assert joined.root is None
        certificate = certificates.verify(
            joined.certificate, mesh=ROOT.mesh, peer=A, now_unix_s=NOW_UNIX_S
        )
        assert certificate.roles == ("submit", "repl")


async def test_an_invite_admits_as_often_as_it_says(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_door(tmp_path) as door:
        line = door.line(door.book.issue(("submit",), ttl_s=60, uses=2))
        await door.join(line)
        await door.join(line)
        with pytest.raises(ConfigError, match=r"refused .*spent.*ask for a new one"):
            await door.join(line)


async def test_an_expired_invite_admits_nobody(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_door(tmp_path) as door:
        line = door.line()
        door.unix[0] += 3601
        with pytest.raises(ConfigError, match="refused"):
            await door.join(line)


@pytest.mark.parametrize("wrong", ["secret", "invite"])
async def test_a_wrong_secret_or_an_unknown_invite_admits_nobody_and_spends_nothing(
    tmp_path: Path, wrong: str, autojump_clock: Clock
) -> None:
    async with open_door(tmp_path) as door:
        good = door.line()
        with pytest.raises(ConfigError, match="refused"):
            await door.join(good.model_copy(update={wrong: bytes(16)}))
        await door.join(good)


async def test_who_cannot_prove_the_mesh_is_not_shown_that_we_know_the_secret(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    impostor = membership(B, root=OTHER_ROOT, is_founder=True)
    async with open_door(tmp_path, impostor) as door:
        with pytest.raises(ConfigError, match="cannot prove that it is of this mesh"):
            await door.join(door.line())
        await trio.sleep(1)
        assert [type(message) for message in door.heard] == [JoinAsked]


async def test_a_proof_of_the_mesh_made_for_another_newcomer_is_worth_nothing(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async def replay(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, JoinAsked)
        nonce = bytes(16)
        transcript = join_transcript(C, B, request.nonce, nonce)
        await conversation.send(
            MeshProven(
                root_key=ROOT.public_key,
                signature=certificates.mesh_proof(ROOT, transcript).signature,
                nonce=nonce,
            )
        )
        await conversation.receive()
        raise AssertionError

    async with open_door(tmp_path) as door:
        serve(door.inviter, JOIN_PROTOCOL, replay)
        with pytest.raises(ConfigError, match="cannot prove"):
            await door.join(door.line())


async def test_an_overheard_proof_of_an_invite_admits_nobody_else(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_door(tmp_path) as door:
        line = door.line(door.book.issue(("submit",), ttl_s=60, uses=9))
        await door.join(line)
        asked, proof = door.heard
        assert isinstance(asked, JoinAsked)
        assert isinstance(proof, InviteProven)
        # The same words again, by the same peer and by another one.
        again = door.asker.converse(B, JOIN_PROTOCOL, asked)
        async with again as conversation:
            await conversation.receive()
            await conversation.send(proof)
            with pytest.raises(RequestRefusedError, match="not_allowed"):
                await conversation.receive()
        found = door.book.find(line.invite.hex())
        assert found is not None
        assert found.uses_left == 8


async def test_a_proof_shown_to_another_inviter_is_bound_to_the_one_it_was_made_for(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_door(tmp_path) as door:
        line = door.line()
        asked = JoinAsked(invite=line.invite, nonce=bytes(16))
        async with door.asker.converse(B, JOIN_PROTOCOL, asked) as conversation:
            shown = await conversation.receive()
            assert isinstance(shown, MeshProven)
            for_another = join_transcript(A, C, asked.nonce, shown.nonce)
            proof = invite_proof(line.secret, for_another)
            await conversation.send(InviteProven(proof=proof, name="a"))
            with pytest.raises(RequestRefusedError, match="not_allowed"):
                await conversation.receive()


async def test_a_member_without_the_root_key_lets_nobody_in(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_door(tmp_path, membership(B)) as door:
        with pytest.raises(ConfigError, match="cannot let anybody in"):
            await door.join(door.line())


async def test_a_newcomer_that_falls_silent_is_not_waited_for_long(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_door(tmp_path) as door:
        asked = JoinAsked(invite=bytes(16), nonce=bytes(16))
        async with door.asker.converse(B, JOIN_PROTOCOL, asked) as conversation:
            await conversation.receive()
            with trio.fail_after(NEXT_WORD_S + 1):
                with pytest.raises(RequestFailedError, match="timeout"):
                    await conversation.receive()


async def test_an_inviter_that_falls_silent_is_unreachable(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async def say_nothing(conversation: Conversation, request: Message) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with open_door(tmp_path) as door:
        serve(door.inviter, JOIN_PROTOCOL, say_nothing)
        with trio.fail_after(60), pytest.raises(PeerUnreachableError, match="within 20 s"):
            await door.join(door.line())


@pytest.mark.parametrize(
    "granted",
    [
        membership(C).certificate,
        membership(A, root=OTHER_ROOT).certificate,
        expired(),
        signed(b"garbage"),
    ],
)
async def test_a_certificate_that_does_not_hold_is_not_taken_home(
    tmp_path: Path, granted: SignedCertificate, autojump_clock: Clock
) -> None:
    async def grant(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, JoinAsked)
        nonce = bytes(16)
        transcript = join_transcript(conversation.peer, B, request.nonce, nonce)
        await conversation.send(
            MeshProven(
                root_key=ROOT.public_key,
                signature=certificates.mesh_proof(ROOT, transcript).signature,
                nonce=nonce,
            )
        )
        await conversation.receive()
        return JoinGranted(certificate=granted)

    async with open_door(tmp_path) as door:
        serve(door.inviter, JOIN_PROTOCOL, grant)
        with pytest.raises(ConfigError, match="joining failed"):
            await door.join(door.line())


@pytest.mark.parametrize("first", [Ready(), RoundTrip()])
async def test_other_messages_have_no_place_in_a_join(
    tmp_path: Path, first: Message, autojump_clock: Clock
) -> None:
    async with open_door(tmp_path) as door:
        with pytest.raises(RequestFailedError, match="bad_request"):
            await door.asker.request(B, JOIN_PROTOCOL, first, JoinGranted, timeout_s=5)
        asked = JoinAsked(invite=bytes(16), nonce=bytes(16))
        async with door.asker.converse(B, JOIN_PROTOCOL, asked) as conversation:
            await conversation.receive()
            await conversation.send(first)
            with pytest.raises(RequestFailedError, match="bad_request"):
                await conversation.receive()


async def test_an_inviter_of_another_kind_is_a_failed_join(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async def ready(conversation: Conversation, request: Message) -> Message:
        return Ready()

    async with open_door(tmp_path) as door:
        serve(door.inviter, JOIN_PROTOCOL, ready)
        with pytest.raises(ConfigError, match="joining failed"):
            await door.join(door.line())
