"""Every task from every peer: listed, followed, cancelled, resumed, traced."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.services.following_afar import PROTOCOL, Place
from kowalski.node.services.mesh_tasks import MeshTasks
from kowalski.node.services.submitter import Seen
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import watching as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.journal import ModelReplied
from kowalski.protocol.messages.repl import SessionClosed
from kowalski.rlm.journal import check_chain, event_of
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks

pytestmark = pytest.mark.trio

ALL = [ASKER, LEADER, LEADER, WORKER, THINKER]
LOOKER = 3
"""A worker, which has nothing to do with the tasks of others."""

SLOW = blocks("say one", "wait 5\nsay two", "say three")


def tasks(world: World, number: int) -> MeshTasks:
    return world[number].tasks


class Followed:
    """What somebody who follows has seen."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def __call__(self, seen: Seen) -> None:
        await trio.lowlevel.checkpoint()
        self.seen.append(seen)

    @property
    def entries(self) -> list[int]:
        return [one.entry.index for one in self.seen if one.entry is not None]


# --- listing and finding ------------------------------------------------------------------------


async def test_a_task_is_listed_on_every_peer_and_so_is_its_end(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, SLOW, mode="blocks")
        await trio.sleep(3)
        for number in (1, 2, 3, 4):
            (one,) = tasks(world, number).elsewhere()
            told = one.headline
            assert (told.task, told.state, one.submitter) == (task, "running", world.peer(0))
            assert (told.coordinator, told.submitter_name) == (
                world[0].submitter.find(task).coordinator,
                "node-0",
            )
        await world.result(0, task)
        await trio.sleep(3)
        assert [one.headline.state for one in tasks(world, 3).elsewhere()] == ["answered"]
        assert tasks(world, 0).elsewhere() == (), "its own are no news to it"


async def test_a_task_is_found_though_nobody_has_announced_it_yet(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, SLOW, mode="blocks")
        place = await tasks(world, LOOKER).find(task)
        assert place == Place(world.peer(0), world.peer(0), task)
        with pytest.raises(RequestRefusedError, match="unknown: no peer that can be reached"):
            await tasks(world, LOOKER).find(TaskId("nobodys"))


async def test_two_tasks_of_one_name_are_told_apart_by_their_submitters(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, ASKER, LEADER, WORKER]) as world:
        for number in (0, 1):
            world.submit(number, block(f"say for {number}"), mode="blocks")
        for wait_s in (0.0, 5.0):  # by asking all of them, and by what they have announced
            await trio.sleep(wait_s)
            with pytest.raises(RequestRefusedError, match="ambiguous: node-0, node-1 have"):
                await tasks(world, LOOKER).find(TaskId("task"))
            place = await tasks(world, LOOKER).find(TaskId("task"), world.peer(1))
            assert place.submitter == world.peer(1)
        assert (await tasks(world, 0).find(TaskId("task"))).submitter == world.peer(0), "its own"


# --- following ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, LOOKER])
async def test_a_follower_sees_every_entry_once_in_order_and_the_end(
    virtual_time: JumpingClock, number: int
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, SLOW, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        followed = Followed()
        place = await tasks(world, number).find(task)
        ended = await tasks(world, number).follow(place, followed)
        assert ended.state == "answered"
        assert ended.answer == world[0].submitter.find(task).answer
        assert followed.entries == list(range(ended.entries))
        kinds = {one.progress.kind for one in followed.seen if one.progress is not None}
        assert "stdout" in kinds
        look, entries = await tasks(world, number).look(place)
        assert look.state == "answered"
        assert check_chain(task, entries) == world[0].submitter.find(task).last_digest


async def test_a_follower_from_afar_waits_for_a_submitter_that_goes_away_and_comes_back(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world, trio.open_nursery() as nursery:
        task = world.submit(0, blocks("say one", "wait 9\nsay two", "say three"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        followed, ended = Followed(), []

        async def follow() -> None:
            place = await tasks(world, LOOKER).find(task)
            ended.append(await tasks(world, LOOKER).follow(place, followed))

        nursery.start_soon(follow)
        await trio.sleep(2)
        await world.kill(0)
        await trio.sleep(20)
        assert not ended
        words = followed.seen[-1].task.why_waiting
        assert words == "node-0 cannot be reached; the task goes on without it"
        await world.start(0)
        await world.until(lambda: bool(ended), within_s=10)
        assert ended[0].state == "answered"
        assert followed.entries == list(range(ended[0].entries))


async def test_a_task_that_is_over_is_shown_whole_and_at_once(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, blocks(*(f"say {n}" for n in range(40))), mode="blocks")
        result = await world.result(0, task)
        followed, began = Followed(), trio.current_time()
        place = await tasks(world, LOOKER).find(task)
        assert (await tasks(world, LOOKER).follow(place, followed)).state == "answered"
        assert followed.entries == list(range(result.entries))
        assert trio.current_time() - began < 2


async def test_a_task_that_ended_without_an_entry_ends_for_its_followers_too(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER]) as world, trio.open_nursery() as nursery:
        task = world.submit(0, SLOW, mode="blocks")
        place = await tasks(world, 1).find(task)
        ended = []

        async def follow() -> None:
            ended.append(await tasks(world, 1).follow(place, Followed()))

        nursery.start_soon(follow)
        await trio.sleep(2)
        world[0].submitter.cancel(task, "enough")
        await world.until(lambda: bool(ended), within_s=2)
        assert ended[0].state == "cancelled"
        assert ended[0].answer is not None
        assert ended[0].answer.detail == "enough"


# --- steering -----------------------------------------------------------------------------------


async def test_a_task_is_cancelled_from_any_peer_within_a_second(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, blocks("say one", "wait 50"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        began = trio.current_time()
        place = await tasks(world, LOOKER).find(task)
        ended = await tasks(world, LOOKER).cancel(place, "by its owner, from afar")
        assert trio.current_time() - began < 1
        assert ended.state == world[0].submitter.find(task).state == "cancelled"
        assert ended.answer is not None
        assert "from afar" in ended.answer.detail


async def test_what_one_left_that_was_cancelled_is_gone_on_with_from_any_peer(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, blocks("keep x 41\nsay one", "wait 50", "show x"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        place = await tasks(world, LOOKER).find(task)
        await tasks(world, LOOKER).cancel(place, "enough")
        name = await tasks(world, LOOKER).resume(place, timeout_s=900.0, max_iterations=None)
        assert name == "task-r2"
        resumed = await world.result(0, name, within_s=100)
        assert resumed.answer is not None
        assert resumed.state == "answered"
        assert "x is 41" in resumed.answer.answer
        assert resumed.spec.timeout_s == 900.0
        assert world[0].submitter.find(task).state == "cancelled", "that stays as it was"
        check_chain(name, world[0].submitter.entries(name))
        assert {entry.term for entry in world[0].submitter.entries(name)} == {1, 2}


async def test_a_task_that_ran_out_of_time_goes_on_without_asking_its_model_again(
    virtual_time: JumpingClock,
) -> None:
    slow = dataclasses.replace(THINKER, delay_per_token_s=1.0)
    async with open_world([ASKER, LEADER, WORKER, slow]) as world:
        prompt = blocks("ask one", "wait 30\nsay two")
        task = world.submit(0, prompt, mode="blocks", timeout_s=20.0)
        ended = await world.result(0, task)
        assert ended.answer is not None
        assert ended.answer.detail.startswith("timeout")
        assert world.calls == ["one"]
        place = await tasks(world, 0).find(task)
        name = await tasks(world, 0).resume(place, timeout_s=600.0, max_iterations=None)
        result = await world.result(0, name, within_s=300)
        assert result.state == "answered"
        assert world.calls.count("one") == 1
        replies = [event_of(entry) for entry in world[0].submitter.entries(name)]
        assert sum(isinstance(one, ModelReplied) for one in replies) == 1


async def test_what_is_answered_is_not_gone_on_with(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say one"), mode="blocks")
        await world.result(0, task)
        place = await tasks(world, LOOKER).find(task)
        with pytest.raises(RequestRefusedError, match="conflict: task task is answered"):
            await tasks(world, LOOKER).resume(place, timeout_s=None, max_iterations=None)


async def test_a_task_that_waits_out_its_pause_goes_on_at_once_when_told_to(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        patient = {"delay_s": 500.0}
        task = world.submit(0, blocks("wait 5\nsay one"), mode="blocks", retry=patient)
        await world.until(lambda: len(world.cells) == 1)
        await world.kill(world.number_of(world[0].submitter.find(task).coordinator))
        await trio.sleep(30)
        assert world[0].submitter.find(task).state == "waiting"
        place = await tasks(world, 0).find(task)
        name = await tasks(world, 0).resume(place, timeout_s=None, max_iterations=None)
        assert name == task
        assert (await world.result(0, task, within_s=30)).state == "answered"


async def test_the_ledgers_own_record_is_had_from_any_peer(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say one"), mode="blocks")
        await world.result(0, task)
        place = await tasks(world, LOOKER).find(task)
        lines = await tasks(world, LOOKER).trace(place)
        assert lines == await tasks(world, 0).trace(place)
        assert "Submitted" in lines[0]
        assert "GrantTerm 1" in lines[0]
        assert any("EntryHeard 0 of term 1" in line for line in lines)


# --- those who hold nothing, and those who lie --------------------------------------------------


async def test_what_is_not_here_is_unknown_and_what_is_no_question_is_refused(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say one"), mode="blocks")
        stranger = world.peer(1)
        asked: list[Message] = [
            wire.WatchAsked(task=TaskId("other")),
            wire.WatchAsked(task=task, submitter=stranger),
            wire.CancelAsked(task=task, submitter=stranger),
            wire.ResumeAsked(task=task, submitter=stranger),
            wire.TraceAsked(task=TaskId("other")),
        ]
        for message in asked:
            with pytest.raises(RequestRefusedError, match="unknown"):
                await reply(world, message)
        with pytest.raises(RequestFailedError, match="bad_request"):
            await reply(world, SessionClosed(task=task, term=1))


async def reply(world: World, message: Message) -> Message:
    mesh = world[LOOKER].mesh
    async with mesh.converse(world.peer(0), PROTOCOL, message) as conversation:
        return await conversation.receive()


async def test_a_holder_that_shows_nonsense_is_not_followed(virtual_time: JumpingClock) -> None:
    async def nonsense(_conversation: Conversation, request: Message) -> Message:
        return request

    async with open_world(ALL) as world:
        world[0].mesh.serve(PROTOCOL, nonsense)
        place = Place(world.peer(0), world.peer(0), TaskId("task"))
        with pytest.raises(RemoteProtocolError, match="watching/asked in answer to"):
            await tasks(world, LOOKER).follow(place, Followed())
        assert await tasks(world, LOOKER)._ask_all(TaskId("task"), None) == []


async def test_a_holder_that_says_nothing_is_not_waited_for_without_end(
    virtual_time: JumpingClock,
) -> None:
    async def silence(_conversation: Conversation, _request: Message) -> Message:
        await trio.sleep_forever()

    async with open_world(ALL) as world:
        world[0].mesh.serve(PROTOCOL, silence)
        place = Place(world.peer(0), world.peer(0), TaskId("task"))
        room = tasks(world, LOOKER)
        for wait_s, ask in (
            (20, lambda: room.look(place)),
            (10, lambda: room.resume(place, timeout_s=None, max_iterations=None)),
        ):
            began = trio.current_time()
            with pytest.raises(PeerUnreachableError, match="within"):
                await ask()
            assert trio.current_time() - began == pytest.approx(wait_s)
