"""Nodes that do not know each other, and nodes that know the dead, are found."""

from __future__ import annotations

import pytest
import trio

from simulations.checkers.views import disagreements, ghosts
from simulations.virtual_time import JumpingClock
from simulations.world import open_world


@pytest.mark.trio
async def test_who_is_cut_off_is_missed_on_both_sides(virtual_time: JumpingClock) -> None:
    async with open_world(3) as world:
        assert not disagreements(world)
        world.cut(0, 1)
        await trio.sleep(1)
        found = disagreements(world)
        assert [words[:21] for words in found] == [
            "node 0 holds node 1 f",
            "node 1 holds node 0 f",
        ]
        world.mend(0, 1)
        await world.meet()
        assert not disagreements(world)


@pytest.mark.trio
async def test_who_is_down_and_still_routed_to_is_a_ghost(virtual_time: JumpingClock) -> None:
    async with open_world(3) as world:
        await world.kill(2, is_silent=True)
        assert ghosts(world) == [
            "node 0 routes to node 2, which is down",
            "node 1 routes to node 2, which is down",
        ]
        assert not disagreements(world), "it is down, so nobody has to know it"
        await world.until(lambda: not ghosts(world), within_s=60)
