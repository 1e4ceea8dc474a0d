"""drain and undrain, asked of whole nodes under virtual time."""

from __future__ import annotations

import pytest
import trio

from kowalski.protocol.errors import ConfigError
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, WORKER, blocks

pytestmark = pytest.mark.trio

Reply = dict[str, object]
EMPTY = {"tasks": 0, "jobs": 0, "sessions": 0}


async def ask(
    world: World, number: int, verb: str, told: list[Reply] | None = None, **request: object
) -> Reply:
    async def emit(event: Reply) -> None:
        await trio.lowlevel.checkpoint()
        if told is not None:
            told.append(event)

    return await world.verbs(number)[verb](dict(request), emit)


async def test_drain_tells_what_is_left_until_nothing_is(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        world.submit(0, blocks("wait 3"), mode="blocks")
        await world.until(lambda: len(world.cells) == 1)
        told: list[Reply] = []
        done = await ask(world, 2, "drain", told)
        assert told[0] == {"kind": "left", "tasks": 0, "jobs": 1, "sessions": 1}
        assert told[-1] == {"kind": "left", **EMPTY}
        assert done == {"draining": True, "is_empty": True, "left": EMPTY}
        assert (await ask(world, 2, "status"))["draining"] is True
        rows = (await ask(world, 0, "peers"))["peers"]
        assert isinstance(rows, list)
        assert {row["name"]: row["draining"] for row in rows} == {
            "node-0": False,
            "node-1": False,
            "node-2": True,
        }


async def test_it_waits_no_longer_than_it_is_told_to_and_stays_so_until_undrain(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        world.submit(0, blocks("wait 30"), mode="blocks")
        await world.until(lambda: len(world.cells) == 1)
        began = trio.current_time()
        done = await ask(world, 2, "drain", timeout_s=0.0)
        assert trio.current_time() - began < 0.5
        assert done["is_empty"] is False
        assert (await ask(world, 2, "status"))["draining"] is True
        assert (await ask(world, 2, "undrain"))["draining"] is False
        assert (await ask(world, 2, "undrain"))["draining"] is False, "again"
        assert (await ask(world, 2, "status"))["draining"] is False


async def test_what_it_does_not_take_is_refused_by_name(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER]) as world:
        with pytest.raises(ConfigError, match="drain: timeout_s: input should be greater than"):
            await ask(world, 0, "drain", timeout_s=-1.0)
        with pytest.raises(ConfigError, match="undrain: unknown field 'timeout_s'"):
            await ask(world, 0, "undrain", timeout_s=1.0)
        assert (await ask(world, 0, "status"))["draining"] is False
