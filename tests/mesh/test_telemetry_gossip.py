from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from kowalski.mesh.core import topology
from kowalski.mesh.core.announcements import Params
from kowalski.mesh.core.latency import Latency, measure
from kowalski.mesh.loopback_transport import LoopbackTransport, open_loopback_network
from kowalski.mesh.telemetry_gossip import Self, TelemetryGossip
from kowalski.protocol import codec
from kowalski.protocol.ids import PeerId, Topic
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.telemetry import Hot, HotDelta, RoundTrips, RoundTripTo
from tests.mesh.members import About, busy, peer_of
from tests.mesh.transport_promises import join

pytestmark = pytest.mark.trio
Clock = trio.testing.MockClock

A, B = peer_of("A"), peer_of("B")
TOPIC = Topic("kowalski/test/telemetry")
ROWS = topology.Params()
PARAMS = Params()


@dataclass
class Pair:
    """A talks, B listens; `gossip` is B's."""

    about: About
    talker: LoopbackTransport
    gossip: TelemetryGossip
    admitted: set[PeerId]

    @property
    def heard(self) -> Hot | None:
        known = self.gossip.view.peers.get(A)
        return known.hot if known else None

    async def say(self, data: bytes) -> None:
        await self.talker.publish(TOPIC, data)
        await trio.sleep(0.1)


@asynccontextmanager
async def open_pair(
    *,
    talks: bool = True,
    mesh_size: int = 2,
    latencies: dict[PeerId, Latency] | None = None,
) -> AsyncIterator[Pair]:
    about, admitted = About("talker"), {A}

    def gossip(transport: LoopbackTransport) -> TelemetryGossip:
        return TelemetryGossip(
            transport,
            TOPIC,
            Self(about.name, about.boot, about.profile, lambda: about.hot),
            admits=admitted.__contains__,
            on_boot=lambda _peer, _boot, _sequence: None,
            params=PARAMS,
            tick_s=0.5,
            mesh_size=lambda: mesh_size,
            latencies=lambda: latencies or {},
        )

    async with (
        open_loopback_network() as network,
        network.transport(A) as talker,
        network.transport(B) as listener,
        trio.open_nursery() as nursery,
    ):
        await join(talker, listener)
        listening = gossip(listener)
        await nursery.start(listening.listen)
        if talks:
            nursery.start_soon(gossip(talker).announce)
        yield Pair(about, talker, listening, admitted)
        nursery.cancel_scope.cancel()


def profile(sequence: int) -> bytes:
    return codec.encode(About("talker").profile(sequence))


def delta(sequence: int, running: int) -> bytes:
    about = About("talker")
    hot = busy(about.hot, running)
    return codec.encode(HotDelta(boot=about.boot, sequence=sequence, hot=hot))


async def test_the_profile_is_said_at_once_and_every_minute(autojump_clock: Clock) -> None:
    async with open_pair() as pair:
        await trio.sleep(0.1)
        assert pair.gossip.view.peers[A].profile.languages[0].name == "python"
        pair.about.languages = ("bash",)
        await trio.sleep(PARAMS.profile_s - 2)
        assert pair.gossip.view.peers[A].profile.languages[0].name == "python"
        await trio.sleep(3)
        assert pair.gossip.view.peers[A].profile.languages[0].name == "bash"


async def test_hot_values_follow_within_seconds_and_faster_when_they_move(
    autojump_clock: Clock,
) -> None:
    async with open_pair() as pair:
        await trio.sleep(1)
        pair.about.hot = busy(pair.about.hot, 3)
        await trio.sleep(PARAMS.hot_s_min + 0.6)
        assert pair.heard == pair.about.hot
        barely = pair.about.hot.model_copy(update={"cpu_used": 0.01})
        pair.about.hot = barely
        await trio.sleep(PARAMS.hot_s_min + 0.6)
        assert pair.heard != barely
        await trio.sleep(PARAMS.hot_s_max)
        assert pair.heard == barely


async def test_it_speaks_no_more_than_once_a_second_however_much_moves(
    autojump_clock: Clock,
) -> None:
    async with open_pair() as pair:
        for number in range(40):
            pair.about.hot = pair.about.hot.model_copy(update={"cpu_used": number % 7 / 7})
            await trio.sleep(0.25)
        assert 8 <= pair.gossip.view.peers[A].sequence <= 12


async def test_what_is_said_first_is_numbered_first(autojump_clock: Clock) -> None:
    async with open_pair(talks=False) as pair:
        assert [pair.gossip.profile().sequence for _ in range(3)] == [1, 2, 3]
        await pair.gossip.announce_profile()
        assert pair.gossip.profile().sequence == 5


@pytest.mark.parametrize(
    "garbage",
    [b"", b"garbage", profile(9)[:-1], profile(9) + b"x", codec.encode(RoundTrip())],
)
async def test_garbage_of_a_member_is_dropped_and_the_next_word_heard(
    garbage: bytes, autojump_clock: Clock
) -> None:
    async with open_pair(talks=False) as pair:
        await pair.say(profile(1))
        await pair.say(garbage)
        assert pair.gossip.view.peers[A].sequence == 1
        await pair.say(delta(2, running=2))
        assert pair.heard == busy(About("").hot, 2)


async def test_gossip_of_a_stranger_is_not_heard(autojump_clock: Clock) -> None:
    async with open_pair(talks=False) as pair:
        pair.admitted.clear()
        await pair.say(profile(1))
        assert pair.gossip.view.peers == {}
        pair.admitted.add(A)
        await pair.say(profile(2))
        assert pair.gossip.view.peers[A].sequence == 2


async def test_replayed_gossip_changes_nothing(autojump_clock: Clock) -> None:
    async with open_pair(talks=False) as pair:
        await pair.say(profile(1))
        await pair.say(delta(2, running=1))
        await pair.say(delta(3, running=2))
        await pair.say(delta(2, running=1))
        await pair.say(profile(1))
        assert pair.heard == busy(About("").hot, 2)
        assert pair.gossip.view.dropped == 2


async def test_values_that_came_with_a_reply_are_taken(autojump_clock: Clock) -> None:
    async with open_pair(talks=False) as pair:
        fresh = busy(About("").hot, 4)
        pair.gossip.hear_reply(A, fresh)
        assert pair.heard is None
        pair.gossip.hear_profile(A, None)
        assert pair.heard is None
        pair.gossip.hear_profile(A, About("talker").profile(1))
        pair.gossip.hear_reply(A, fresh)
        assert pair.heard == fresh


async def test_a_row_of_round_trips_is_taken_from_the_boot_that_runs(
    autojump_clock: Clock,
) -> None:
    async with open_pair(talks=False) as pair:

        def row(boot: str, sequence: int, smooth_s: float) -> bytes:
            path = RoundTripTo(peer=B, smooth_s=smooth_s, least_s=smooth_s, jitter_s=0.0)
            return codec.encode(RoundTrips(boot=boot, sequence=sequence, paths=(path,)))

        boot = pair.about.boot
        await pair.say(row(boot, 5, 0.1))
        assert A not in pair.gossip.topology.rows, "no profile was heard yet"
        await pair.say(profile(4))
        for data in (row(boot, 5, 0.1), row("f" * 16, 9, 0.7), row(boot, 3, 0.9)):
            await pair.say(data)
        assert pair.gossip.topology.rows[A].paths[B].smooth_s == 0.1
        pair.gossip.forget(A)
        assert A not in pair.gossip.topology.rows


@pytest.mark.parametrize(
    ("mesh_size", "said_at_least", "said_at_most"), [(50, 11, 13), (500, 1, 3)]
)
async def test_in_a_mesh_ten_times_as_large_each_says_a_tenth(
    autojump_clock: Clock, mesh_size: int, said_at_least: int, said_at_most: int
) -> None:
    async with open_pair(mesh_size=mesh_size) as pair:
        await trio.sleep(60.5)
        assert said_at_least <= pair.gossip.view.peers[A].sequence <= said_at_most


async def test_our_row_is_told_again_once_it_has_moved_and_not_before_its_time(
    autojump_clock: Clock,
) -> None:
    latencies = {B: measure(None, 0.1, 0.0)}
    async with open_pair(latencies=latencies) as pair:
        pair.gossip.hear_profile(A, About("talker").profile(0))

        def told() -> tuple[int, float]:
            row = pair.gossip.topology.rows[A]
            return row.sequence, row.paths[B].smooth_s

        await trio.sleep(0.2)
        first, smooth_s = told()
        assert smooth_s == 0.1
        latencies[B] = measure(None, 0.5, 0.0)
        await trio.sleep(ROWS.row_s_min - 1.0)
        assert told() == (first, 0.1)
        await trio.sleep(2.0)
        second, smooth_s = told()
        assert (second > first, smooth_s) == (True, 0.5)
        await trio.sleep(ROWS.row_s_min + 2.0)
        assert told() == (second, 0.5)
