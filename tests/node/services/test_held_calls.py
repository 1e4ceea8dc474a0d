"""Whom a coordinator asks for calls that others had under way, and when it does not ask."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.services import inference
from kowalski.node.services.held_calls import SEEK_S, HeldCalls
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.calls import CallsHeld, CallsSought
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER
from tests.node.services.test_placed_work import Instead

pytestmark = pytest.mark.trio

SUBMITTER = PeerId("12D3KooWabcdefgh")


async def says_turn_3(_conversation: Conversation, request: Message) -> Message:
    assert isinstance(request, CallsSought)
    await trio.lowlevel.checkpoint()
    return CallsHeld(calls=("turn-3",))


async def says_nothing(_conversation: Conversation, _request: Message) -> Message:
    await trio.sleep_forever()


def held(world: World, term: int, submitter: PeerId | None = SUBMITTER) -> HeldCalls:
    async def at_once() -> None:
        await trio.lowlevel.checkpoint()

    return HeldCalls(
        world[0].mesh, TaskId("task"), submitter, term=lambda: term, until_lease_held=at_once
    )


async def test_the_first_coordinator_asks_nobody(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        models = Instead(world, inference.PROTOCOL, says_turn_3, 1)
        assert await held(world, 1).take("turn-3") is None
        assert await held(world, 2, submitter=None).take("turn-3") is None
        assert models.asked == []


async def test_whoever_follows_asks_all_who_run_models_once(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER, LEADER, THINKER]) as world:
        models = Instead(world, inference.PROTOCOL, says_turn_3, 3)
        others = Instead(world, inference.PROTOCOL, says_nothing, 2)
        calls = held(world, 2)
        assert await calls.take("turn-4") is None
        assert await calls.take("turn-3") == world.peer(3)
        assert await calls.take("turn-3") is None, "where that fails, it is anybody's"
        assert models.asked == [3]
        assert others.asked == [], "it runs no model"


async def test_who_asks_while_others_look_hears_what_they_find(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        is_asked = trio.Event()

        async def says_turn_3_later(conversation: Conversation, request: Message) -> Message:
            is_asked.set()
            await trio.sleep(SEEK_S / 2)
            return await says_turn_3(conversation, request)

        models = Instead(world, inference.PROTOCOL, says_turn_3_later, 1)
        calls = held(world, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.take, "turn-4")
            await is_asked.wait()
            assert await calls.take("turn-3") == world.peer(1)
        assert models.asked == [1]


async def test_one_that_is_silent_holds_nobody_up_for_long(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, says_nothing, 1)
        Instead(world, inference.PROTOCOL, says_turn_3, 2)
        began = trio.current_time()
        assert await held(world, 2).take("turn-3") == world.peer(2)
        assert trio.current_time() - began <= SEEK_S + 0.01


async def test_the_first_one_asks_too_once_its_calls_were_interrupted(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        models = Instead(world, inference.PROTOCOL, says_turn_3, 1)
        calls = held(world, 1)
        assert await calls.take("turn-3") is None
        for times in (1, 2):
            calls.interrupted()
            assert await calls.take("turn-3") == world.peer(1)
            assert await calls.take("turn-2") is None
            assert models.asked == [1] * times
