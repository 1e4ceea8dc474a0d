"""Child sessions on whole nodes under virtual time: what `rlm_query` in a cell begins."""

from __future__ import annotations

import dataclasses
import json

import pytest
import trio

from kowalski.node.backends.seam import CompletionRequest, ModelInfo
from kowalski.node.services.session_inputs import models
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import (
    CellFinished,
    ChildHappened,
    Closed,
    SessionEvent,
    SubCallAnswered,
)
from kowalski.protocol.messages.task import Asking, Budget
from kowalski.rlm import budget
from kowalski.rlm.journal import event_of
from kowalski.rlm.session import limits_for
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks
from tests.node.services.test_grouped_questions import answered_calls

pytestmark = pytest.mark.trio


def events(world: World, task: TaskId) -> list[SessionEvent]:
    return [event_of(entry) for entry in world[0].submitter.entries(task)]


def spent(world: World, task: TaskId) -> budget.Spent:
    total = budget.NOTHING
    for event in events(world, task):
        total = budget.added(total, event)
    return total


def sub_calls(world: World, task: TaskId) -> list[SubCallAnswered]:
    return answered_calls(world, task)


def question(request: CompletionRequest) -> str:
    return next(m.content for m in request.messages if m.role == "user")


def tree(request: CompletionRequest) -> str:
    """The root has ten children, each of which has one of its own, which asks a model once."""
    asked, last = question(request), request.messages[-1].content
    if asked.startswith("leaf"):
        return f"<{asked}>"
    if last != asked:
        return block("answer done")
    if "grandchild" in asked:
        return block(f"ask leaf {asked.split('grandchild ')[1].split()[0]}")
    if "child" in asked:
        return block(f"ask-child grandchild {asked.split('child ')[1].split()[0]}")
    return block("\n".join(f"ask-child child {number}" for number in range(10)))


async def test_calls_of_the_whole_tree_are_counted_as_the_servers_count_them(
    virtual_time: JumpingClock,
) -> None:
    model = dataclasses.replace(THINKER, tells=tree)
    async with open_world([ASKER, LEADER, WORKER, WORKER, model]) as world:
        task = world.submit(0, "go down", mode="rlm", budget=Budget(depth=2))
        result = await world.result(0, task)
        assert result.answer is not None
        assert (result.state, result.answer.answer) == ("answered", "done")
        assert [one.text for one in sub_calls(world, task)] == ["done"] * 10
        total = spent(world, task)
        assert total.children == 20
        # Two turns each of root, 10 children and 10 grandchildren, and ten leaves.
        assert len(world.calls) == total.calls == total.attempts == 2 * 21 + 10


async def test_a_child_has_the_prompt_as_its_data_and_no_variable_of_its_parent(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        if "look" in question(request):
            return block("show x\nanswer $reply")
        return "spoken"

    model = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, WORKER, model]) as world:
        prompt = blocks("keep x 1\nask-child look")
        task = world.submit(0, prompt, mode="blocks", model="m", max_iterations=2)
        await world.result(0, task)
        inner = [
            budget.child_event(one) for one in events(world, task) if isinstance(one, ChildHappened)
        ]
        first = next(one for one in inner if isinstance(one, CellFinished))
        assert "NameError: x" in first.output


async def test_a_child_is_told_what_fits_the_window_of_its_own_model(
    virtual_time: JumpingClock,
) -> None:
    rules: list[str] = []

    def tells(request: CompletionRequest) -> str:
        if request.model == "small" and request.messages[0].role == "system":
            rules.append(request.messages[0].content)
            return block("ready 1")
        return "spoken"

    model = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, WORKER, model]) as world:
        world.places[3].backend.models = (
            ModelInfo("m", context_tokens=65_536),
            ModelInfo("small", context_tokens=4096),
        )
        await world.until(lambda: "small" in models(world[1].mesh))
        asking = Asking(sub_model="small")
        prompt = blocks("ask-child look")
        task = world.submit(0, prompt, mode="blocks", model="m", max_iterations=2, asking=asking)
        await world.result(0, task)
    small = limits_for(3072)  # of 4096, a quarter is left to the reply
    assert rules
    assert all(str(small.sub_prompt_chars) in told for told in rules)


async def test_a_coordinator_that_dies_repeats_no_call_of_a_child(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        asked, last = question(request), request.messages[-1].content
        if "child" not in asked:
            return "fine"
        if last == asked:
            return block("ask first\nwait 5")
        if "turn 3" not in last.lower():
            return block("ask second\nwait 20")
        return block("answer from the child")

    model = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, LEADER, WORKER, model]) as world:
        task = world.submit(0, block("ask-child child\nanswer $reply"), mode="blocks", model="none")
        await world.until(lambda: "second" in world.calls)
        await trio.sleep(3)
        before = list(world.calls)
        leader = world[0].submitter.find(task).coordinator
        await world.kill(world.number_of(leader))
        result = await world.result(0, task)
        assert result.term == 2
        assert [one.text for one in sub_calls(world, task)] == ["from the child"]
        assert world.calls[: len(before)] == before
        assert sorted(world.calls) == sorted({*world.calls}), "nothing was asked twice"


async def test_the_last_call_of_a_budget_is_kept_for_the_session(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        prompt = block("ask-many 8 q\nanswer $reply")
        task = world.submit(0, prompt, mode="blocks", model="none", budget=Budget(calls=5))
        await world.result(0, task)
        answered = sub_calls(world, task)
        assert sorted(one.code or "ok" for one in answered) == ["budget_spent"] * 4 + ["ok"] * 4
        assert len(world.calls) == 4


async def test_children_draw_on_the_budget_of_the_task(virtual_time: JumpingClock) -> None:
    model = dataclasses.replace(THINKER, tells=tree)
    async with open_world([ASKER, LEADER, WORKER, model]) as world:
        task = world.submit(0, "go down", mode="rlm", budget=Budget(calls=12, depth=2))
        result = await world.result(0, task)
        assert result.is_over
        assert spent(world, task).calls <= 12
        assert len(world.calls) <= 12
        assert any(one.code == "calls" for one in sub_calls(world, task))


async def test_at_the_end_of_depth_a_child_is_a_question_to_a_model(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        prompt = block("ask-child deep")
        task = world.submit(0, prompt, mode="blocks", model="none", budget=Budget(depth=0))
        await world.result(0, task)
        assert [one.text for one in sub_calls(world, task)] == ["reply to: deep"]
        assert world.calls == ["deep"]


async def test_what_is_asked_twice_is_answered_once_unless_that_is_not_wanted(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        prompt = blocks("ask same\nask same", "ask same\nask other")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.result(0, task)
        assert sorted(world.calls) == ["other", "same"]
        assert spent(world, task).repeated == 2
        assert {one.error for one in sub_calls(world, task)} == {None}
        each = world.submit(
            0,
            prompt,
            task="each",
            mode="blocks",
            model="none",
            asking=Asking(answers_once=False),
        )
        await world.result(0, each)
        assert len(world.calls) == 2 + 4


async def test_a_cell_can_ask_what_is_left(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        prompt = block("ask q") + block("budget")
        task = world.submit(
            0, prompt, mode="blocks", model="none", budget=Budget(calls=5), timeout_s=100
        )
        await world.result(0, task)
        left = json.loads(sub_calls(world, task)[-1].text or "")
        assert 50 < left.pop("seconds") <= 100
        assert left == {"calls": 3, "tokens": None, "turns": 5, "depth": 1}


async def test_cancelling_the_task_ends_its_children_and_no_call_follows(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        return block("draft so far\nwait 100\nask never")

    model = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, WORKER, WORKER, model]) as world:
        task = world.submit(0, block("ask-child deep"), mode="blocks", model="none")
        # A scripted cell asks first, and works then.
        await world.until(lambda: len(world.calls) == 2)
        world.as_node(0, lambda node: node.submitter.cancel(task, "enough"))
        result = await world.result(0, task)
        assert result.state == "cancelled"
        await trio.sleep(110)  # for as long as its cell would have taken
        assert len(world.calls) == 2, "neither of the cell nor of the turn after it"
        assert isinstance(events(world, task)[-1], Closed)
