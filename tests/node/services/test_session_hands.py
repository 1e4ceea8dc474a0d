"""What a session wants done, seen on whole nodes under virtual time: model calls and sub-calls."""

from __future__ import annotations

import dataclasses

import pytest

from kowalski.node.backends.seam import CompletionRequest
from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from kowalski.node.repl.seam import CellOutcome, SubCall
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import (
    CellFinished,
    Closed,
    Opened,
    SubCallAnswered,
    SubCallsAnswered,
)
from kowalski.protocol.messages.task import Asking, Budget
from kowalski.rlm.journal import event_of
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block

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
        answered = [event for event in seen if isinstance(event, SubCallAnswered)]
        assert sorted(event.ordinal for event in answered) == [0, 1, 2]
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
        answered = [e for e in events(world, 0, task) if isinstance(e, SubCallAnswered)]
        assert [event.error for event in answered] == [None] * 50


def answered_calls(world: World, task: TaskId) -> list[SubCallAnswered]:
    found: list[SubCallAnswered] = []
    for event in events(world, 0, task):
        if isinstance(event, SubCallAnswered):
            found.append(event)
        elif isinstance(event, SubCallsAnswered):
            found += event.answers
    return found


ONLY_CODE = dataclasses.replace(WORKER, roles=("repl",))


async def test_quick_questions_share_requests_and_entries_and_each_is_counted(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, ONLY_CODE, THINKER]) as world:
        task = world.submit(0, block("ask-many 300 q"), mode="blocks", model="none")
        await world.result(0, task)
        seen = events(world, 0, task)
        calls = answered_calls(world, task)
        assert sorted(one.ordinal for one in calls) == list(range(300))
        assert len(seen) < 200, "several in an entry"
        assert [one.attempts for one in calls] == [1] * 300
        assert {one.peer for one in calls} == {world.peer(3)}
        assert all(one.usage is not None for one in calls)
        assert len(world.calls) == 300


async def test_the_same_question_among_many_is_asked_once(virtual_time: JumpingClock) -> None:
    def script(code: str, state: ScriptedState) -> ScriptedCell:
        calls = tuple(SubCall(f"q {n % 50}") for n in range(200))
        return ScriptedCell(
            sub_calls=calls,
            outcome_of=lambda told: CellOutcome(
                "ok", "|".join(str(one.text) for one in told).encode(), exit_code=0
            ),
        )

    model = dataclasses.replace(THINKER, tells=lambda request: f"<{request.messages[-1].content}>")
    async with open_world(
        [ASKER, LEADER, dataclasses.replace(ONLY_CODE, script=script), model]
    ) as world:
        task = world.submit(
            0, block("go"), mode="blocks", model="none", asking=Asking(answers_once=True)
        )
        result = await world.result(0, task)
        assert result.answer is not None
        assert "|".join(f"<q {n % 50}>" for n in range(200)) in result.answer.answer
        assert len(world.calls) == 50
        calls = answered_calls(world, task)
        assert sum(one.is_repeated for one in calls) == 150
        assert sum(one.attempts for one in calls) == 50


async def test_one_that_fails_among_quick_ones_is_asked_again_alone_and_fails_alone(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        return "x" * 400_000 if request.messages[-1].content == "q 150" else "fine"

    model = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, ONLY_CODE, model]) as world:
        task = world.submit(0, block("ask-many 200 q"), mode="blocks", model="none")
        await world.result(0, task)
        calls = answered_calls(world, task)
        failed = [one for one in calls if one.error is not None]
        assert [(one.ordinal, one.code) for one in failed] == [(150, "peers_failed")]
        assert "too_long" in (failed[0].error or "")
        assert sum(one.attempts for one in calls) == len(world.calls)
        assert failed[0].attempts == world.calls.count("q 150") > 1


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


async def test_a_budget_of_calls_holds_for_many_at_once(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, ONLY_CODE, THINKER]) as world:
        task = world.submit(
            0, block("ask-many 300 q"), mode="blocks", model="none", budget=Budget(calls=101)
        )
        await world.result(0, task)
        calls = answered_calls(world, task)
        assert sum(one.code == "budget_spent" for one in calls) == 200
        assert len(world.calls) == sum(one.attempts for one in calls) == 100
