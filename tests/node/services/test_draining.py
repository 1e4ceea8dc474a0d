"""A node that is about to leave, in a whole mesh: what it hands over, ends and keeps."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.services.draining import Left
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.messages.folding import FoldAsked
from kowalski.protocol.messages.journal import CellFinished
from kowalski.rlm.journal import check_chain, event_of
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, blocks

pytestmark = pytest.mark.trio

STEPS = blocks(*(f"keep x {n}\nwait 2\nsay step {n}" for n in range(4)), "show x")
CAST = [ASKER, LEADER, LEADER, LEADER, WORKER, WORKER, THINKER]


async def drain(world: World, number: int, *, within_s: float) -> None:
    """Until nothing is left there."""
    with trio.fail_after(within_s):
        draining = world[number].draining
        await draining.begin()
        await draining.until_empty()


def leader(world: World) -> int:
    return world.number_of(world[0].submitter.tasks[0].coordinator)


def fold_of(text: str) -> FoldAsked:
    return FoldAsked(text=text, budget_tokens=10, remaining_s=10.0)


async def test_a_task_is_handed_over_and_nothing_is_done_twice(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(CAST) as world:
        task = world.submit(0, STEPS, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        first = leader(world)
        await drain(world, first, within_s=4)
        result = await world.result(0, task)
        assert result.answer is not None
        assert "x is 3" in result.answer.answer
        assert (result.term, result.retries) == (2, 0), "nobody has failed"
        assert len(world.cells) == 5, "the cell under way was waited for"
        check_chain(task, world[0].submitter.entries(task))


async def test_nothing_new_comes_to_it_and_everybody_knows_why(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER, WORKER]) as world:
        for number in (1, 3):
            await drain(world, number, within_s=1)
        await trio.sleep(1)
        for task in range(12):
            name = world.submit(0, blocks(f"say {task}"), mode="blocks", task=f"t{task}")
            result = await world.result(0, name)
            assert (world.number_of(result.coordinator), result.state) == (2, "answered")
        assert world.places[3].cells == []
        assert {one.peer: one.is_draining for one in world[0].mesh.candidates()} == {
            world.peer(number): number in {1, 3} for number in range(5)
        }
        await world[1].draining.end()
        await drain(world, 2, within_s=1)
        last = await world.result(0, world.submit(0, STEPS, mode="blocks", task="last"))
        assert world.number_of(last.coordinator) == 1


async def test_a_session_goes_elsewhere_with_its_variables_and_no_cell_is_cut_off(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(CAST) as world:
        task = world.submit(0, STEPS, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        here = next(number for number in (4, 5) if world.places[number].cells)
        await drain(world, here, within_s=4)
        result = await world.result(0, task)
        assert result.answer is not None
        assert "x is 3" in result.answer.answer
        finished = [
            (event.cell, world.number_of(event.peer))
            for entry in world[0].submitter.entries(task)
            if isinstance(event := event_of(entry), CellFinished)
        ]
        other = 9 - here
        assert finished == [(0, here), (1, here), (2, other), (3, other), (4, other)]


async def test_a_session_that_may_not_be_made_again_goes_on_here_to_its_end(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(CAST) as world:
        task = world.submit(0, STEPS, mode="blocks", side_effects="at_most_once")
        await world.until(lambda: len(world.cells) == 2)
        here = next(number for number in (4, 5) if world.places[number].cells)
        draining = world[here].draining
        await draining.begin()
        with trio.move_on_after(1):
            await draining.until_empty()
        assert draining.left == Left(jobs=1, sessions=1)
        result = await world.result(0, task)
        assert result.answer is not None
        assert "x is 3" in result.answer.answer
        assert len(world.places[here].cells) == 5
        with trio.fail_after(2):
            await draining.until_empty()


async def test_a_task_whose_submitter_is_away_stays_until_it_is_back(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(CAST) as world:
        task = world.submit(0, STEPS, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        first = leader(world)
        await world.kill(0)
        draining = world[first].draining
        await draining.begin()
        with trio.move_on_after(2):
            await draining.until_empty()
        assert draining.left.tasks == 1
        await world.start(0)
        with trio.fail_after(10):
            await draining.until_empty()
        result = await world.result(0, task)
        assert result.state == "answered"
        assert world.number_of(result.coordinator) != first


async def test_what_nobody_else_could_do_is_done_here_and_what_is_new_waits_or_is_refused(
    virtual_time: JumpingClock,
) -> None:
    prompt = STEPS + blocks("ask one more")
    async with open_world([Part(models=("m",))]) as world:
        task = world.submit(0, prompt, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        draining = world[0].draining
        await draining.begin()
        later = world.submit(0, STEPS, mode="blocks", task="later", failover="queue")
        with pytest.raises(RequestRefusedError, match="about to leave"):
            await world[0].work.fold(fold_of("a text"))
        with trio.fail_after(20):
            await draining.until_empty()
        result = world[0].submitter.find(task)
        assert result.answer is not None
        assert "x is 3" in result.answer.answer
        assert "one more" in result.answer.answer
        await trio.sleep(20)
        assert world[0].submitter.find(later).state == "waiting"
        await draining.end()
        assert (await world.result(0, later)).state == "answered"


async def test_taking_work_again_ends_the_wait_for_an_empty_node(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([Part()]) as world:
        world.submit(0, blocks("wait 500"), mode="blocks", side_effects="at_most_once")
        await world.until(lambda: len(world.cells) == 1)
        heard: list[Left] = []

        async def hear(left: Left) -> None:
            await trio.lowlevel.checkpoint()
            heard.append(left)

        draining = world[0].draining
        await draining.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(draining.until_empty, hear)
            await trio.sleep(5)
            await draining.end()
        assert heard[-1] == Left(tasks=1, jobs=1, sessions=1)
        assert heard[-1].words == "1 task, 1 job, 1 session"
        assert len(heard) <= 3, "only what has changed"
