"""Tasks that outlive devices: any of them is lost, and the answer comes once and is the same.

On whole nodes under virtual time. What is counted from outside: cells that ran, calls that models
heard, entries that became visible.
"""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.node.core.task_ledger import Task
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import CellStarted
from kowalski.rlm.journal import check_chain, event_of
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, blocks
from tests.node.services.test_grouped_questions import answered_calls

pytestmark = pytest.mark.trio

SLOW_THINKER = dataclasses.replace(THINKER, delay_per_token_s=0.01)


def leader(world: World, task: TaskId, number: int = 0) -> int:
    return world.number_of(world[number].submitter.find(task).coordinator)


def is_shown(world: World, task: TaskId, entries: int) -> bool:
    return world[0].submitter.find(task).entries >= entries


@pytest.fixture(scope="module")
def wanted() -> str:
    """The answer to `STEPS` where nobody is lost."""

    async def undisturbed() -> str:
        async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
            return answer(await world.result(0, world.submit(0, STEPS, mode="blocks")))

    return trio.run(undisturbed, clock=JumpingClock())


def answer(task: Task) -> str:
    assert task.answer is not None, task
    assert task.state == "answered", task.answer
    return task.answer.answer


STEPS = blocks(*(f"keep x {n}\nwait 2\nsay step {n}" for n in range(5)), "show x\nask what is it")


# --- a submitter that goes away -----------------------------------------------------------------


async def test_a_coordinator_finishes_for_a_submitter_that_is_gone_and_keeps_the_answer(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, THINKER]) as world:
        task = world.submit(0, STEPS, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        await world.kill(0)
        await trio.sleep(40)
        assert len(world.cells) == 6, "it went on"
        assert len(world.calls) == 2
        await world.start(0)
        result = await world.result(0, task, within_s=5)
        assert answer(result) == wanted
        assert (len(world.cells), len(world.calls)) == (6, 2), "nothing was done again"
        check_chain(task, world[0].submitter.entries(task))


async def test_it_is_kept_by_others_though_the_coordinator_dies_as_well(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, THINKER]) as world:
        task = world.submit(0, STEPS, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        first = leader(world, task)
        await world.kill(0)
        await trio.sleep(40)
        await world.kill(first)
        await world.start(0)
        result = await world.result(0, task, within_s=10)
        assert answer(result) == wanted
        assert (len(world.cells), len(world.calls)) == (6, 2)


async def test_a_submitter_that_comes_back_in_the_middle_goes_on_in_the_middle(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, THINKER]) as world:
        task = world.submit(0, STEPS, mode="blocks")
        for cells in (1, 3, 5):
            await world.until(lambda cells=cells: len(world.cells) == cells)  # type: ignore[misc]
            await world.restart(0)
        result = await world.result(0, task)
        assert answer(result) == wanted
        assert result.term == 4
        assert (len(world.cells), len(world.calls)) == (6, 2), "nothing was done again"


async def test_a_task_that_says_abort_stops_with_its_submitter_and_goes_on_with_it(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, THINKER]) as world:
        task = world.submit(0, STEPS, mode="blocks", submitter_gone="abort")
        await world.until(lambda: len(world.cells) == 2)
        await world.kill(0)
        await trio.sleep(10)
        cells = len(world.cells)
        await trio.sleep(30)
        assert len(world.cells) == cells <= 4
        await world.start(0)
        assert answer(await world.result(0, task)) == wanted


async def test_a_coordinator_that_is_cut_off_from_all_waits_and_is_not_the_one_who_goes_on(
    virtual_time: JumpingClock,
) -> None:
    """A split of one: to it the submitter is gone, but nobody vouches for it."""
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, WORKER, THINKER]) as world:
        task = world.submit(0, STEPS, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        cut_off = leader(world, task)
        for other in range(7):
            if other not in {cut_off, 4}:  # it reaches a worker, still
                world.cut(cut_off, other)
        before = world.places[4].cells.copy()
        await world.result(0, task)
        await trio.sleep(20)
        assert len(world.places[4].cells) <= len(before) + 6
        result = world[0].submitter.find(task)
        assert result.term == 2
        check_chain(task, world[0].submitter.entries(task))


async def test_it_is_over_for_a_coordinator_when_another_leads_even_if_its_submitter_is_gone(
    virtual_time: JumpingClock,
) -> None:
    """Cut off from the submitter alone, it hears from a standby that it was replaced."""
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, THINKER]) as world:
        prompt = blocks(*(f"wait 2\nsay step {n}" for n in range(20)))
        task = world.submit(0, prompt, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        first = leader(world, task)
        world.cut(0, first)
        await world.until(lambda: world[0].submitter.find(task).term == 2)
        leading = world[first].leading
        assert leading is not None
        await world.until(lambda: not leading.coordinator.leading, within_s=10)
        assert answer(await world.result(0, task))


# --- a coordinator that dies --------------------------------------------------------------------


async def test_what_the_submitter_had_not_accepted_is_had_from_the_standbys(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, THINKER]) as world:
        task = world.submit(0, STEPS, mode="blocks")
        await world.until(lambda: is_shown(world, task, 3))
        first = leader(world, task)
        shown = world[0].submitter.find(task).entries
        # The submitter hears nothing any more, and looks for another; the first goes on as it may.
        world.cut(0, first)
        await trio.sleep(2.5)
        await world.kill(first)
        result = await world.result(0, task)
        assert answer(result) == wanted
        terms = [entry.term for entry in world[0].submitter.entries(task)]
        assert terms[shown:] == [2] * (result.entries - shown)
        started = [
            event.cell
            for entry in world[0].submitter.entries(task)
            if isinstance(event := event_of(entry), CellStarted)
        ]
        assert len(world.cells) - len(started) <= 2, "few cells ran that nobody knows of"


async def test_a_batch_of_sub_calls_is_not_asked_again_when_its_coordinator_dies(
    virtual_time: JumpingClock,
) -> None:
    prompt = blocks("ask-many 40 part")
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, SLOW_THINKER]) as world:
        task = world.submit(0, prompt, mode="blocks")
        await world.until(lambda: 10 < len(world.calls) < 40)
        await world.kill(leader(world, task))
        result = await world.result(0, task)
        assert result.state == "answered"
        assert len(answered_calls(world, task)) == 40
        asked = [call for call in world.calls if call.startswith("part")]
        assert len(asked) == len(set(asked)) == 40, "those in flight were joined"


async def test_every_process_is_killed_at_once_and_the_task_goes_on_where_it_was(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER, THINKER]) as world:
        task = world.submit(0, STEPS, mode="blocks")
        await world.until(lambda: len(world.cells) == 4)
        before = len(world.calls)
        for number in range(6):
            await world.kill(number)
        for number in reversed(range(6)):
            await world.start(number)
        await world.meet()
        result = await world.result(0, task)
        assert answer(result) == wanted
        assert len(world.calls) == before + 2, "no model was asked twice"


async def test_copies_are_dropped_everywhere_once_a_task_is_settled(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks("wait 5\nsay one", "say two"), mode="blocks")
        await trio.sleep(3)
        rooms = [world[number].leading for number in (1, 2, 3)]
        held = [len(room.copies.copies) for room in rooms if room is not None]
        assert held == [1, 1, 1]
        await world.result(0, task)
        await trio.sleep(5)
        assert [len(room.copies.copies) for room in rooms if room is not None] == [0, 0, 0]


async def test_a_task_that_is_over_at_once_is_copied_to_nobody(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER]) as world:
        await world.result(0, world.submit(0, blocks("say one"), mode="blocks"))
        await trio.sleep(5)
        for number in (1, 2, 3):
            room = world[number].leading
            assert room is not None
            assert room.copies.copies == ()
