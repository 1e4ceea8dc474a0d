"""A world of nodes that can be killed, cut off and brought back."""

from __future__ import annotations

import pytest
import trio

from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import journal
from kowalski.rlm.journal import event_of
from simulations.checkers.journals import untrue_cells
from simulations.virtual_time import JumpingClock
from simulations.world import Part, open_world

pytestmark = pytest.mark.trio


async def test_nodes_have_met_when_the_world_opens(virtual_time: JumpingClock) -> None:
    async with open_world(5) as world:
        for number in range(5):
            assert len(world[number].mesh.candidates()) == 5
        assert trio.current_time() < 5


async def test_a_killed_node_is_gone_for_the_others_and_a_started_one_is_back(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(3) as world:
        await world.kill(1)
        assert not world.is_up(1)
        await world.until(lambda: not world[0].mesh.is_routable(world.peer(1)), within_s=1)
        await world.start(1)
        await world.meet()
        assert world[0].mesh.is_routable(world.peer(1))
        assert world.places[1].boots == 2


async def test_a_node_comes_back_to_what_it_had_written(virtual_time: JumpingClock) -> None:
    async with open_world([Part(roles=("submit",))]) as world:
        task = world.submit(0, "```python\nsay hi\n```", mode="blocks")
        await world.restart(0)
        assert [one.id for one in world[0].submitter.tasks] == [task]


DYING = """\
```python
keep x 1
```
```python
keep y 2
die
```
```python
show x
show y
```
"""


async def test_a_session_that_died_comes_back_as_it_was_before_the_cell_that_ended_it(
    virtual_time: JumpingClock,
) -> None:
    """What is journalled of it is what `journal_is_true` expects."""
    async with open_world(2) as world:
        task = world.submit(0, DYING, mode="blocks")
        await world.result(0, task)
        events = [event_of(entry) for entry in world[0].submitter.entries(task)]
    ended = [event for event in events if isinstance(event, journal.CellFinished)]
    assert [event.status for event in ended] == ["ok", "died", "error"]
    assert ended[-1].output == "x is 1\nNameError: y"
    assert untrue_cells(events) == []


async def test_a_node_that_two_start_at_once_begins_once(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        await world.kill(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.start, 1)
            nursery.start_soon(world.start, 1)
        assert world.is_up(1)
        assert world.places[1].boots == 2
        await world.meet()


async def test_a_cut_is_between_two_nodes_only_and_heals(virtual_time: JumpingClock) -> None:
    async with open_world(3) as world:
        world.cut(0, 1)
        await trio.sleep(1)
        assert not world[0].mesh.is_routable(world.peer(1))
        assert world[0].mesh.is_routable(world.peer(2))
        assert world[1].mesh.is_routable(world.peer(2))
        world.mend(0, 1)
        await world.meet()


async def test_waiting_for_what_never_comes_ends(virtual_time: JumpingClock) -> None:
    async with open_world([Part(roles=("submit",))]) as world:
        task = world.submit(0, "x", mode="direct")
        with pytest.raises(trio.TooSlowError):
            await world.result(0, task, within_s=5)
        with pytest.raises(trio.TooSlowError):
            await world.until(lambda: False, within_s=5)


async def test_worlds_of_one_seed_have_the_same_nodes_and_others_have_not(
    virtual_time: JumpingClock,
) -> None:
    peers = []
    for seed in (1, 1, 2):
        async with open_world(2, seed=seed) as world:
            peers.append([world.peer(0), world.peer(1)])
    assert peers[0] == peers[1] != peers[2]


async def test_twenty_nodes_live_in_one_process(virtual_time: JumpingClock) -> None:
    async with open_world(20) as world:
        tasks = [
            world.submit(n, f"```python\nkeep x {n}\nshow x\n```", mode="blocks", task=f"t{n}")
            for n in range(20)
        ]
        for n, task in enumerate(tasks):
            result = await world.result(n, TaskId(task))
            assert result.answer is not None
            assert f"x is {n}" in result.answer.answer
