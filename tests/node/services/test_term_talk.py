"""How the conversation of one term may end, and what each end means to the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from kowalski.mesh.conversation import Answer, Conversation
from kowalski.node.core.task_ledger import (
    CoordinatorDeclined,
    CoordinatorLost,
    Event,
    SettledHeard,
    Task,
)
from kowalski.node.services import coordinator
from kowalski.node.services.term_talk import UNSAID_MAX, Granted, TermTalk
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER

pytestmark = pytest.mark.trio

A = TaskId("a")


@asynccontextmanager
async def open_talk(answer: Answer) -> AsyncIterator[tuple[World, TermTalk]]:
    """A talk of task `a` in term 3 with a coordinator that answers so."""
    async with open_world([ASKER, LEADER]) as world:
        world[1].mesh.serve(coordinator.PROTOCOL, answer)
        spec = wire.TaskSpec(prompt="x", max_iterations=1, timeout_s=60.0)
        task = Task(
            A, spec, 0, state="running", term=3, coordinator=world.peer(1), deadline_at=60.0
        )
        yield world, TermTalk(Granted(task, (), (world.peer(0),)), lease_s=3.0)


def unheard(_talk: TermTalk, message: Message) -> None:
    raise AssertionError(message)


def answering(act: Callable[[Message], Message]) -> Answer:
    async def answer(_conversation: Conversation, request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        return act(request)

    return answer


def refusing(reason: str) -> Answer:
    def refuse(_request: Message) -> Message:
        raise RequestRefusedError(reason, "words")

    return answering(refuse)


@pytest.mark.parametrize(
    ("reason", "how"),
    [
        ("busy", "busy"),
        ("draining", "leaving"),
        ("no_peer", "unable"),
        ("stale", "failed"),
        ("a_newer_word", "failed"),
    ],
)
async def test_a_refusal_tells_the_ledger_what_to_make_of_it(
    virtual_time: JumpingClock, reason: str, how: str
) -> None:
    async with open_talk(refusing(reason)) as (world, talk):
        ended = await talk.hold(world[0].mesh, unheard)
        assert ended == CoordinatorDeclined(A, 3, f"{reason}: words", how)  # type: ignore[arg-type]


async def test_a_coordinator_that_fails_is_lost(virtual_time: JumpingClock) -> None:
    def fail(_request: Message) -> Message:
        raise RequestFailedError("internal", "a bug")

    async with open_talk(answering(fail)) as (world, talk):
        assert await talk.hold(world[0].mesh, unheard) == CoordinatorLost(A, 3, "internal: a bug")


async def test_a_coordinator_that_cannot_be_reached_is_lost(virtual_time: JumpingClock) -> None:
    async with open_talk(refusing("busy")) as (world, talk):
        await world.kill(1)
        assert isinstance(await talk.hold(world[0].mesh, unheard), CoordinatorLost)


async def test_it_ends_when_the_coordinator_has_settled(virtual_time: JumpingClock) -> None:
    granted: list[Message] = []

    def settle(request: Message) -> Message:
        granted.append(request)
        return wire.Settled(task=A, term=3)

    async with open_talk(answering(settle)) as (world, talk):
        assert await talk.hold(world[0].mesh, unheard) == SettledHeard(A, 3)
        (grant,) = granted
        assert isinstance(grant, wire.Grant)
        assert (grant.term, grant.holders) == (3, (world.peer(0),))
        assert 59.0 < grant.remaining_s < 60.0


async def test_what_is_said_arrives_in_order_and_what_is_heard_is_passed_on(
    virtual_time: JumpingClock,
) -> None:
    async def answer(conversation: Conversation, _request: Message) -> Message:
        for _ in range(3):
            await conversation.send(await conversation.receive())
        return wire.Settled(task=A, term=3)

    heard: list[Message] = []
    async with open_talk(answer) as (world, talk):
        said = [wire.CancelTask(task=A, term=3, reason=str(n)) for n in range(3)]
        for message in said:
            talk.say(message)
        ended: Event | None = await talk.hold(world[0].mesh, lambda _, one: heard.append(one))
        assert ended == SettledHeard(A, 3)
        assert heard == said


async def test_a_talk_that_we_end_is_no_news(virtual_time: JumpingClock) -> None:
    async def answer(_conversation: Conversation, _request: Message) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with open_talk(answer) as (world, talk), trio.open_nursery() as nursery:
        nursery.start_soon(ends_in_nothing, world, talk)
        await trio.sleep(1)
        for _ in range(UNSAID_MAX + 2):
            talk.say(wire.Settle(task=A, term=3))
            # It reads nothing at all: that is no coordinator.


async def ends_in_nothing(world: World, talk: TermTalk) -> None:
    assert await talk.hold(world[0].mesh, unheard) is None
