from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from kowalski.mesh.admission import JOIN_PROTOCOL, MEMBERSHIP_PROTOCOL, join
from kowalski.mesh.conversation import FOR_STRANGERS, Conversation, open_asker, serve
from kowalski.mesh.core.connectivity import Params, Sighted
from kowalski.mesh.core.placement import Need
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.loopback_transport import (
    LoopbackTransport,
    Weather,
    open_loopback_network,
)
from kowalski.mesh.membership_certificates import (
    CERTIFICATE_LIFE_S,
    CLOCK_GRACE_S,
    Membership,
    MeshRoot,
)
from kowalski.mesh.mesh import open_mesh
from kowalski.mesh.telemetry_gossip import Self
from kowalski.mesh.trust import LOOK_AROUND_S
from kowalski.protocol import codec, ids
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestRefusedError,
)
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.join_line import JoinLine
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentChunk
from kowalski.protocol.messages.membership import Hello, Ready, RoundTrip, Welcome
from kowalski.protocol.messages.trust import ROLES, JoinAsked, KnownMember
from tests.mesh.members import (
    NOW_UNIX_S,
    OTHER_ROOT,
    ROOT,
    WORK,
    About,
    Village,
    address_of,
    asked,
    become_members,
    busy,
    echo,
    members,
    membership,
    peer_of,
    said,
    stranger,
    wall_clock,
)
from tests.mesh.wires import eventually

pytestmark = pytest.mark.trio
Clock = trio.testing.MockClock

SLOW_WORK = "/kowalski-test/slow-work/1"
TELEMETRY = ids.topic(ROOT.mesh, "telemetry")
LATENCY_S = 0.02
A, B, C = peer_of("A"), peer_of("B"), peer_of("C")


@pytest.fixture
async def village(tmp_path: Path) -> AsyncIterator[Village]:
    async with open_loopback_network(weather=Weather(latency_s=LATENCY_S)) as network:
        yield Village(network, tmp_path)


# --- meeting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [("A", "B"), ("B", "A")])
async def test_two_members_meet_whichever_of_them_hears_of_the_other(
    village: Village, one: str, other: str, autojump_clock: Clock
) -> None:
    async with village.open_member(one) as first, village.open_member(other) as second:
        started = trio.current_time()
        first.meets(second)
        await become_members(first, second)
        assert trio.current_time() - started < 2
        for mine, theirs in ((first, second), (second, first)):
            assert mine.arrivals(theirs.peer) == ["MemberConnected"]
            facts = mine.mesh.facts_of(theirs.peer)
            assert (facts.state, facts.is_routable, facts.why_not) == ("member", True, "")
            assert facts.name == theirs.about.name
            assert facts.addresses == theirs.transport.addresses
            assert mine.mesh.roles_of(theirs.peer)


async def test_members_are_introduced_to_each_other_by_a_third(
    village: Village, autojump_clock: Clock
) -> None:
    async with (
        village.open_member("A") as a,
        village.open_member("B") as b,
        village.open_member("C") as c,
    ):
        a.meets(b)
        await become_members(a, b)
        c.meets(b)
        await become_members(a, b, c)
        assert a.mesh.name_of(C) == "C"


async def test_the_round_trip_is_measured(village: Village, autojump_clock: Clock) -> None:
    async with members(village, "A", "B") as (a, _):
        await trio.sleep(5)
        assert a.mesh.facts_of(B).rtt_s == pytest.approx(2 * LATENCY_S, rel=0.01)
        assert a.mesh.facts_of(A).rtt_s == 0.0


async def test_a_member_with_more_addresses_than_a_message_holds_is_met(
    village: Village, autojump_clock: Clock
) -> None:
    class ManyHomes(LoopbackTransport):
        @property
        def addresses(self) -> tuple[Address, ...]:
            elsewhere = (Address(f"/memory/elsewhere{n}") for n in range(40))
            return (*super().addresses, *elsewhere)

    def many_homes(transport: LoopbackTransport) -> LoopbackTransport:
        transport.__class__ = ManyHomes
        return transport

    async with village.open_member("A", over=many_homes) as a, village.open_member("B") as b:
        b.meets(a)
        await become_members(a, b)


async def test_dials_go_on_until_the_peer_is_there(village: Village, autojump_clock: Clock) -> None:
    async with village.open_member("A") as a:
        a.mesh.sighted(Sighted(B, (address_of("nowhere"), address_of("B")), is_static=True))
        await trio.sleep(120)
        facts = a.mesh.facts_of(B)
        assert not facts.is_routable
        assert "nobody answers" in facts.why_not
        async with village.open_member("B") as b:
            await become_members(a, b)


async def test_of_a_peer_we_never_heard_of_nothing_is_known(
    village: Village, autojump_clock: Clock
) -> None:
    async with village.open_member("A") as a:
        facts = a.mesh.facts_of(B)
        assert (facts.state, facts.is_routable, facts.profile) == ("absent", False, None)
        assert a.mesh.roles_of(B) == ()
        assert a.mesh.facts() == (a.mesh.facts_of(A),)


# --- strangers ----------------------------------------------------------------------------------


async def test_a_stranger_is_refused_everywhere_and_then_hung_up_on(
    village: Village, autojump_clock: Clock
) -> None:
    requests: list[Message] = []

    async def work(conversation: Conversation, request: Message) -> Message:
        requests.append(request)
        return request

    async with village.open_member("A") as a, stranger(village, knows=a) as s:
        a.mesh.serve(WORK, work)
        async with open_asker(s) as asker:
            for protocol, request in ((WORK, asked()), (MEMBERSHIP_PROTOCOL, RoundTrip())):
                with pytest.raises(RequestRefusedError) as caught:
                    await asker.request(A, protocol, request, Message, timeout_s=5)
                assert caught.value.reason == "not_member"
        assert requests == []
        assert not a.mesh.is_member(s.peer)
        await trio.sleep(Params().stranger_s + 1)
        assert a.transport.connections == frozenset()
        assert a.told == []


async def test_a_member_of_another_mesh_is_neither_let_in_nor_dialled_all_the_time(
    village: Village, autojump_clock: Clock
) -> None:
    other = membership(B, root=OTHER_ROOT)
    dials = 0

    class Counting(LoopbackTransport):
        async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
            nonlocal dials
            dials += 1
            await super().connect(peer, address, timeout_s=timeout_s)

    def counting(transport: LoopbackTransport) -> LoopbackTransport:
        transport.__class__ = Counting
        return transport

    for here, there in (("A", "B"), ("C", "B")):
        dials = 0
        async with (
            village.open_member(here, over=counting) as a,
            village.open_member(there, belongs=other, over=counting) as b,
        ):
            a.meets(b)
            b.meets(a)
            await trio.sleep(Params().shun_s)
            assert a.told == b.told == []
            assert a.mesh.facts_of(b.peer).profile is None
            assert dials < 15


async def test_gossip_of_a_stranger_is_not_heard(village: Village, autojump_clock: Clock) -> None:
    async with members(village, "A", "B") as (a, _), stranger(village, knows=a) as s:
        for sequence in range(5):
            await s.publish(TELEMETRY, codec.encode(About("stranger").profile(sequence)))
        await trio.sleep(1)
        assert a.mesh.telemetry.view.peers.keys() == {B}


async def test_an_introduction_without_a_good_certificate_is_not_followed(
    village: Village, autojump_clock: Clock
) -> None:
    async with village.open_member("A") as a, stranger(village, knows=a) as s:

        async def lie(conversation: Conversation, request: Message) -> Message:
            assert isinstance(request, Hello)
            signed = membership(C, root=MeshRoot(bytes(32))).certificate
            known = KnownMember(certificate=signed, addresses=(address_of("C"),))
            await conversation.send(
                Welcome(
                    certificate=membership(s.peer).certificate,
                    boot=About("").boot,
                    name="s",
                    addresses=s.addresses,
                    members=(known,),
                )
            )
            await conversation.receive()
            return Ready()

        serve(s, MEMBERSHIP_PROTOCOL, lie)
        await eventually(lambda: a.mesh.is_member(s.peer), within_s=20)
        assert {facts.peer for facts in a.mesh.facts()} == {A, s.peer}


async def test_a_newcomer_joins_and_is_a_member_like_the_others(
    village: Village, tmp_path: Path, autojump_clock: Clock
) -> None:
    founder = membership(A, is_founder=True)
    invites = InviteBook(tmp_path / "invites.json", wall_clock)
    about = About("A")
    async with (
        village.network.transport(A) as transport,
        open_mesh(
            transport,
            founder,
            Self("A", about.boot, about.profile, lambda: about.hot),
            invites,
            unix_clock=wall_clock,
        ) as mesh,
        village.open_member("B") as b,
    ):
        b.mesh.sighted(Sighted(A, transport.addresses))
        await eventually(lambda: mesh.is_member(B))
        invite = invites.issue(("repl",), ttl_s=60, uses=1)
        line = JoinLine(
            mesh=ROOT.mesh,
            inviter=A,
            addresses=transport.addresses,
            invite=bytes.fromhex(invite.id),
            secret=bytes.fromhex(invite.secret),
            not_after_unix_s=invite.not_after_unix_s,
            roles=invite.roles,
        )
        async with village.network.transport(C) as newcomer:
            await newcomer.connect(A, transport.addresses[0], timeout_s=5)
            async with open_asker(newcomer) as asker:
                joined = await join(C, "C", line, asker, unix_clock=wall_clock)
                with pytest.raises(PeerUnreachableError):
                    await newcomer.open_stream(B, JOIN_PROTOCOL, timeout_s=1)
            hello = About("C")
            async with open_mesh(
                newcomer,
                joined,
                Self("C", hello.boot, hello.profile, lambda: hello.hot),
                InviteBook(tmp_path / "c.json", wall_clock),
                unix_clock=wall_clock,
            ) as mesh_c:
                await eventually(lambda: mesh_c.is_member(A) and mesh_c.is_member(B))
                await eventually(lambda: mesh.is_member(C) and b.mesh.is_member(C))
                assert mesh.roles_of(C) == ("repl",)


async def test_a_member_whose_certificate_ends_is_refused_and_then_let_go(
    village: Village, autojump_clock: Clock
) -> None:
    lasting = ROOT.certify(C, ROLES, now_unix_s=NOW_UNIX_S + CERTIFICATE_LIFE_S)
    async with (
        members(village, "A", "B") as (a, b),
        village.open_member("C", belongs=Membership(ROOT.mesh, lasting, None)) as admin,
    ):
        admin.meets(a, b)
        await become_members(a, b, admin)
        a.mesh.serve(WORK, echo)
        assert await b.mesh.request(A, WORK, asked(1), ContentChunk, timeout_s=5) == said(1)
        village.unix_s += CERTIFICATE_LIFE_S + CLOCK_GRACE_S + 1
        await trio.sleep(0.5)
        await eventually(lambda: not a.mesh.is_member(B), within_s=2 * LOOK_AROUND_S)
        with pytest.raises((RequestRefusedError, PeerUnreachableError)):
            await b.mesh.request(A, WORK, asked(1), ContentChunk, timeout_s=5)
        assert a.mesh.roles_of(B) == ()
        await trio.sleep(LOOK_AROUND_S)
        for one, other in ((a, B), (b, A)):
            assert one.arrivals(other) == ["MemberConnected", "MemberDisconnected"]
        assert "expired" in a.mesh.facts_of(B).why_not


async def test_what_a_stranger_may_keep_us_busy_with_is_little(
    village: Village, autojump_clock: Clock
) -> None:
    founder = membership(A, is_founder=True)
    async with village.open_member("A", belongs=founder) as a, stranger(village, knows=a) as s:
        stream = await s.open_stream(A, JOIN_PROTOCOL, timeout_s=5)
        request = codec.encode(JoinAsked(invite=bytes(16), nonce=bytes(16)))
        for number in range(1, FOR_STRANGERS.in_flight + 2):
            await stream.send(codec.seal(codec.Envelope(number, request)))
        reader, busy_ones = codec.EnvelopeReader(), []
        with trio.move_on_after(5):
            while data := await stream.receive():
                busy_ones += [one.request for one in reader.feed(data) if b"busy" in one.frame]
        assert busy_ones == [FOR_STRANGERS.in_flight + 1]


# --- telemetry ----------------------------------------------------------------------------------


async def test_what_members_say_of_themselves_is_known_when_they_arrive(
    village: Village, autojump_clock: Clock
) -> None:
    async with village.open_member("A") as a, village.open_member("B") as b:
        heard: list[object] = []
        a.mesh.listen(lambda change: heard.append(a.mesh.facts_of(change.peer).profile))
        a.meets(b)
        await become_members(a, b)
        (profile,) = heard
        assert profile is not None


async def test_load_that_moves_is_known_within_two_seconds(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, b):
        await trio.sleep(1)
        b.about.hot = busy(b.about.hot, 3)
        await trio.sleep(2)
        hot = a.mesh.facts_of(B).hot
        assert hot is not None
        assert hot.repl.running == 3


async def test_a_changed_profile_can_be_announced_at_once(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, b):
        b.about.languages = ("julia",)
        await b.mesh.announce_profile()
        await trio.sleep(0.1)
        assert a.mesh.rank(Need("code", language="julia")).best is not None


async def test_garbage_gossip_of_a_member_disturbs_nobody(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, b):
        for garbage in (b"", b"garbage", bytes(32 * 1024), codec.encode(RoundTrip())):
            await b.transport.publish(TELEMETRY, garbage)
        b.about.hot = busy(b.about.hot, 2)
        await trio.sleep(6)
        hot = a.mesh.facts_of(B).hot
        assert hot is not None
        assert hot.repl.running == 2


async def test_a_restarted_member_is_believed_with_what_it_is_now(
    village: Village, autojump_clock: Clock
) -> None:
    async with village.open_member("A") as a:
        async with village.open_member("B") as b:
            a.meets(b)
            await become_members(a, b)
            await trio.sleep(100)
        again = About("B", boot="00000000000000b1", languages=("bash",))
        async with village.open_member("B", about=again) as b:
            await become_members(a, b)
            assert a.mesh.rank(Need("code", language="bash")).best is not None
            assert a.arrivals(B) == ["MemberConnected", "MemberDisconnected", "MemberConnected"]


# --- asking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [A, B])
async def test_ourselves_and_others_are_asked_alike(
    village: Village, target: PeerId, autojump_clock: Clock
) -> None:
    async def sleep(conversation: Conversation, request: Message) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with members(village, "A", "B") as (a, b):
        for one in (a, b):
            one.mesh.serve(WORK, echo)
        assert await a.mesh.request(target, WORK, asked(3), ContentChunk, timeout_s=5) == said(3)
        with pytest.raises(RemoteProtocolError, match="content/chunk in answer to"):
            await a.mesh.request(target, WORK, asked(3), RoundTrip, timeout_s=5)
        for one in (a, b):
            one.mesh.serve(SLOW_WORK, sleep)
        started = trio.current_time()
        with pytest.raises(PeerUnreachableError, match="within 2 s"):
            await a.mesh.request(target, SLOW_WORK, asked(3), ContentChunk, timeout_s=2)
        assert trio.current_time() - started == pytest.approx(2, abs=0.1)


async def test_what_is_not_served_here_is_refused(village: Village, autojump_clock: Clock) -> None:
    async with village.open_member("A") as a:
        with pytest.raises(RequestRefusedError) as caught:
            await a.mesh.request(A, WORK, asked(), ContentChunk, timeout_s=5)
        assert caught.value.reason == "unsupported"


async def test_content_is_asked_for_by_its_own_conversation(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, b):
        b.mesh.serve("/kowalski/content/1", echo)
        assert await a.mesh.request_chunk(B, asked(7), timeout_s=5) == said(7)
