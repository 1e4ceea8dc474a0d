"""What a node opens for its owner's tasks, together."""

from __future__ import annotations

import pytest
import trio

from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import ASKER, LEADER, WORKER, blocks

pytestmark = pytest.mark.trio


async def test_a_node_takes_up_its_open_tasks_and_announces_them_at_once(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks("wait 200"), mode="blocks")
        await trio.sleep(1)
        await world.kill(0)
        await trio.sleep(1)
        await world.start(0)
        await world.meet()
        await trio.sleep(5)
        assert world[0].submitter.open_tasks == 1
        assert [one.headline.task for one in world[2].tasks.elsewhere()] == [task]
