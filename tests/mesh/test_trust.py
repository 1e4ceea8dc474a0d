"""Who is refused, with which word: one table, on made-up wires and on real ones."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from kowalski.mesh import membership_certificates as certificates
from kowalski.mesh.admission import JOIN_PROTOCOL, MEMBERSHIP_PROTOCOL
from kowalski.mesh.membership_certificates import Admin, revoke
from kowalski.mesh.trust import REFUSALS_LOGGED_MAX
from kowalski.protocol import codec, ids
from kowalski.protocol.errors import PeerUnreachableError, RequestRefusedError
from kowalski.protocol.ids import Address
from kowalski.protocol.messages.membership import Hello, Ready, RoundTrip, Welcome
from kowalski.protocol.messages.telemetry import Profile
from kowalski.protocol.messages.trust import (
    ROLES,
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
from tests.mesh.visitors import (
    NOW,
    OTHER_ROOT,
    ROOMS,
    ROOT,
    Clock,
    Member,
    Visitor,
    WireKind,
    membership,
    open_member,
    open_visitor,
    open_wires,
    person,
    signed,
)
from tests.mesh.wires import eventually
from tests.protocol.examples import BOOT, HOT, PROFILE

HOME, THIEF, OTHER = person("home"), person("thief"), person("other")
ADMIN = Admin(OTHER, signed(OTHER))
NO_ADMIN = Admin(OTHER, signed(OTHER, "submit"))
TASK = "/kowalski/task/1"
FEW: tuple[Role, ...] = ("submit", "repl")

WIRES = [pytest.param("loopback", id="loopback"), pytest.param("libp2p", marks=pytest.mark.real)]
pytestmark = pytest.mark.trio


def hello(certificate: SignedCertificate) -> Hello:
    return Hello(certificate=certificate, boot=BOOT, name="thief", addresses=())


async def prove(
    visitor: Visitor, certificate: SignedCertificate, ready: Ready | None = None
) -> None:
    await visitor.ask(MEMBERSHIP_PROTOCOL, hello(certificate), ready or Ready())


# --- the table ----------------------------------------------------------------------------------

Attack = Callable[[Member, Visitor], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is tried; which word it is counted under, which one the asker gets to hear."""

    what: str
    attack: Attack
    counted_as: str
    told: str = "not_member"
    prepare: Callable[[Member], None] = lambda _home: None
    """What happened before the thief came."""


def showing(certificate: SignedCertificate) -> Attack:
    async def attack(_home: Member, thief: Visitor) -> None:
        await prove(thief, certificate)

    return attack


def asking(protocol: str, certificate: SignedCertificate | None = None) -> Attack:
    async def attack(_home: Member, thief: Visitor) -> None:
        if certificate is not None:
            await prove(thief, certificate)
        await thief.ask_for_work(protocol)

    return attack


def tampered(certificate: SignedCertificate, *roles: Role) -> SignedCertificate:
    said = certificates.decode_certificate(certificate.frame)
    frame = codec.encode(said.model_copy(update={"roles": roles}))
    return certificate.model_copy(update={"frame": frame})


def signed_as_it_is(frame: bytes) -> SignedCertificate:
    seal = ROOT.seal(frame)
    return SignedCertificate(frame=frame, root_key=seal.root_key, signature=seal.signature)


def made_admin_by_an_admin() -> SignedCertificate:
    frame = codec.encode(
        certificates.decode_certificate(signed(THIEF).frame).model_copy(update={"roles": ROLES})
    )
    seal = ADMIN.seal(frame)
    return SignedCertificate(
        frame=frame, root_key=seal.root_key, signature=seal.signature, issuer=seal.issuer
    )


ENDED = signed(THIEF, now_unix_s=NOW - certificates.CERTIFICATE_LIFE_S - 3600)


def an_admin_is_here(home: Member) -> None:
    book = home.mesh.trust.book
    book.enter(OTHER.peer, ADMIN.certificate, book.check(OTHER.peer, ADMIN.certificate))
    book.see(OTHER.peer)


def thief_is_revoked(home: Member) -> None:
    home.mesh.trust.revoke(THIEF.peer, "a thief")


def admin_is_revoked(home: Member) -> None:
    home.mesh.trust.book.hear_roster(
        Roster(revocations=(revoke(ROOT, OTHER.peer, epoch=0, now_unix_s=NOW),))
    )


@dataclass(frozen=True, slots=True)
class Joining:
    """Tries to join with what it knows of an invite, as it is after `prepare`."""

    prepare: Callable[[Member, str], None] = lambda _home, _invite: None
    secret: bytes | None = None
    joiner: str = THIEF.peer
    inviter: str = HOME.peer
    ttl_s: int = 3600

    async def __call__(self, home: Member, thief: Visitor) -> None:
        invite = home.invites.issue(FEW, ttl_s=self.ttl_s, uses=1)
        self.prepare(home, invite.id)
        nonce = secrets.token_bytes(16)
        asked = JoinAsked(invite=bytes.fromhex(invite.id), nonce=nonce)
        async with thief.asker.converse(thief.home, JOIN_PROTOCOL, asked) as conversation:
            shown = await conversation.receive()
            assert isinstance(shown, MeshProven)
            transcript = certificates.join_transcript(
                ids.PeerId(self.joiner), ids.PeerId(self.inviter), nonce, shown.nonce
            )
            secret = self.secret or bytes.fromhex(invite.secret)
            proof = certificates.invite_proof(secret, transcript)
            await conversation.send(InviteProven(proof=proof, name="thief"))
            await conversation.receive()


async def replayed_join(home: Member, thief: Visitor) -> None:
    """All that a good join said, said again: the inviter's nonce is another one."""
    invite = home.invites.issue(FEW, ttl_s=3600, uses=2)
    asked = JoinAsked(invite=bytes.fromhex(invite.id), nonce=bytes(16))
    async with thief.asker.converse(thief.home, JOIN_PROTOCOL, asked) as conversation:
        shown = await conversation.receive()
        assert isinstance(shown, MeshProven)
        transcript = certificates.join_transcript(thief.peer, home.peer, bytes(16), shown.nonce)
        secret = bytes.fromhex(invite.secret)
        proven = InviteProven(proof=certificates.invite_proof(secret, transcript), name="good")
        await conversation.send(proven)
        assert isinstance(await conversation.receive(), JoinGranted)
    await thief.ask(JOIN_PROTOCOL, asked, proven)


def spend(home: Member, invite: str) -> None:
    home.invites.spend(invite)


TABLE = [
    Refusal(
        "no certificate, round trip",
        lambda _home, thief: thief.ask(MEMBERSHIP_PROTOCOL, RoundTrip()),
        "not_member",
    ),
    Refusal(
        "no certificate, renewal",
        lambda _home, thief: thief.ask(JOIN_PROTOCOL, RenewalAsked()),
        "not_member",
    ),
    Refusal("expired", showing(ENDED), "expired", prepare=an_admin_is_here),
    Refusal("revoked", showing(signed(THIEF)), "revoked", prepare=thief_is_revoked),
    Refusal(
        "revoked with the admin that made it",
        showing(signed(THIEF, by=ADMIN)),
        "issuer_revoked",
        prepare=admin_is_revoked,
    ),
    Refusal("wrong mesh", showing(signed(THIEF, by=OTHER_ROOT)), "wrong_mesh"),
    Refusal("a stolen certificate", showing(signed(OTHER)), "wrong_peer"),
    Refusal("broadened roles", showing(tampered(signed(THIEF, *FEW), *ROLES)), "bad_signature"),
    Refusal("an admin made by an admin", showing(made_admin_by_an_admin()), "issuer_overreach"),
    Refusal("made by no admin", showing(signed(THIEF, by=NO_ADMIN)), "issuer_not_allowed"),
    Refusal(
        "cut short",
        showing(signed(THIEF).model_copy(update={"frame": signed(THIEF).frame[:-1]})),
        "bad_signature",
    ),
    Refusal(
        "cut short, and signed", showing(signed_as_it_is(signed(THIEF).frame[:-1])), "malformed"
    ),
    Refusal(
        "something else, signed", showing(signed_as_it_is(codec.encode(RoundTrip()))), "malformed"
    ),
    Refusal("a wrong secret", Joining(secret=bytes(16)), "bad_invite", "not_allowed"),
    Refusal("a spent invite", Joining(prepare=spend), "bad_invite", "not_allowed"),
    Refusal("an expired invite", Joining(ttl_s=-1), "bad_invite", "not_allowed"),
    Refusal("a join replayed", replayed_join, "bad_invite", "not_allowed"),
    Refusal("another's join", Joining(joiner=OTHER.peer), "bad_invite", "not_allowed"),
    Refusal("a join meant for another", Joining(inviter=OTHER.peer), "bad_invite", "not_allowed"),
    *(
        Refusal(
            f"without a role, {protocol}",
            asking(protocol, signed(THIEF, "fold", "infer", "repl")),
            "not_allowed",
            "not_allowed",
        )
        for protocol in ROOMS
    ),
    Refusal(
        "no submitter asks for a task",
        asking(TASK, signed(THIEF, "coordinate", "repl")),
        "not_allowed",
        "not_allowed",
    ),
]


@pytest.mark.parametrize("kind", WIRES)
@pytest.mark.parametrize("refusal", TABLE, ids=[refusal.what for refusal in TABLE])
async def test_it_is_refused_with_its_own_word_told_of_once_and_counted(
    kind: WireKind, refusal: Refusal, tmp_path: Path
) -> None:
    with trio.fail_after(30), capture_logs() as logs:
        async with (
            open_wires(kind) as wires,
            open_member(
                wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
            ) as home,
        ):
            refusal.prepare(home)
            async with open_visitor(wires, THIEF, home) as thief:
                for _ in range(2):
                    with pytest.raises(RequestRefusedError) as refused:
                        await refusal.attack(home, thief)
                    assert refused.value.reason == refusal.told
                    if refusal.counted_as not in {"not_member", "not_allowed", "bad_invite"}:
                        assert refused.value.detail.startswith(f"{refusal.counted_as}: ")
            assert home.mesh.trust.refused == {refusal.counted_as: 2}
    told = [log["reason"] for log in logs if log["event"] == "refused"]
    assert told == [refusal.counted_as]


# --- what holds, for comparison -----------------------------------------------------------------


@pytest.mark.parametrize("kind", WIRES)
@pytest.mark.parametrize(
    ("certificate", "served"),
    [
        (signed(THIEF), set(ROOMS)),
        (signed(THIEF, "submit", by=ADMIN), set(ROOMS)),
        (signed(THIEF, "coordinate"), set(ROOMS) - {TASK}),
        (ENDED, set(ROOMS)),
    ],
    ids=["of the root", "of an admin", "without submit", "ended with no admin seen since"],
)
async def test_a_member_is_served_as_its_roles_say(
    kind: WireKind, certificate: SignedCertificate, served: set[str], tmp_path: Path
) -> None:
    got = set()
    with trio.fail_after(30):
        async with (
            open_wires(kind) as wires,
            open_member(
                wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
            ) as home,
            open_visitor(wires, THIEF, home) as thief,
        ):
            await prove(thief, certificate)
            for protocol in ROOMS:
                try:
                    await thief.ask_for_work(protocol)
                except RequestRefusedError as no:
                    assert no.reason == "not_allowed"  # noqa: PT017 one of several outcomes
                else:
                    got.add(protocol)
    assert got == served


@pytest.mark.parametrize("kind", WIRES)
async def test_a_stranger_does_not_even_find_the_rooms(kind: WireKind, tmp_path: Path) -> None:
    unfound = set()
    with trio.fail_after(30):
        async with (
            open_wires(kind) as wires,
            open_member(
                wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
            ) as home,
            open_visitor(wires, THIEF, home) as thief,
        ):

            async def look_for(protocol: str) -> None:
                with pytest.raises(PeerUnreachableError):
                    await thief.ask_for_work(protocol)
                unfound.add(protocol)

            async with trio.open_nursery() as nursery:
                for protocol in ROOMS:
                    nursery.start_soon(look_for, protocol)
            assert home.mesh.is_member(THIEF.peer) is False
    assert unfound == set(ROOMS)


# --- at the point of effect ---------------------------------------------------------------------


async def test_a_revoked_member_is_refused_at_once_and_its_connection_closes(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
        ) as home,
        open_visitor(wires, THIEF, home) as thief,
    ):
        await prove(thief, signed(THIEF))
        await thief.ask_for_work(TASK)
        home.mesh.trust.revoke(thief.peer, "a lost laptop")
        with pytest.raises((RequestRefusedError, PeerUnreachableError)):
            await thief.ask_for_work(TASK)
        await eventually(lambda: home.peer not in thief.transport.connections)


async def test_a_membership_that_ends_is_over_on_an_open_connection_too(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock()
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=clock
        ) as home,
        open_visitor(wires, THIEF, home) as thief,
    ):
        await prove(thief, signed(THIEF))
        clock.now += certificates.CERTIFICATE_LIFE_S + 3600
        await thief.ask_for_work(TASK)
        late = signed(OTHER, now_unix_s=int(clock.now))
        book = home.mesh.trust.book
        book.enter(OTHER.peer, late, book.check(OTHER.peer, late))
        book.see(OTHER.peer)
        with pytest.raises(RequestRefusedError, match="expired"):
            await thief.ask_for_work(TASK)
        assert home.mesh.trust.refused == {"expired": 1}
        assert not book.admits(THIEF.peer)


async def test_an_admin_that_falls_takes_along_whom_it_had_let_in(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
        ) as home,
        open_visitor(wires, THIEF, home) as thief,
    ):
        await prove(thief, signed(THIEF, by=ADMIN))
        home.mesh.trust.revoke(OTHER.peer, "an admin gone bad")
        await eventually(lambda: home.peer not in thief.transport.connections)
        assert home.mesh.roles_of(thief.peer) == ()


async def test_an_old_revocation_does_not_put_out_who_was_invited_again(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
        ) as home,
        open_visitor(wires, THIEF, home) as thief,
    ):
        await prove(thief, signed(THIEF, epoch=1))
        old = Roster(revocations=(revoke(ROOT, THIEF.peer, epoch=0, now_unix_s=NOW),))
        await prove(thief, signed(THIEF, epoch=1), Ready(roster=old))
        assert home.mesh.trust.book.roster_version == 1
        await trio.sleep(1)
        assert home.mesh.is_member(thief.peer)
        await thief.ask_for_work(TASK)


async def test_only_admins_revoke_and_nobody_revokes_itself(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME, "submit")), tmp_path, unix_clock=Clock()
        ) as plain,
        open_member(
            wires, OTHER, membership(ADMIN.certificate), tmp_path, unix_clock=Clock()
        ) as admin,
    ):
        with pytest.raises(RequestRefusedError, match="only the founding node and admins"):
            plain.mesh.trust.revoke(THIEF.peer, "")
        with pytest.raises(RequestRefusedError, match="does not revoke itself"):
            admin.mesh.trust.revoke(OTHER.peer, "")
        admin.mesh.trust.revoke(THIEF.peer, "")
        assert admin.mesh.trust.book.roster_version == 1


async def test_who_has_the_root_key_cannot_be_put_out_by_an_admin(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
        ) as home,
        open_visitor(wires, OTHER, home) as admin,
    ):
        coup = Roster(revocations=(revoke(ADMIN, HOME.peer, epoch=0, now_unix_s=NOW),))
        await prove(admin, ADMIN.certificate, Ready(roster=coup))
        assert not home.mesh.trust.is_revoked
        ours = certificates.decode_certificate(home.mesh.membership.certificate.frame)
        assert (ours.epoch, ours.roles) == (1, ROLES)
        home.mesh.trust.revoke(OTHER.peer, "a coup")
        assert home.mesh.roles_of(OTHER.peer) == ()


# --- what others say of others ------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        tampered(signed(THIEF), *ROLES),
        signed(OTHER, by=OTHER_ROOT),
        signed(OTHER, by=Admin(THIEF, signed(THIEF, *FEW))),
        signed_as_it_is(b"nothing"),
    ],
    ids=["broadened", "another mesh's", "made by the thief", "nothing"],
)
async def test_a_member_cannot_make_up_another(
    forged: SignedCertificate, tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
        ) as home,
        open_visitor(wires, THIEF, home) as thief,
    ):
        introduced = KnownMember(certificate=forged, addresses=(Address(f"/memory/{OTHER.peer}"),))
        await prove(thief, signed(THIEF, *FEW), Ready(members=(introduced,)))
        await trio.sleep(5)
        assert home.mesh.roles_of(OTHER.peer) == ()
        assert not home.mesh.trust.book.admits(OTHER.peer)
        assert {facts.peer for facts in home.mesh.facts()} == {HOME.peer, THIEF.peer}
        assert home.mesh.roles_of(THIEF.peer) == FEW


@pytest.mark.parametrize("kind", WIRES)
async def test_gossip_replayed_changes_nothing(kind: WireKind, tmp_path: Path) -> None:
    """Old telemetry is behind its sequence; an old roster tells less, and takes nothing back."""

    def profile(sequence: int, name: str) -> Profile:
        return PROFILE.model_copy(
            update={"boot": BOOT, "sequence": sequence, "name": name, "hot": HOT}
        )

    with trio.fail_after(30):
        async with (
            open_wires(kind) as wires,
            open_member(
                wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
            ) as home,
            open_visitor(wires, THIEF, home) as thief,
        ):
            revocation = revoke(ROOT, OTHER.peer, epoch=3, now_unix_s=NOW)
            older = revoke(ROOT, OTHER.peer, epoch=1, now_unix_s=NOW)
            ready = Ready(profile=profile(100, "new"), roster=Roster(revocations=(revocation,)))
            await prove(thief, signed(THIEF), ready)
            telemetry = ids.topic(ROOT.mesh, "telemetry")
            roster = ids.topic(ROOT.mesh, "roster")

            async def say_old_things() -> None:
                old = codec.encode(profile(99, "old"))
                less = codec.encode(Roster(revocations=(older,)))
                await thief.transport.publish(telemetry, old)
                await thief.transport.publish(roster, less)

            # Gossip is best effort: say it until something that is new has come through as well.
            while home.mesh.name_of(THIEF.peer) != "newer":
                await say_old_things()
                await trio.sleep(0.05)
                assert home.mesh.name_of(THIEF.peer) in {"new", "newer"}
                await thief.transport.publish(telemetry, codec.encode(profile(101, "newer")))
                await trio.sleep(0.05)
            assert home.mesh.trust.book.roster.revocations == (revocation,)


async def test_what_a_stranger_tells_of_revocations_is_not_read(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
        ) as home,
        open_visitor(wires, THIEF, home) as thief,
    ):
        true = Roster(revocations=(revoke(ROOT, OTHER.peer, epoch=0, now_unix_s=NOW),))
        with pytest.raises(RequestRefusedError, match="wrong_mesh"):
            await prove(thief, signed(THIEF, by=OTHER_ROOT), Ready(roster=true))
        assert home.mesh.trust.book.roster_version == 0
        await prove(thief, signed(THIEF), Ready(roster=true))
        assert home.mesh.trust.book.roster_version == 1


async def test_a_stranger_is_told_who_else_is_here_only_after_its_proof(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
        ) as home,
        open_visitor(wires, THIEF, home) as thief,
    ):
        with pytest.raises(RequestRefusedError):
            await thief.ask(MEMBERSHIP_PROTOCOL, hello(signed(OTHER)))
        welcome = await thief.ask(MEMBERSHIP_PROTOCOL, hello(signed(THIEF)))
        assert isinstance(welcome, Welcome)
        assert len(welcome.members) == 1
        assert isinstance(codec.decode(welcome.certificate.frame), Certificate)


async def test_refusals_are_told_of_up_to_a_bound_and_counted_beyond(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with (
        open_wires("loopback") as wires,
        open_member(
            wires, HOME, membership(signed(HOME), ROOT), tmp_path, unix_clock=Clock()
        ) as home,
    ):
        with capture_logs() as logs:
            for number in range(REFUSALS_LOGGED_MAX + 5):
                home.mesh.trust.note_refusal(ids.PeerId(f"peer{number}"), TASK, "not_member", "")
        assert len(logs) == REFUSALS_LOGGED_MAX
        assert home.mesh.trust.refused["not_member"] == REFUSALS_LOGGED_MAX + 5
