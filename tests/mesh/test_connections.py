"""Connections to members are lost, noticed, and made anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from kowalski.mesh.admission import MEMBERSHIP_PROTOCOL
from kowalski.mesh.connections import HEARSAY_DIALS_AT_A_TIME
from kowalski.mesh.conversation import Conversation, serve
from kowalski.mesh.core.connectivity import Params, Sighted
from kowalski.mesh.failure_detection import SWIM_PROTOCOL
from kowalski.mesh.invites import InviteBook
from kowalski.mesh.loopback_transport import LoopbackTransport, Weather, open_loopback_network
from kowalski.mesh.mesh import open_mesh
from kowalski.mesh.telemetry_gossip import Self
from kowalski.mesh.transport import Stream
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import Address, PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentChunk
from kowalski.protocol.messages.membership import Hello, Ready, RoundTrip, Welcome
from tests.mesh.members import (
    WORK,
    About,
    Village,
    asked,
    become_members,
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

LATENCY_S = 0.02
A, B, C = peer_of("A"), peer_of("B"), peer_of("C")


@pytest.fixture
async def village(tmp_path: Path) -> AsyncIterator[Village]:
    async with open_loopback_network(weather=Weather(latency_s=LATENCY_S)) as network:
        yield Village(network, tmp_path)


async def test_a_killed_member_is_unroutable_at_once_and_its_leaving_told_once(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B", "C") as (a, _, c):
        village.network.kill(B)
        await trio.testing.wait_all_tasks_blocked()
        assert not a.mesh.is_routable(B)
        assert not a.mesh.is_member(B)
        assert B not in {candidate.peer for candidate in a.mesh.candidates()}
        await trio.sleep(300)
        for one in (a, c):
            assert one.arrivals(B) == ["MemberConnected", "MemberDisconnected"]
        assert a.mesh.is_routable(C)


async def test_a_far_address_is_dialled_after_a_near_one_however_they_were_told(
    village: Village, autojump_clock: Clock
) -> None:
    by_name, near = Address("/dns4/desk.example/tcp/4170"), Address("/ip4/127.0.0.1/tcp/4170")
    for told in ((by_name, near), (near, by_name)):
        async with members(village, "A") as (a,):
            a.mesh.sighted(Sighted(C, told))
            await trio.sleep(5)
            why_not = a.mesh.facts_of(C).why_not
            assert why_not.count(by_name) == 1, "of the last one that failed, which is named once"


async def test_members_find_each_other_again_when_the_link_is_mended(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, b):
        village.network.cut(A, B)
        await trio.sleep(200)
        assert not a.mesh.is_routable(B)
        village.network.mend(A, B)
        mended_at = trio.current_time()
        await become_members(a, b)
        assert trio.current_time() - mended_at <= Params().retry_s_max + 1
        for one, other in ((a, B), (b, A)):
            assert one.arrivals(other) == [
                "MemberConnected",
                "MemberDisconnected",
                "MemberConnected",
            ]
        await b.mesh.announce_profile()
        a.mesh.serve(WORK, echo)
        assert await b.mesh.request(A, WORK, asked(1), ContentChunk, timeout_s=5) == said(1)


async def test_a_peer_that_restarts_is_a_member_again_within_three_seconds(
    village: Village, autojump_clock: Clock
) -> None:
    async with village.open_member("A") as a:
        async with village.open_member("B") as b:
            a.meets(b)
            await become_members(a, b)
        async with village.open_member("B") as b:
            started = trio.current_time()
            await become_members(a, b)
            assert trio.current_time() - started < 3


async def say_nothing(_asking: Conversation, _asked: Message) -> Message:
    await trio.sleep_forever()
    raise AssertionError


async def proof_of(s: LoopbackTransport, conversation: Conversation) -> Message:
    """Its answer to who asks it to prove its membership."""
    welcome = Welcome(
        certificate=membership(s.peer).certificate,
        boot=About("").boot,
        name="s",
        addresses=s.addresses,
    )
    await conversation.send(welcome)
    await conversation.receive()
    return Ready()


async def test_a_member_that_answers_nothing_is_unroutable_and_then_hung_up_on(
    village: Village, autojump_clock: Clock
) -> None:
    async with village.open_member("A") as a, stranger(village, knows=a) as s:

        async def prove_only(conversation: Conversation, request: Message) -> Message:
            if not isinstance(request, Hello):
                await trio.sleep_forever()
            return await proof_of(s, conversation)

        serve(s, MEMBERSHIP_PROTOCOL, prove_only)
        serve(s, SWIM_PROTOCOL, say_nothing)
        await eventually(lambda: a.mesh.is_member(s.peer), within_s=20)
        assert a.mesh.is_routable(s.peer)
        with capture_logs() as logs:
            await trio.sleep(3)
        assert not a.mesh.is_routable(s.peer)
        assert [one["peer"] for one in logs if one["event"] == "unroutable"] == [s.peer]
        assert a.mesh.is_member(s.peer)
        await trio.sleep(9)
        assert a.arrivals(s.peer)[:2] == ["MemberConnected", "MemberDisconnected"]


async def test_who_was_given_up_and_says_one_thing_more_before_it_is_silent_is_hung_up_on(
    village: Village, autojump_clock: Clock
) -> None:
    async with village.open_member("A") as a, stranger(village, knows=a) as s:
        last_words: list[float] = []

        async def prove_and_answer_until_given_up(
            conversation: Conversation, request: Message
        ) -> Message:
            if isinstance(request, RoundTrip):
                if last_words:
                    await trio.sleep_forever()
                if a.mesh.state_of(s.peer) == "failed":
                    last_words.append(trio.current_time())
                return request
            return await proof_of(s, conversation)

        serve(s, MEMBERSHIP_PROTOCOL, prove_and_answer_until_given_up)
        serve(s, SWIM_PROTOCOL, say_nothing)
        await eventually(lambda: bool(last_words), within_s=60)
        assert a.arrivals(s.peer) == ["MemberConnected"]
        await eventually(lambda: "MemberDisconnected" in a.arrivals(s.peer), within_s=15)


async def test_a_connection_lost_before_it_was_noticed_is_not_taken_for_one(
    village: Village, autojump_clock: Clock
) -> None:
    dials: list[float] = []

    class HangsUp(LoopbackTransport):
        async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
            dials.append(trio.current_time())
            await super().connect(peer, address, timeout_s=timeout_s)
            await self.disconnect(peer)
            # Others run before the caller does.
            await trio.testing.wait_all_tasks_blocked()

    def hangs_up(transport: LoopbackTransport) -> LoopbackTransport:
        transport.__class__ = HangsUp
        return transport

    async with village.open_member("A", over=hangs_up) as a, village.network.transport(B) as b:
        a.mesh.sighted(Sighted(B, b.addresses))
        await trio.sleep(Params().stranger_s / 2)
        assert a.mesh.facts_of(B).state in {"absent", "dialling"}
        assert len(dials) > 3


async def test_of_equally_near_addresses_the_one_that_worked_last_is_dialled_first(
    village: Village, autojump_clock: Clock
) -> None:
    dials: list[Address] = []

    class Tells(LoopbackTransport):
        async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
            dials.append(address)
            await super().connect(peer, address, timeout_s=timeout_s)

    def tells(transport: LoopbackTransport) -> LoopbackTransport:
        transport.__class__ = Tells
        return transport

    async with village.open_member("A", over=tells) as a, village.network.transport(B) as b:
        nowhere = Address("/memory/nowhere")
        a.mesh.sighted(Sighted(B, (nowhere, *b.addresses)))
        await eventually(lambda: B in a.transport.connections, within_s=5)
        await a.transport.disconnect(B)
        a.mesh.sighted(Sighted(B, (nowhere, *b.addresses)))
        await eventually(lambda: len(dials) == 3, within_s=30)
    assert dials == [nowhere, *b.addresses, *b.addresses]


async def test_hundreds_that_nobody_is_do_not_hold_up_a_member(
    village: Village, autojump_clock: Clock
) -> None:
    """Each dial of one of them takes as long as is waited for an answer, and they come first."""
    under_way, most = 0, 0

    class Waits(LoopbackTransport):
        async def connect(self, peer: PeerId, address: Address, *, timeout_s: float) -> None:
            nonlocal under_way, most
            if address == "/memory/nowhere":
                under_way += 1
                most = max(most, under_way)
                await trio.sleep(timeout_s)
                under_way -= 1
            await super().connect(peer, address, timeout_s=timeout_s)

    def waits(transport: LoopbackTransport) -> LoopbackTransport:
        transport.__class__ = Waits
        return transport

    async with village.open_member("A", over=waits) as a, village.open_member("B") as b:
        for number in range(200):
            nobody, nowhere = peer_of(f"nobody {number}"), Address("/memory/nowhere")
            mesh = a.mesh.membership.mesh
            a.mesh.sighted(Sighted(nobody, (nowhere,), mesh, is_announced=True))
        await trio.sleep(1.5)
        a.meets(b)
        await eventually(lambda: a.mesh.is_member(B), within_s=3)
        assert most == HEARSAY_DIALS_AT_A_TIME


async def test_leaving_the_mesh_ends_its_tasks_and_connections_stay_the_transports(
    village: Village, tmp_path: Path, autojump_clock: Clock
) -> None:
    async with village.open_member("B") as b, village.network.transport(A) as transport:
        about = About("A")
        async with open_mesh(
            transport,
            membership(A),
            Self("A", about.boot, about.profile, lambda: about.hot),
            InviteBook(tmp_path / "a.json", wall_clock),
            unix_clock=wall_clock,
        ) as mesh:
            mesh.sighted(Sighted(B, b.transport.addresses))
            await eventually(lambda: mesh.is_member(B))
        assert transport.connections == {B}


async def test_streams_of_a_protocol_are_opened_to_members_that_just_left(
    village: Village, autojump_clock: Clock
) -> None:
    async def never(stream: Stream) -> None:
        await trio.sleep_forever()

    async with members(village, "A", "B") as (a, b):
        b.transport.serve(WORK, never)
        village.network.kill(B)
        with pytest.raises(PeerUnreachableError):
            await a.mesh.request(B, WORK, asked(), ContentChunk, timeout_s=5)
