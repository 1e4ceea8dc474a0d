"""Model calls of tasks whose askers are lost: no model hears the same twice.

Whole nodes under virtual time. What models were asked is counted outside of them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.blame import Weather
from kowalski.node.backends.seam import BackendError
from kowalski.node.core.kept_calls import ORPHAN_S
from kowalski.node.core.task_ledger import Task
from kowalski.node.services.inference import PROTOCOL
from kowalski.node.services.kept_calls import Call, KeptCalls, key_of, open_kept_calls
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.calls import CallsHeld, CallsSought
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
    CompletionsAsked,
    CompletionsDone,
    CompletionsTold,
    Usage,
)
from kowalski.protocol.messages.placement import Claim
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, blocks
from tests.node.services.rooms import Two, hot, leave_it, open_two, until

pytestmark = pytest.mark.trio

SLOW = dataclasses.replace(THINKER, delay_per_token_s=1.0)
"""Two seconds and more for each of these answers."""

LEADERS = [LEADER, LEADER, LEADER]
BATCH = blocks("ask-many 12 part")
PARTS = {f"part {number}" for number in range(12)}


def leader(world: World, task: TaskId) -> int:
    return world.number_of(world[0].submitter.find(task).coordinator)


def asked(world: World) -> Counter[str]:
    return Counter(call for call in world.calls if call.startswith("part"))


def is_whole(task: Task, world: World) -> bool:
    return task.state == "answered" and asked(world) == dict.fromkeys(PARTS, 1)


async def begin_batch(world: World) -> TaskId:
    """Submit, and wait until some of the batch are under way."""
    task = world.submit(0, BATCH, mode="blocks", model="none")
    await world.until(lambda: len(asked(world)) >= 4)
    return task


# --- who is lost --------------------------------------------------------------------------------


async def test_a_call_of_the_session_goes_on_when_its_coordinator_dies(
    virtual_time: JumpingClock,
) -> None:
    slow = dataclasses.replace(SLOW, delay_per_token_s=3.0)
    async with open_world([ASKER, *LEADERS, slow, slow, slow]) as world:
        task = world.submit(0, "think hard", mode="direct")
        await world.until(lambda: len(world.calls) == 1)
        await world.kill(leader(world, task))
        result = await world.result(0, task)
        assert result.state == "answered", result.answer
        assert result.term == 2
        assert len(world.calls) == 1, "the next coordinator found it, of three that have the model"


@pytest.mark.parametrize("also_executor", [False, True])
async def test_no_sub_call_of_a_batch_is_asked_twice_when_its_coordinator_dies(
    virtual_time: JumpingClock,
    also_executor: bool,
) -> None:
    async with open_world([ASKER, *LEADERS, WORKER, WORKER, SLOW, SLOW]) as world:
        task = await begin_batch(world)
        await world.kill(leader(world, task))
        if also_executor:
            await world.kill(next(n for n in (4, 5) if world.places[n].cells))
        result = await world.result(0, task)
        assert is_whole(result, world), asked(world)


async def test_nor_when_the_peer_is_lost_that_runs_the_cell(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, *LEADERS, WORKER, WORKER, SLOW, SLOW]) as world:
        task = await begin_batch(world)
        await world.kill(next(n for n in (4, 5) if world.places[n].cells))
        result = await world.result(0, task)
        assert is_whole(result, world), asked(world)
        assert result.term == 1


async def test_nor_when_a_coordinator_stands_still_and_wakes_up_deposed(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, *LEADERS, WORKER, SLOW, SLOW]) as world:
        task = await begin_batch(world)
        world.freeze(leader(world, task), 10.0)
        result = await world.result(0, task)
        assert is_whole(result, world), asked(world)


async def test_what_was_answered_and_never_heard_is_told_again(virtual_time: JumpingClock) -> None:
    """All who could lead it stand still until the models are through."""
    async with open_world([ASKER, *LEADERS, WORKER, SLOW]) as world:
        task = await begin_batch(world)
        first = leader(world, task)
        for other in (n for n in (1, 2, 3) if n != first):
            world.freeze(other, 10.0)
        await world.kill(first)
        await trio.sleep(8)
        catalogue = world.places[5].hands.catalogue  # type: ignore[union-attr]
        assert sum(one.in_flight for one in catalogue.listings()) == 0
        assert is_whole(await world.result(0, task), world), asked(world)


async def test_the_calls_of_a_cancelled_task_end_at_once(virtual_time: JumpingClock) -> None:
    slow = dataclasses.replace(SLOW, delay_per_token_s=30.0)
    async with open_world([ASKER, *LEADERS, WORKER, slow]) as world:
        task = await begin_batch(world)
        catalogue = world.places[5].hands.catalogue  # type: ignore[union-attr]
        assert sum(one.in_flight for one in catalogue.listings()) >= 4
        world[0].submitter.cancel(task, "enough")
        await trio.sleep(1)
        assert sum(one.in_flight for one in catalogue.listings()) == 0


async def test_also_those_that_the_coordinators_own_node_runs(virtual_time: JumpingClock) -> None:
    alone = dataclasses.replace(THINKER, roles=("submit", "coordinate", "infer"))
    slow = dataclasses.replace(alone, delay_per_token_s=30.0)
    async with open_world([slow]) as world:
        task = world.submit(0, "think hard", mode="direct")
        await world.until(lambda: len(world.calls) == 1)
        catalogue = world.places[0].hands.catalogue  # type: ignore[union-attr]
        assert sum(one.in_flight for one in catalogue.listings()) == 1
        world[0].submitter.cancel(task, "enough")
        await trio.sleep(1)
        assert sum(one.in_flight for one in catalogue.listings()) == 0


async def test_a_call_that_still_stands_in_line_is_answered_in_the_next_term(
    virtual_time: JumpingClock,
) -> None:
    """Its asker is lost while another call has the only slot, and the term ends meanwhile."""
    slow = dataclasses.replace(SLOW, model_slots=1)
    async with open_world([ASKER, ASKER, slow]) as world:
        claim = Claim(submitter=world.peer(1))
        first, second = (
            call(claim=claim, call=f"turn-{n}", messages=(ChatMessage(role="user", content=text),))
            for n, text in enumerate(("part 1", "part 2"))
        )

        async def ask_in_vain(request: CompletionAsked) -> None:
            with suppress(*Weather):
                async with world[0].mesh.converse(world.peer(2), PROTOCOL, request) as talk:
                    while True:
                        await talk.receive()

        async with trio.open_nursery() as nursery:
            for request in (first, second):
                nursery.start_soon(ask_in_vain, request)
                await trio.sleep(0.2)
            await world.kill(0)
            nursery.cancel_scope.cancel()
        mesh = world[1].mesh
        sought = CallsSought(task=TaskId("task"), term=2, submitter=world.peer(1))
        held = await mesh.request(world.peer(2), PROTOCOL, sought, CallsHeld, timeout_s=5)
        assert set(held.calls) == {"turn-0", "turn-1"}
        assert world.calls == ["part 1"], "the other stands in line"
        quick = Claim(submitter=world.peer(1), priority="interactive")
        third = call(2, claim=quick, call="turn-2")
        ends: list[Message] = []

        async def ask_all(request: CompletionAsked) -> None:
            async with mesh.converse(world.peer(2), PROTOCOL, request) as talk:
                while isinstance(message := await talk.receive(), CompletionDelta):
                    pass
                ends.append(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_all, third)
            nursery.start_soon(ask_all, second.model_copy(update={"term": 2}))
        assert [type(one) for one in ends] == [CompletionDone] * 2
        assert world.calls == ["part 1", "why?", "part 2"]


# --- one room -----------------------------------------------------------------------------------

MINE = PeerId("12D3KooWabcdefgh")


def call(term: int = 1, **more: object) -> CompletionAsked:
    given: dict[str, object] = {
        "task": TaskId("task"),
        "term": term,
        "call": "turn-1",
        "model": "m",
        "messages": (ChatMessage(role="user", content="why?"),),
        "remaining_s": 60.0,
        "claim": Claim(submitter=MINE),
    }
    return CompletionAsked.model_validate({**given, **more})


class Model:
    """Says a word a second, and counts."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.asked = 0
        self.at_it = 0

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, CompletionAsked)
        self.asked += 1
        self.at_it += 1
        try:
            for word in self.words:
                await trio.sleep(1)
                await conversation.send(CompletionDelta(text=word))
        finally:
            self.at_it -= 1
        usage = Usage(prompt_tokens=1, completion_tokens=len(self.words))
        return CompletionDone(model="m", finish_reason="stop", usage=usage, held_s=1.0, hot=hot())


def open_room(two: Two, model: Model) -> KeptCalls:
    kept = open_kept_calls(two.nursery)
    two.room.serve(PROTOCOL, kept.keeping(model.answer))
    return kept


async def ask(two: Two, request: CompletionAsked) -> tuple[str, CompletionDone]:
    words: list[str] = []
    async with two.asking.asker.converse(two.room.peer, PROTOCOL, request) as talk:
        while isinstance(message := await talk.receive(), CompletionDelta):
            words.append(message.text)
    assert isinstance(message, CompletionDone)
    return "".join(words), message


async def test_who_joins_is_told_all_of_it_from_its_beginning(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    model = Model("one ", "two ", "three")
    async with open_two(tmp_path) as two:
        open_room(two, model)
        told: list[tuple[str, CompletionDone]] = []

        async def join(term: int) -> None:
            told.append(await ask(two, call(term)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join, 1)
            await trio.sleep(1.5)
            nursery.start_soon(join, 2)
        assert [text for text, _ in told] == ["one two three"] * 2
        began = trio.current_time()
        text, done = await ask(two, call(3))
        assert (text, done.usage.completion_tokens) == ("one two three", 3)
        assert trio.current_time() - began < 0.5, "it is known"
        assert done.hot is None, "and what its peer said of itself then is old"
        assert model.asked == 1


async def test_a_call_whose_asker_is_lost_ends_after_a_while(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    model = Model(*["word "] * 1000)
    async with open_two(tmp_path) as two:
        open_room(two, model)
        two.nursery.start_soon(ask_in_vain, two)
        await until(lambda: model.at_it == 1)
        await two.asking.transport.disconnect(two.room.peer)
        await trio.sleep(ORPHAN_S - 1)
        assert model.at_it == 1
        await trio.sleep(2)
        assert model.at_it == 0


async def ask_in_vain(two: Two) -> None:
    with pytest.raises(Exception, match=r".*"):
        await ask(two, call())


async def test_an_asker_that_leaves_on_purpose_ends_it(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    model = Model(*["word "] * 1000)
    async with open_two(tmp_path) as two:
        open_room(two, model)
        scope = trio.CancelScope()
        two.nursery.start_soon(leave_it, lambda: ask(two, call()), scope)
        await until(lambda: model.at_it == 1)
        scope.cancel()
        await trio.sleep(0.5)
        assert model.at_it == 0


@pytest.mark.parametrize("missing", ["task", "term", "call", "claim"])
async def test_a_call_that_is_of_no_task_is_not_kept(missing: str) -> None:
    assert key_of(call()) is not None
    nothing = Claim() if missing == "claim" else None
    assert key_of(call().model_copy(update={missing: nothing})) is None


async def test_a_call_is_known_by_what_it_asks_and_not_by_who_asks_or_when() -> None:
    assert key_of(call()) == key_of(call(7, remaining_s=1.0, claim=Claim(submitter=MINE)))
    assert key_of(call()) != key_of(call(temperature=0.5))
    assert key_of(call()) != key_of(call(so_far="Because"))


async def test_what_is_held_of_a_task_is_told_to_whoever_leads_it_now(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_two(tmp_path) as two:
        open_room(two, Model("yes"))
        await ask(two, call(2))
        sought = CallsSought(task=TaskId("task"), term=3, submitter=MINE)

        async def seek(asked: CallsSought) -> tuple[str, ...]:
            held = await two.asking.asker.request(
                two.room.peer, PROTOCOL, asked, CallsHeld, timeout_s=5
            )
            return held.calls

        assert await seek(sought) == ("turn-1",)
        assert await seek(sought.model_copy(update={"task": TaskId("another")})) == ()
        with pytest.raises(RequestRefusedError, match="term 3 was heard"):
            await seek(sought.model_copy(update={"term": 2}))
        with pytest.raises(RequestRefusedError, match="term 3 was heard"):
            await ask(two, call(2))


async def test_who_joins_a_question_of_a_group_hears_of_a_failure_as_if_it_had_begun_it(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async def is_full(_conversation: Conversation, _request: CompletionAsked) -> CompletionDone:
        await trio.sleep(2)
        raise BackendError("overloaded", "all its slots are taken")

    async with open_two(tmp_path) as two:
        kept = open_room(two, Model("never asked"))
        talk = Call(two.asking.peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.once, talk, call(), is_full)
            await trio.sleep(1)
            with pytest.raises(RequestRefusedError, match="all its slots are taken"):
                await ask(two, call(2))


async def test_a_group_and_a_single_question_are_the_same_call(
    virtual_time: JumpingClock,
) -> None:
    """Of two that are in a group the first is asked alone, next."""
    slow = dataclasses.replace(THINKER, delay_per_token_s=1.0)
    async with open_world([ASKER, slow]) as world:
        claim, mesh = Claim(submitter=world.peer(0)), world[0].mesh
        group = CompletionsAsked(
            task=TaskId("task"),
            term=1,
            model="m",
            prompts=("part 1", "part 2"),
            calls=("cell-0-a-0", "cell-0-b-0"),
            remaining_s=60.0,
            claim=claim,
        )
        told = 0
        async with mesh.converse(world.peer(1), PROTOCOL, group) as talk:
            while isinstance(message := await talk.receive(), CompletionsTold):
                told += len(message.answers)
        assert isinstance(message, CompletionsDone)
        alone = call(2, call="cell-0-b-0", claim=claim)
        alone = alone.model_copy(update={"messages": (ChatMessage(role="user", content="part 2"),)})
        async with mesh.converse(world.peer(1), PROTOCOL, alone) as talk:
            assert isinstance(await talk.receive(), CompletionDelta)
        assert told == 2
        assert world.calls == ["part 1", "part 2"]
