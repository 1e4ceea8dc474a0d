"""What people are told of two machines with one identity."""

from __future__ import annotations

import pytest
import structlog
import trio

from kowalski.mesh.core.twins import Params
from kowalski.mesh.twins import TwinWatch
from kowalski.protocol.ids import Address, PeerId

ME, PEER = PeerId("me"), PeerId("peer")
HERE = (Address("/ip4/192.0.2.1/tcp/4170"),)
THERE = (Address("/ip4/192.0.2.2/tcp/4170"),)


class World:
    """One watch, and a peer that answers from whichever boot it is asked at."""

    def __init__(self, nursery: trio.Nursery, answers: str) -> None:
        self.asked: list[PeerId] = []
        self._answers = answers
        self.watch = TwinWatch(ME, lambda: HERE, ask=self._ask, nursery=nursery)

    async def _ask(self, peer: PeerId) -> None:
        self.asked.append(peer)
        await trio.lowlevel.checkpoint()
        self.watch.met(peer, self._answers, ())


@pytest.mark.trio
async def test_who_announces_our_id_elsewhere_is_told_once_and_warned_of_until_it_stops(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        watch = World(nursery, "").watch
        with structlog.testing.capture_logs() as logs:
            watch.announced(THERE)
            watch.announced(THERE)
        assert [line["log_level"] for line in logs] == ["error"]
        assert "192.0.2.2" in watch.warnings()[ME]
        assert "kowalski-node identity rotate" in watch.warning(ME)
        await trio.sleep(Params().told_for_s + 1)
        assert watch.warnings() == {}


@pytest.mark.trio
async def test_our_own_announcement_from_before_a_restart_is_no_twin(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        watch = World(nursery, "").watch
        watch.announced((*THERE, *HERE))
        assert watch.warnings() == {}


@pytest.mark.trio
async def test_a_peer_with_a_new_boot_is_asked_again_and_found_to_be_two(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, "first")
        world.watch.met(PEER, "first", HERE)
        world.watch.met(PEER, "second", THERE)
        world.watch.met(PEER, "second", THERE)
        assert world.watch.warning(PEER) == ""
    assert world.asked == [PEER]
    assert "192.0.2.2" in world.watch.warning(PEER)


@pytest.mark.trio
async def test_a_peer_that_was_restarted_is_asked_again_and_found_to_be_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, "second")
        world.watch.met(PEER, "first", HERE)
        world.watch.met(PEER, "second", HERE)
    assert world.asked == [PEER]
    assert world.watch.warnings() == {}
