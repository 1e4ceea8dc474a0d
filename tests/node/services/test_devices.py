"""Where the work of a task may go, seen from the device it was submitted on."""

from __future__ import annotations

import dataclasses

import pytest

from simulations.places import Part
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import ASKER, THINKER, block

pytestmark = pytest.mark.trio

ALL = dataclasses.replace(Part(), models=("m",))
PROMPT = block("ask one\nanswer $reply")


async def test_what_is_for_this_device_alone_leaves_it_in_no_way(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ALL, ALL, ALL]) as world:
        for number in range(3):
            name = world.submit(0, PROMPT, task=f"t{number}", mode="blocks", devices="local")
            result = await world.result(0, name)
            assert result.coordinator == world.peer(0)
        assert len(world.places[0].cells) == 3
        assert world.places[1].cells == world.places[2].cells == []
        assert world.places[1].calls == world.places[2].calls == []
        assert not [one for one in world[1].tasks.elsewhere() if one.headline.head], "no word of it"


async def test_what_is_for_the_others_is_not_done_here(virtual_time: JumpingClock) -> None:
    async with open_world([ALL, ALL]) as world:
        task = world.submit(0, PROMPT, mode="blocks", devices="network")
        await world.result(0, task)
        assert (world.places[0].cells, world.places[0].calls) == ([], [])
        assert len(world.places[1].cells) == 1


async def test_a_device_that_cannot_says_so(virtual_time: JumpingClock) -> None:
    part = dataclasses.replace(ASKER, roles=("submit", "coordinate"))
    async with open_world([part, ALL, THINKER]) as world:
        task = world.submit(0, PROMPT, mode="blocks", devices="local")
        result = await world.result(0, task)
        assert result.answer is not None
        assert (result.state, "python" in result.answer.detail) == ("failed", True)
