"""Announcements of tasks on a network that loses, repeats and invents."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.loopback_transport import Weather
from kowalski.protocol import ids
from kowalski.protocol.codec import encode
from kowalski.protocol.messages.base import Cancel
from kowalski.protocol.messages.task import Announced
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, WORKER, blocks

pytestmark = pytest.mark.trio

SLOW = blocks("wait 200\nsay one")


def listed(world: World, number: int) -> list[tuple[str, str]]:
    rows = world[number].tasks.elsewhere()
    return [(one.headline.task, one.headline.state) for one in rows]


async def test_what_gossip_loses_is_said_again(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER], weather=Weather(gossip_loss=1.0)) as world:
        world.submit(0, SLOW, mode="blocks", cell_timeout_s=500.0)
        await trio.sleep(5)
        assert listed(world, 2) == []
        world.network.weather = Weather()
        await trio.sleep(31)
        assert listed(world, 2) == [("task", "running")]


async def test_a_node_that_comes_later_hears_of_what_there_is(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER, ASKER]) as world:
        world.submit(0, SLOW, mode="blocks", cell_timeout_s=500.0)
        await trio.sleep(5)
        await world.restart(3)
        await trio.sleep(31)
        assert listed(world, 3) == [("task", "running")]


async def test_a_submitter_that_is_started_anew_is_believed(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, SLOW, mode="blocks", cell_timeout_s=500.0)
        await trio.sleep(3)
        await world.restart(0)
        await world.meet()
        await trio.sleep(3)
        world[0].submitter.cancel(task, "enough")
        await trio.sleep(3)
        assert listed(world, 2) == [("task", "cancelled")]


async def test_nonsense_is_dropped_and_the_rest_is_heard(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        topic = ids.topic(world[0].mesh.membership.mesh, "tasks")
        said = [b"", b"\xff" * 100, encode(Cancel())]
        for data in said:
            await world.transport(1).publish(topic, data)
        empty = Announced(boot="0" * 16, sequence=1, tasks=())
        await world.transport(1).publish(topic, encode(empty))
        world.submit(0, SLOW, mode="blocks", cell_timeout_s=500.0)
        await trio.sleep(5)
        assert listed(world, 2) == [("task", "running")]


async def test_an_idle_node_says_nothing_about_tasks(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER]) as world:
        await trio.sleep(100)
        assert world[0].tasks._gossip._sequence == 0
