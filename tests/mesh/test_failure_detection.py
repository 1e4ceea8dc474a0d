"""Members on a loopback network notice who is gone, and who is merely out of their own reach."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from kowalski.mesh.conversation import open_asker
from kowalski.mesh.core.failure_detector_state import Params
from kowalski.mesh.failure_detection import SWIM_PROTOCOL
from kowalski.mesh.loopback_transport import open_loopback_network
from kowalski.mesh.loopback_wires import Link, Wires
from kowalski.mesh.mesh import Tuning
from kowalski.protocol.errors import PeerUnreachableError, RequestFailedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import swim
from kowalski.protocol.messages.membership import RoundTrip
from tests.mesh.members import Member, Village, become_members, membership, peer_of
from tests.mesh.wires import eventually

pytestmark = pytest.mark.trio
Clock = trio.testing.MockClock

A, B, C, D = (peer_of(name) for name in "ABCD")


class SilentWires(Wires):
    """Links that can fall silent, one direction at a time: nobody is told."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.silent: set[tuple[PeerId, PeerId]] = set()

    def link(self, sender: PeerId, receiver: PeerId) -> Link:
        is_silent = (sender, receiver) in self.silent
        return Link.SILENT if is_silent else super().link(sender, receiver)


@pytest.fixture
def wires() -> SilentWires:
    return SilentWires()


@pytest.fixture
async def village(tmp_path: Path, wires: SilentWires) -> AsyncIterator[Village]:
    async with open_loopback_network(wires=wires) as network:
        yield Village(network, tmp_path)


@asynccontextmanager
async def members(village: Village, names: str, **options: object) -> AsyncIterator[list[Member]]:
    """Members that know each other already."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(village.open_member(name, **options))  # type: ignore[arg-type]
            for name in names
        ]
        for number, one in enumerate(opened):
            one.meets(*opened[number + 1 :])
        await become_members(*opened)
        await eventually(lambda: len({one.mesh.detection.table.digest for one in opened}) == 1)
        for one in opened:
            one.thoughts.clear()
        yield opened


def states(member: Member, peer: PeerId) -> list[str]:
    """What it came to think of the other, step by step."""
    return [change.state for change in member.thoughts if change.peer == peer]


# --- gone ---------------------------------------------------------------------------------------


async def test_a_killed_member_is_given_up_by_all_within_two_seconds(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "ABC") as (a, _, c):
        village.network.kill(B)
        killed_at = trio.current_time()
        await trio.testing.wait_all_tasks_blocked()
        assert not a.mesh.is_routable(B), "at once, for its connection is closed"
        assert a.mesh.state_of(B) in {"alive", "suspect"}, "which is no verdict"
        await eventually(lambda: a.mesh.state_of(B) == c.mesh.state_of(B) == "failed")
        assert trio.current_time() - killed_at < 2.0
        await trio.sleep(60)
        assert states(a, B) == states(c, B) == ["suspect", "failed"]
        assert a.mesh.state_of(C) == c.mesh.state_of(A) == "alive"


async def test_a_member_without_power_is_unroutable_and_then_given_up_though_nobody_is_told(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "ABC") as (a, _, c):
        village.network.kill(B, is_silent=True)
        began = trio.current_time()
        await eventually(lambda: not a.mesh.is_routable(B) and not c.mesh.is_routable(B))
        assert trio.current_time() - began < 4.0
        await eventually(lambda: a.mesh.state_of(B) == c.mesh.state_of(B) == "failed")
        assert trio.current_time() - began < 6.0


async def test_whoever_hears_a_suspicion_asks_for_itself_and_sends_nothing_to_who_is_silent(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "ABCDEFGH") as (a, *others):
        claim = swim.MemberClaim(peer=C, state="suspect", incarnation=1, accuser=D)
        told = swim.ClaimsTold(claims=(claim,))
        await others[0].mesh.request(A, SWIM_PROTOCOL, told, swim.ClaimsHeard, timeout_s=5)
        assert a.mesh.state_of(C) == "suspect"
        await trio.sleep(2)
        assert a.mesh.is_routable(C), "it is there, and says so"
        village.network.kill(B, is_silent=True)
        watching = [one for one in (a, *others) if one.peer != B]
        await eventually(lambda: any(one.mesh.state_of(B) == "suspect" for one in watching))
        await trio.sleep(1.3)
        assert not any(one.mesh.is_routable(B) for one in watching)
        await eventually(lambda: all(one.mesh.state_of(B) == "failed" for one in watching))


@pytest.mark.parametrize(("about", "patience_s"), [((B,), 0.5), ((A, B), 1.0)])
async def test_whom_others_suspect_has_as_long_to_answer_as_a_probe_and_longer_where_we_are_doubted(
    village: Village, autojump_clock: Clock, about: tuple[PeerId, ...], patience_s: float
) -> None:
    # Nobody else looks for itself, so that the answer to our own question decides.
    tuning = Tuning(detection=Params(verifiers=0.0, interval_s=60.0))
    async with members(village, "ABCD", tuning=tuning) as (a, _, c, _):
        village.network.kill(B, is_silent=True)
        claims = tuple(
            swim.MemberClaim(peer=peer, state="suspect", incarnation=1, accuser=D) for peer in about
        )
        told = swim.ClaimsTold(claims=claims)
        await c.mesh.request(A, SWIM_PROTOCOL, told, swim.ClaimsHeard, timeout_s=5)
        heard_at = trio.current_time()
        await eventually(lambda: not a.mesh.is_routable(B))
        assert trio.current_time() - heard_at == pytest.approx(patience_s, abs=0.1)


async def test_a_member_that_says_goodbye_is_never_suspected(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "ABC") as (a, b, c):
        await b.mesh.leave()
        village.network.kill(B)
        await eventually(lambda: a.mesh.state_of(B) == c.mesh.state_of(B) == "left")
        await trio.sleep(60)
        assert states(a, B) == states(c, B) == ["left"]


async def test_a_member_that_comes_back_is_alive_again_at_a_higher_incarnation(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "AC") as (a, c):
        async with village.open_member("B") as b:
            b.meets(a, c)
            await become_members(a, b, c)
            village.network.kill(B)
            await eventually(lambda: a.mesh.state_of(B) == "failed")
        async with village.open_member("B") as b:
            b.meets(a, c)
            came_at = trio.current_time()
            await eventually(lambda: a.mesh.state_of(B) == c.mesh.state_of(B) == "alive")
            assert trio.current_time() - came_at < 5.0
            assert a.mesh.facts_of(B).incarnation > 1


async def test_a_restart_raises_the_incarnation_that_is_on_disk(
    village: Village, autojump_clock: Clock
) -> None:
    for start in (1, 2, 3):
        async with village.open_member("A", keeps=True) as a:
            assert a.mesh.detection.table.incarnation == start


# --- out of our own reach -----------------------------------------------------------------------


async def test_a_member_that_others_reach_is_alive_but_not_routable_for_who_does_not(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "ABC") as (a, b, c):
        village.network.cut(A, B)
        await trio.sleep(120)
        for one, other in ((a, B), (b, A)):
            assert not one.mesh.is_routable(other)
            assert one.mesh.state_of(other) == "alive"
            assert one.mesh.facts_of(other).membership == "alive"
            assert "failed" not in states(one, other)
        assert not c.thoughts


@pytest.mark.parametrize("direction", [(A, B), (B, A)])
async def test_a_link_that_is_silent_one_way_makes_nobody_fail_and_heals(
    village: Village, wires: SilentWires, direction: tuple[PeerId, PeerId], autojump_clock: Clock
) -> None:
    async with members(village, "ABCD") as (a, b, c, d):
        wires.silent.add(direction)
        began = trio.current_time()
        await eventually(lambda: not (a.mesh.is_routable(B) or b.mesh.is_routable(A)), within_s=60)
        assert trio.current_time() - began < 10.0
        await trio.sleep(60)
        for one in (a, b, c, d):
            assert "failed" not in [change.state for change in one.thoughts]
        wires.silent.clear()
        village.network.release(A, B)
        await eventually(lambda: a.mesh.is_routable(B) and b.mesh.is_routable(A), within_s=60)


async def test_two_halves_give_each_other_up_and_find_together_again(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "ABCD") as opened:
        for one in (A, B):
            for other in (C, D):
                village.network.cut(one, other)
        a, c = opened[0], opened[2]
        await eventually(
            lambda: a.mesh.state_of(C) == a.mesh.state_of(D) == c.mesh.state_of(A) == "failed",
            within_s=60,
        )
        for one in (A, B):
            for other in (C, D):
                village.network.mend(one, other)
        await become_members(*opened)
        everybody = {one.peer for one in opened}
        await eventually(
            lambda: all(one.mesh.state_of(peer) == "alive" for one in opened for peer in everybody),
        )


async def test_a_member_that_loses_all_others_at_once_suspects_the_network_before_them(
    village: Village, wires: SilentWires, autojump_clock: Clock
) -> None:
    async with members(village, "ABCDEFGH") as (a, *others):
        wires.silent |= {(A, one.peer) for one in others} | {(one.peer, A) for one in others}
        await eventually(lambda: all(one.mesh.state_of(A) == "failed" for one in others))
        assert not any(states(a, one.peer)[-1:] == ["failed"] for one in others)
        await eventually(lambda: a.mesh.detection.state.is_partition, within_s=120)
        assert not any(states(a, one.peer)[-1:] == ["failed"] for one in others)
        for one in others:
            assert {change.peer for change in one.thoughts if change.state == "failed"} == {A}


# --- asleep -------------------------------------------------------------------------------------


async def test_who_slept_is_back_within_two_seconds_and_accuses_nobody(
    village: Village, autojump_clock: Clock
) -> None:
    slept_s = 0.0
    tuning = Tuning(clock_with_sleep=lambda: trio.current_time() + slept_s)
    async with members(village, "ABC", tuning=tuning) as (a, b, c):
        # Its connections have died meanwhile, and the others have given it up.
        village.network.cut(A, B)
        village.network.cut(A, C)
        await trio.sleep(60)
        assert b.mesh.state_of(A) == "failed"
        a.thoughts.clear()
        village.network.mend(A, B)
        village.network.mend(A, C)
        assert a.mesh.detection.here_since < trio.current_time() - 50
        slept_s += 3600.0
        woke_at = trio.current_time()
        await eventually(
            lambda: (
                all(one.mesh.state_of(A) == "alive" for one in (b, c))
                and all(a.mesh.is_routable(peer) for peer in (B, C))
            )
        )
        assert trio.current_time() - woke_at < 2.0
        await trio.sleep(30)
        assert 0.0 <= a.mesh.detection.here_since - woke_at <= 2.0
        assert "failed" not in [change.state for change in a.thoughts]


# --- what is asked ------------------------------------------------------------------------------


async def test_a_peer_answers_a_probe_with_what_it_knows_that_is_news(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "ABC") as (a, b, _):
        claim = swim.MemberClaim(peer=C, state="suspect", incarnation=1, accuser=A)
        probe = swim.Probe(claims=(claim,))
        answer = await a.mesh.request(B, SWIM_PROTOCOL, probe, swim.ProbeAnswered, timeout_s=5)
        assert answer.claims[0].peer == C
        assert b.mesh.state_of(C) == "suspect"
        await eventually(lambda: b.mesh.state_of(C) == "alive")
        assert b.mesh.facts_of(C).incarnation == 2, "it has contradicted"


async def test_claims_about_peers_that_do_not_belong_are_not_believed(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "AB") as (a, b):
        claims = (swim.MemberClaim(peer=D, state="alive", incarnation=1),)
        told = swim.ClaimsTold(claims=claims)
        await a.mesh.request(B, SWIM_PROTOCOL, told, swim.ClaimsHeard, timeout_s=5)
        assert b.mesh.state_of(D) is None


async def test_a_helper_says_whom_it_reaches(village: Village, autojump_clock: Clock) -> None:
    async with members(village, "ABC") as (a, _, _):
        for target, has_reached in ((C, True), (D, False)):
            asked = swim.HelpAsked(target=target, within_s=1.0)
            answer = await a.mesh.request(B, SWIM_PROTOCOL, asked, swim.HelpAnswered, timeout_s=5)
            assert answer.has_reached is has_reached


async def test_tables_that_differ_are_compared_and_certificates_go_along(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "AB") as (a, b):
        equal = f"{b.mesh.detection.table.digest:016x}"
        for digest, count in ((equal, 0), ("0" * 16, 2)):
            asked = swim.SyncAsked(digest=digest)
            answer = await a.mesh.request(B, SWIM_PROTOCOL, asked, swim.SyncAnswered, timeout_s=5)
            assert answer.digest == equal
            assert len(answer.rows) == len(answer.members) == count


async def test_something_else_in_this_conversation_is_an_error(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "AB") as (a, _):
        with pytest.raises(RequestFailedError, match="membership/round-trip in a conversation"):
            await a.mesh.request(B, SWIM_PROTOCOL, RoundTrip(), RoundTrip, timeout_s=5)


async def test_strangers_are_not_told_who_is_there(village: Village, autojump_clock: Clock) -> None:
    async with (
        members(village, "AB") as (a, _),
        village.network.transport(D) as stranger,
        open_asker(stranger) as asker,
    ):
        await stranger.connect(A, a.transport.addresses[0], timeout_s=5)
        with pytest.raises(PeerUnreachableError, match="does not speak /kowalski/swim/1"):
            await asker.request(A, SWIM_PROTOCOL, swim.Probe(), swim.ProbeAnswered, timeout_s=30)


async def test_what_is_known_of_a_revoked_member_is_forgotten_by_all(
    village: Village, autojump_clock: Clock
) -> None:
    founder = membership(A, is_founder=True)
    async with village.open_member("A", belongs=founder) as a, members(village, "BC") as (b, c):
        a.meets(b, c)
        await become_members(a, b, c)
        a.mesh.trust.revoke(B, "lost")
        await eventually(lambda: a.mesh.state_of(B) is None and c.mesh.state_of(B) is None)
        await trio.sleep(60)
        assert a.mesh.state_of(B) is c.mesh.state_of(B) is None
