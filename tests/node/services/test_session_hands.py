"""What a session wants done, seen on whole nodes under virtual time: model calls and sub-calls."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.node.backends.seam import CompletionRequest
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import CellFinished, Closed, Opened
from kowalski.rlm.journal import event_of
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block
from tests.node.services.test_grouped_questions import answered_calls

pytestmark = pytest.mark.trio


def events(world: World, number: int, task: TaskId) -> list[object]:
    return [event_of(entry) for entry in world[number].submitter.entries(task)]


def two_turns(request: CompletionRequest) -> str:
    """Writes code that asks, looks at what came, then answers with it."""
    last = request.messages[-1].content
    if last.startswith("part"):
        return f"<{last}>"
    if "<part 0>" in last:
        return block("answer the parts were $reply").replace("$reply", "read")
    return block("ask-many 3 part")


async def test_a_session_runs_code_that_asks_the_model_and_answers(
    virtual_time: JumpingClock,
) -> None:
    model = dataclasses.replace(THINKER, tells=two_turns)
    async with open_world([ASKER, LEADER, WORKER, model]) as world:
        task = world.submit(0, "what is in the parts?", mode="rlm")
        result = await world.result(0, task)
        assert result.answer is not None
        assert (result.state, result.answer.answer) == ("answered", "the parts were read")
        seen = events(world, 0, task)
        assert isinstance(seen[0], Opened)
        assert isinstance(seen[-1], Closed)
        assert sorted(one.ordinal for one in answered_calls(world, task)) == [0, 1, 2]
        assert len(world.calls) == 2 + 3


def some_fail(request: CompletionRequest) -> str:
    last = request.messages[-1].content
    if last.endswith("7"):
        return ""  # an empty reply is a reply
    return f"<{last}>"


async def test_a_thousand_sub_calls_come_back_in_their_order(virtual_time: JumpingClock) -> None:
    model = dataclasses.replace(THINKER, tells=some_fail)
    worker = dataclasses.replace(WORKER, roles=("repl",))
    async with open_world([ASKER, LEADER, worker, model, model]) as world:
        task = world.submit(0, block("ask-many 1000 q\nanswer $reply"), mode="blocks", model="none")
        await world.result(0, task)
        cell = next(event for event in events(world, 0, task) if isinstance(event, CellFinished))
        assert cell.answer is not None
        replies = cell.answer.content.split(" | ")
        wanted = ["" if n % 10 == 7 else f"<q {n}>" for n in range(1000)]
        assert replies == wanted
        assert len(world.calls) == 1000


async def test_a_sub_call_that_fails_is_an_error_in_its_slot_alone(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        # Longer than a reply may be: a failure of this one call.
        return "x" * 400_000 if request.messages[-1].content == "q 1" else "fine"

    model = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, WORKER, model]) as world:
        task = world.submit(0, block("ask-many 3 q\nanswer $reply"), mode="blocks", model="none")
        await world.result(0, task)
        cell = next(event for event in events(world, 0, task) if isinstance(event, CellFinished))
        assert cell.answer is not None
        first, second, third = cell.answer.content.split(" | ")
        assert (first, third) == ("fine", "fine")
        assert second.startswith("[peers_failed: ")
        assert "too_long" in second


async def test_a_batch_larger_than_a_frame_is_asked_and_answered(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        return request.messages[-1].content[:200_000]

    model = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, WORKER, model]) as world:
        task = world.submit(0, block("ask-big 12 300000\nsay done"), mode="blocks", model="none")
        result = await world.result(0, task)
        assert result.state == "answered"
        assert len(world.calls) == 12
        assert sum(map(len, world.calls)) == 12 * 300_000


async def test_one_slot_serves_a_batch_of_fifty(virtual_time: JumpingClock) -> None:
    slow = dataclasses.replace(THINKER, model_slots=1, delay_per_token_s=0.05)
    async with open_world([ASKER, LEADER, WORKER, slow]) as world:
        task = world.submit(0, block("ask-many 50 q"), mode="blocks", model="none")
        await world.result(0, task)
        answered = answered_calls(world, task)
        assert [event.error for event in answered] == [None] * 50


@pytest.mark.parametrize("number", [2, 3])
async def test_the_only_one_with_a_language_or_a_model_may_be_silent_for_a_moment(
    virtual_time: JumpingClock, number: int
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        silent, leader = world.wires.storm.silent, world.peer(1)
        pairs = [(leader, world.peer(number)), (world.peer(number), leader)]
        silent.update(dict.fromkeys(pairs, 1))
        await world.until(lambda: not world[1].mesh.is_routable(world.peer(number)))
        task = world.submit(0, block("ask-many 100 q\nsay last"), mode="blocks", model="none")
        await trio.sleep(0.5)
        assert not world[0].submitter.find(task).is_over
        for pair in pairs:
            del silent[pair]
            world.network.release(*pair)
        result = await world.result(0, task)
        assert result.answer is not None
        assert "last" in result.answer.answer
        assert [one.error for one in answered_calls(world, task)] == [None] * 100


async def test_a_model_that_nobody_has_is_not_waited_for(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        began = trio.current_time()
        task = world.submit(0, "what is it?", mode="direct", model="none")
        assert (await world.result(0, task)).state == "failed"
        assert trio.current_time() - began < 4
