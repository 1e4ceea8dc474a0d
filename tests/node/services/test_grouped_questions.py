"""What a cell asks of models at once, seen on whole nodes under virtual time."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.node.backends.seam import BackendError, CompletionRequest
from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from kowalski.node.repl.seam import CellOutcome, SubCall
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import (
    CellFinished,
    SessionEvent,
    SubCallAnswered,
    SubCallsAnswered,
)
from kowalski.protocol.messages.task import Asking, Budget
from kowalski.rlm.journal import event_of
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks

pytestmark = pytest.mark.trio


def events(world: World, task: TaskId) -> list[SessionEvent]:
    return [event_of(entry) for entry in world[0].submitter.entries(task)]


def answered_calls(world: World, task: TaskId) -> list[SubCallAnswered]:
    found: list[SubCallAnswered] = []
    for event in events(world, task):
        if isinstance(event, SubCallAnswered):
            found.append(event)
        elif isinstance(event, SubCallsAnswered):
            found += event.answers
    return found


def replies(world: World, task: TaskId) -> list[str]:
    """What the last cell was told, slot by slot."""
    cell = [event for event in events(world, task) if isinstance(event, CellFinished)][-1]
    assert cell.answer is not None
    return cell.answer.content.split(" | ")


ONLY_CODE = dataclasses.replace(WORKER, roles=("repl",))


async def test_quick_questions_share_requests_and_entries_and_each_is_counted(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, ONLY_CODE, THINKER]) as world:
        task = world.submit(0, block("ask-many 300 q"), mode="blocks", model="none")
        await world.result(0, task)
        seen = events(world, task)
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


async def test_of_a_thousand_those_that_a_peer_fails_are_answered_by_another(
    virtual_time: JumpingClock,
) -> None:
    """A6 of the loop's acceptance criteria: every fifth request to one of two peers fails."""
    asked = 0

    def tells(request: CompletionRequest) -> str:
        nonlocal asked
        asked += 1
        if asked % 5 == 0:
            raise BackendError("bad_reply", "half a reply")
        return f"<{request.messages[-1].content}>"

    bad = dataclasses.replace(THINKER, tells=tells)
    good = dataclasses.replace(THINKER, tells=lambda one: f"<{one.messages[-1].content}>")
    async with open_world([ASKER, LEADER, ONLY_CODE, bad, good]) as world:
        task = world.submit(0, block("ask-many 1000 q\nanswer $reply"), mode="blocks", model="none")
        await world.result(0, task)
        assert asked > 100, "the bad one had its part"
        calls = answered_calls(world, task)
        assert [one.error for one in calls if one.error is not None] == []
        assert replies(world, task) == [f"<q {n}>" for n in range(1000)]
        assert sum(one.attempts for one in calls) == len(world.calls)


async def test_of_a_thousand_those_that_all_peers_fail_are_errors_in_their_places(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        question = request.messages[-1].content
        if int(question.removeprefix("q ")) % 100 == 7:
            raise BackendError("bad_reply", "half a reply")
        return f"<{question}>"

    bad = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, ONLY_CODE, bad, bad]) as world:
        task = world.submit(0, block("ask-many 1000 q\nanswer $reply"), mode="blocks", model="none")
        await world.result(0, task)
        told = replies(world, task)
        assert len(told) == 1000
        for number, reply in enumerate(told):
            if number % 100 == 7:
                assert reply.startswith("[peers_failed: ")
                assert "half a reply" in reply
            else:
                assert reply == f"<q {number}>"


async def test_quick_questions_wait_for_their_only_peer_if_it_is_silent_for_a_moment(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, ONLY_CODE, THINKER]) as world:
        silent, leader, model = world.wires.storm.silent, world.peer(1), world.peer(3)
        pairs = [(leader, model), (model, leader)]
        prompt = blocks("ask-many 60 q\nwait 5", "ask-many 100 r")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.until(lambda: len(world.calls) == 60)
        await trio.sleep(1)
        silent.update(dict.fromkeys(pairs, 1))
        await world.until(lambda: not world[1].mesh.is_routable(model))
        await world.until(lambda: len(world.cells) == 2)
        await trio.sleep(0.5)
        assert len(world.calls) == 60
        for pair in pairs:
            del silent[pair]
            world.network.release(*pair)
        await world.result(0, task)
        assert [one.error for one in answered_calls(world, task)] == [None] * 160


async def test_a_budget_of_calls_holds_for_many_at_once(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, ONLY_CODE, THINKER]) as world:
        task = world.submit(
            0, block("ask-many 300 q"), mode="blocks", model="none", budget=Budget(calls=101)
        )
        await world.result(0, task)
        calls = answered_calls(world, task)
        assert sum(one.code == "budget_spent" for one in calls) == 200
        assert len(world.calls) == sum(one.attempts for one in calls) == 100


@pytest.mark.parametrize("seconds_each", [0.01, 5.0])
async def test_a_task_cancelled_in_the_middle_of_a_thousand_asks_no_model_any_more(
    virtual_time: JumpingClock, seconds_each: float
) -> None:
    """A5 of the loop's acceptance criteria, for questions in groups and for such that are slow."""
    model = dataclasses.replace(THINKER, model_slots=16, delay_per_token_s=seconds_each)
    async with open_world([ASKER, LEADER, ONLY_CODE, model]) as world:
        prompt = blocks("say before", "ask-many 1000 q")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.until(lambda: len(world.calls) >= 20)
        began = trio.current_time()
        world[0].submitter.cancel(task, "enough")
        result = await world.result(0, task)
        assert result.state == "cancelled"
        assert trio.current_time() - began <= 1.0
        assert result.answer is not None
        assert "before" in result.answer.answer, "what there was is kept"
        stopped_at = len(world.calls)
        assert stopped_at < 1000
        await trio.sleep(60)
        assert len(world.calls) == stopped_at
