"""A group of questions and the peers that it is lost with, on whole nodes under virtual time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import trio

from kowalski.node.backends.seam import CompletionRequest
from kowalski.node.core.missed import LOST_S
from simulations.virtual_time import JumpingClock
from simulations.world import Place, World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, block
from tests.node.services.test_grouped_questions import ONLY_CODE, answered_calls
from tests.node.services.test_placed_work import prompt

pytestmark = pytest.mark.trio


async def test_what_is_lost_with_a_peer_is_asked_elsewhere_and_nothing_twice(
    virtual_time: JumpingClock,
) -> None:
    heard = 0

    def tells(request: CompletionRequest) -> str:
        nonlocal heard
        heard += 1
        if heard == 150:
            world.halt(3)
        return "fine"

    model = dataclasses.replace(THINKER, tells=tells, delay_per_token_s=0.002)
    async with open_world([ASKER, LEADER, ONLY_CODE, model, model]) as world:
        task = world.submit(0, block("ask-many 300 q"), mode="blocks", model="none")
        await world.result(0, task)
        calls = answered_calls(world, task)
        assert sorted(one.ordinal for one in calls) == list(range(300))
        assert [one.error for one in calls] == [None] * 300
        # The dead peer was answering in each of its slots, and had a moment's answers untold.
        assert len(world.calls) < 300 + 150


@pytest.mark.parametrize("seconds_each", [0.002, 2.0])
async def test_what_was_under_way_at_the_only_peer_is_asked_again_when_it_is_back(
    virtual_time: JumpingClock, seconds_each: float
) -> None:
    model = dataclasses.replace(THINKER, delay_per_token_s=seconds_each)
    async with open_world([ASKER, LEADER, ONLY_CODE, model]) as world:
        task = world.submit(0, block("ask-many 100 q"), mode="blocks", model="none")
        await world.until(lambda: len(world.calls) >= 30)
        await world.kill(3)
        await trio.sleep(15.0)
        assert not world[0].submitter.find(task).is_over
        await world.start(3)
        await world.result(0, task)
        calls = answered_calls(world, task)
        assert {one.error for one in calls} == {None}


async def test_who_was_lost_for_good_is_an_error_in_each_place_after_a_while(
    virtual_time: JumpingClock,
) -> None:
    model = dataclasses.replace(THINKER, delay_per_token_s=2.0)
    async with open_world([ASKER, LEADER, ONLY_CODE, model]) as world:
        task = world.submit(0, block("ask-many 100 q"), mode="blocks", model="none")
        await world.until(lambda: len(world.calls) >= 30)
        began = trio.current_time()
        await world.kill(3)
        await world.result(0, task)
        assert trio.current_time() - began < 2 * LOST_S
        calls = answered_calls(world, task)
        assert len(calls) == 100
        assert {one.code for one in calls if one.error} <= {"no_peer", "peers_failed"}
        assert sum(one.error is not None for one in calls) > 50


async def wall_s(world: World, name: str, count: int) -> float:
    """Seconds that a batch of so many takes, from submitting to its answer."""
    began = trio.current_time()
    prompt = block(f"ask-many {count} of {name}")
    task = world.submit(0, prompt, mode="blocks", model="none", task=name)
    await world.result(0, task)
    errors = [one.error for one in answered_calls(world, task)]
    assert errors == [None] * count
    return trio.current_time() - began


async def test_unequal_peers_are_asked_as_they_are_quick(virtual_time: JumpingClock) -> None:
    models = [
        dataclasses.replace(THINKER, model_slots=4, delay_per_token_s=s, tells=lambda _: "fine")
        for s in (0.01, 0.05, 0.2)
    ]
    async with open_world([ASKER, LEADER, ONLY_CODE, *models]) as world:
        await wall_s(world, "first", 300)
        await wall_s(world, "second", 300)
        asked = [len(place.calls) for place in world.places[3:]]
        ideal_s = 300 / (4 / 0.01 + 4 / 0.05 + 4 / 0.2)
        taking_turns_s = 100 / 4 * 0.2
        walls = [await wall_s(world, f"now{number}", 300) for number in range(3)]
        assert max(walls) <= taking_turns_s / 2
        assert max(walls) <= 1.3 * ideal_s, "with what a task costs before and after its batch"
        quick, middle, slow = (
            len(place.calls) - before for place, before in zip(world.places[3:], asked, strict=True)
        )
        assert quick > 2 * middle > 4 * slow


async def test_who_was_passed_over_answers_what_the_quick_one_leaves_when_it_is_lost(
    virtual_time: JumpingClock,
) -> None:
    quick, slow = (
        dataclasses.replace(THINKER, model_slots=2, delay_per_token_s=s, tells=lambda _: "fine")
        for s in (0.01, 0.4)
    )
    async with open_world([ASKER, LEADER, ONLY_CODE, quick, slow]) as world:
        await wall_s(world, "first", 40)
        await wall_s(world, "second", 40)
        fast, other = world.places[3:]
        before = len(other.calls)
        await wall_s(world, "third", 20)
        assert len(other.calls) == before, "the quick one alone is done before the other is"
        heard = 0

        def tells(_request: CompletionRequest) -> str:
            nonlocal heard
            heard += 1
            if heard == 10:
                world.halt(3)
            return "fine"

        fast.backend.answer_by = tells
        assert await wall_s(world, "last", 20) < LOST_S
        assert len(other.calls) - before >= 10


async def test_whose_line_others_fill_is_not_asked_ahead_of_time_again_and_again(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        return "word " * 100 if "long" in request.messages[-1].content else "fine"

    quick = dataclasses.replace(THINKER, model_slots=1, delay_per_token_s=0.02, tells=tells)
    async with open_world([ASKER, LEADER, ONLY_CODE, quick]) as world:
        await wall_s(world, "first", 40)
        before = len(world.calls)
        dispatch = world[1].work.placing.dispatch
        made = len(dispatch.decisions.latest(1000))

        async def others() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    asked = prompt(f"long {number}", remaining_s=100.0)
                    nursery.start_soon(world[0].work.complete, asked)

        async with trio.open_nursery() as nursery:
            task = world.submit(0, block("ask-many 300 of q"), mode="blocks", model="none")
            await world.until(lambda: len(world.calls) > before + 5)
            nursery.start_soon(others)
            await world.result(0, task)
        assert {one.error for one in answered_calls(world, task)} == {None}
        ahead = [d for _, d in dispatch.decisions.latest(1000)[made:] if d.way == "bound"]
        assert 0 < len(ahead) < 60


async def test_one_that_takes_far_too_long_holds_neither_its_group_nor_its_batch_up(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(
        [ASKER, LEADER, ONLY_CODE, *[dataclasses.replace(THINKER, tells=lambda _: "fine")] * 3]
    ) as world:
        asked = 0

        def tells_of(place: Place) -> Callable[[CompletionRequest], str]:
            def tells(_request: CompletionRequest) -> str:
                nonlocal asked
                asked += 1
                place.backend.delay_per_token_s = 5.0 if asked % 100 == 50 else 0.02
                return "fine"

            return tells

        for place in world.places[3:]:
            place.backend.answer_by = tells_of(place)
        walls = [await wall_s(world, f"t{number}", 100) for number in range(8)]
        assert max(walls[2:]) < 5.0 / 3, "the first ones show what is usual"
        assert asked <= 800 * 1.02
