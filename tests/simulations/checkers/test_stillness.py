"""A stopped process that does something all the same is seen, and a real one does nothing."""

from __future__ import annotations

import pytest
import trio

from simulations.checkers.stillness import Stillness
from simulations.virtual_time import JumpingClock
from simulations.witness import Witness
from simulations.world import Part, World, open_world
from tests.simulations.looking import broken

pytestmark = pytest.mark.trio

PARTS = [Part(models=("m",)) for _ in range(3)]
STILL = "who_stands_still_is_still"


def watching() -> Witness:
    witness = Witness()
    witness.engage(Stillness(witness))
    return witness


async def test_a_stopped_node_is_still_whatever_happens_around_it_and_is_looked_at_afterwards(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(PARTS, witness=(witness := watching())) as world:
        world.submit(0, "```python\nwait 2\n```", mode="blocks")
        world.freeze(1, 6.0)
        await trio.sleep(1)
        await world.kill(2)
        await trio.sleep(1)
        world.cut(0, 1)
        await trio.sleep(1)
        await world.start(2)
        world.mend(0, 1)
        await trio.sleep(2.5)
        assert not witness.evaluated[STILL]
        await world.meet()
        assert broken(witness) == []
        assert witness.evaluated[STILL] == 1


async def test_a_stopped_process_that_is_killed_and_begun_anew_moves_at_once(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(PARTS, witness=(witness := watching())) as world:
        world.freeze(1, 1000.0)
        await trio.sleep(1)
        await world.restart(1)
        await world.meet()
        assert trio.current_time() < 100.0
        assert broken(witness) == []


def hear_its_user(world: World) -> None:
    world.submit(1, "x", mode="direct")


def hear_its_peers(world: World) -> None:
    """Messages are brought to it as if it moved."""
    del world.wires.times[world.peer(1)]


@pytest.mark.parametrize("bug", [hear_its_user, hear_its_peers])
async def test_one_that_acts_is_seen(bug: object, virtual_time: JumpingClock) -> None:
    async with open_world(PARTS, witness=(witness := watching())) as world:
        world.freeze(1, 6.0)
        await trio.sleep(1)
        assert callable(bug)
        bug(world)
        await trio.sleep(4)
        assert set(broken(witness)) == {STILL}
