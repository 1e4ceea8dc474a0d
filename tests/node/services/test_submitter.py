"""The room of those who submit, through cuts, kills, restarts and a full disk."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core import rendezvous
from kowalski.mesh.loopback_transport import Weather
from kowalski.node.services import coordinator
from kowalski.node.services.submitter import Seen
from kowalski.node.storage import StorageError
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.journal import CellFinished
from kowalski.protocol.messages.task import Entry, EntryOffered, Grant, TaskSpec
from kowalski.rlm.journal import GENESIS, check_chain, event_of
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks
from tests.node.services.test_grouped_questions import answered_calls

pytestmark = pytest.mark.trio


def leader(world: World, task: TaskId) -> int:
    return world.number_of(world[0].submitter.find(task).coordinator)


# --- submitting ---------------------------------------------------------------------------------


async def test_the_same_submit_again_is_the_same_task(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        for _ in range(3):
            task = world.submit(0, block("say once"), mode="blocks")
        await world.result(0, task)
        assert world.submit(0, block("say once"), mode="blocks") == task
        await trio.sleep(5)
        assert world.cells == ["say once\n"]


async def test_another_task_of_the_same_name_is_refused(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        world.submit(0, block("say once"), mode="blocks")
        with pytest.raises(RequestRefusedError, match="conflict"):
            world.submit(0, block("say other"), mode="blocks")
        with pytest.raises(RequestRefusedError, match="unknown"):
            world[0].submitter.find(TaskId("nobody"))
        with pytest.raises(RequestRefusedError, match="unknown"):
            world[0].submitter.cancel(TaskId("nobody"), "x")


async def test_tasks_are_listed_latest_first(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER]) as world:
        for name in ("a", "b", "c"):
            world.submit(0, block("say x"), mode="blocks", task=name)
        assert [task.id for task in world[0].submitter.tasks] == ["c", "b", "a"]
        assert {task.why_waiting for task in world[0].submitter.tasks} == {
            "no peer offers to coordinate"
        }


# --- cuts and restarts --------------------------------------------------------------------------


async def test_a_conversation_that_breaks_is_opened_again_in_its_term(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks("say one", "wait 6\nsay two"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        number = leader(world, task)
        for _ in range(5):
            for stream in world.transport(0).streams(world.peer(number)):
                await stream.reset()
            await trio.sleep(0.7)
        result = await world.result(0, task)
        assert result.answer is not None
        assert "two" in result.answer.answer
        assert (result.state, result.term) == ("answered", 1)
        assert len(world.cells) == 2


async def test_a_network_that_stands_still_for_two_seconds_costs_no_term(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks("say one", "wait 6\nsay two", "say three"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        usual, world.network.weather = world.network.weather, Weather(latency_s=2.0)
        await trio.sleep(2)
        world.network.weather = usual
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 1)
        assert len(world.cells) == 3


async def test_a_network_that_stands_still_for_ten_seconds_costs_a_term_and_nothing_else(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        prompt = blocks("say one", *(f"wait 4\nsay more {n}" for n in range(6)))
        task = world.submit(0, prompt, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        usual, world.network.weather = world.network.weather, Weather(latency_s=10.0)
        await trio.sleep(10)
        world.network.weather = usual
        result = await world.result(0, task)
        assert result.state == "answered"
        assert result.term > 1
        check_chain(task, world[0].submitter.entries(task))
        await trio.sleep(15)
        left = [child.name for child in world[0].submitter._nursery.child_tasks]
        assert not [name for name in left if "_hold_talk" in name], "old conversations have ended"


async def test_a_link_that_is_cut_for_two_seconds_costs_a_term_and_no_work(
    virtual_time: JumpingClock,
) -> None:
    """A closed connection is what a dead peer leaves behind: nobody waits to see if it is one."""
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks("say one", "wait 6\nsay two"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        number, before = leader(world, task), trio.current_time()
        world.cut(0, number)
        await world.until(lambda: leader(world, task) != number)
        assert trio.current_time() - before < 0.1
        await trio.sleep(2)
        world.mend(0, number)
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 2)
        check_chain(task, world[0].submitter.entries(task))


async def test_a_cut_of_ten_seconds_ends_the_term_and_fences_the_old_coordinator(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        prompt = blocks("say one", *(f"wait 4\nsay more {n}" for n in range(6)))
        task = world.submit(0, prompt, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        number = leader(world, task)
        world.cut(0, number)
        await trio.sleep(10)
        assert leader(world, task) != number
        world.mend(0, number)
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 2)
        entries = world[0].submitter.entries(task)
        check_chain(task, entries)
        finished = [
            event.cell for event in map(event_of, entries) if isinstance(event, CellFinished)
        ]
        assert sorted(finished) == list(range(7)), "each cell became visible once"


async def test_a_submitter_that_restarts_collects_what_is_done_and_continues(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER, THINKER]) as world:
        prompt = blocks("ask first\nsay one", "wait 5\nask second", "say three")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.until(lambda: len(world.cells) == 2)
        await trio.sleep(1)
        before = world[0].submitter.find(task)
        assert before.entries > 0
        await world.restart(0)
        after = world[0].submitter.find(task)
        assert (after.state, after.term, after.digests) == (
            "waiting",
            before.term,
            before.digests,
        )
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 2)
        assert sorted(world.calls) == ["first", "second"], "what was answered is not asked again"


async def test_a_submitter_that_restarts_knows_how_its_ended_tasks_ended(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, block("say done"), mode="blocks")
        result = await world.result(0, task)
        await world.restart(0)
        again = world[0].submitter.find(task)
        assert (again.state, again.answer, again.digests) == (
            result.state,
            result.answer,
            result.digests,
        )
        await trio.sleep(10)
        assert len(world.cells) == 1


async def test_a_prefix_larger_than_a_frame_reaches_the_next_coordinator(
    virtual_time: JumpingClock,
) -> None:
    long = dataclasses.replace(THINKER, tells=lambda request: "x" * 100_000)
    async with open_world([ASKER, LEADER, LEADER, WORKER, long]) as world:
        prompt = blocks("ask-many 40 part\nkeep x 41", "wait 5\nshow x")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.until(lambda: len(world.cells) == 2)
        entries = world[0].submitter.entries(task)
        assert sum(len(entry.body) for entry in entries) > 3 * 1024 * 1024
        await world.kill(leader(world, task))
        result = await world.result(0, task)
        assert result.answer is not None
        assert (result.state, result.term) == ("answered", 2)
        assert "x is 41" in result.answer.answer
        assert len(world.calls) == 40
        assert len(answered_calls(world, task)) == 40


async def test_a_coordinator_that_sends_nonsense_is_replaced_and_hung_up_on(
    virtual_time: JumpingClock,
) -> None:
    hung_up = trio.Event()

    async def rogue(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, Grant)
        nonsense = Entry(term=request.term, index=0, parent=GENESIS, body=b"\xff")
        await conversation.send(EntryOffered(task=request.task, entry=nonsense))
        try:
            while True:
                await conversation.receive()
        finally:
            hung_up.set()

    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        first = rendezvous.order(TaskId("task"), {world.peer(1): 1.0, world.peer(2): 1.0})[0]
        world[world.number_of(first)].mesh.serve(coordinator.PROTOCOL, rogue)
        task = world.submit(0, block("say fine"), mode="blocks")
        await world.until(hung_up.is_set, within_s=1)
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 2)


# --- a disk that is full ------------------------------------------------------------------------


def refuse_writes(world: World, number: int, *, refuses: bool) -> None:
    """Of the ledger of a node: SQLite's own way to take no more."""
    storage = world[number].submitter._storage
    storage._database._connection.execute(f"PRAGMA query_only = {int(refuses)}")


async def test_a_disk_that_takes_no_more_refuses_a_submit_and_keeps_nothing_of_it(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        refuse_writes(world, 0, refuses=True)
        with pytest.raises(StorageError):
            world.submit(0, block("say fine"), mode="blocks")
        assert world[0].submitter.tasks == ()
        await trio.sleep(5)
        assert world.cells == []
        refuse_writes(world, 0, refuses=False)
        task = world.submit(0, block("say fine"), mode="blocks")
        assert (await world.result(0, task)).state == "answered"


async def test_a_node_whose_disk_takes_no_more_lives_on_and_finishes_once_it_does(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks(*(f"wait 1\nsay {n}" for n in range(12))), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        refuse_writes(world, 0, refuses=True)
        await trio.sleep(5)
        await world.kill(leader(world, task))  # a new term cannot be stored either
        await trio.sleep(10)
        assert world.is_up(0)
        before = world[0].submitter.find(task)
        assert (before.is_over, before.term) == (False, 1)
        refuse_writes(world, 0, refuses=False)
        result = await world.result(0, task)
        assert result.state == "answered"
        check_chain(task, world[0].submitter.entries(task))


async def test_a_refusal_that_cannot_be_stored_is_dealt_with_once_it_can(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        first = rendezvous.order(TaskId("task"), {world.peer(1): 1.0, world.peer(2): 1.0})[0]
        spec = TaskSpec(prompt="x", max_iterations=1, timeout_s=9.0)
        higher = Grant(
            task=TaskId("task"),
            term=2,
            spec=spec,
            prefix_entries=0,
            last_digest=GENESIS,
            lease_s=3.0,
            remaining_s=9.0,
        )
        async with world[0].mesh.converse(first, coordinator.PROTOCOL, higher) as talk:
            await talk.receive()
        task = world.submit(0, block("say fine"), mode="blocks")
        assert world[0].submitter.find(task).coordinator == first
        refuse_writes(world, 0, refuses=True)
        await trio.sleep(3)
        assert world[0].submitter.find(task).term == 1
        refuse_writes(world, 0, refuses=False)
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 2)


# --- onlookers ----------------------------------------------------------------------------------


async def test_an_onlooker_sees_every_entry_in_order_and_the_end(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        with world[0].submitter.watch(TaskId("task")) as seen:
            task = world.submit(0, blocks("say one", "say two"), mode="blocks")
            heard: list[Seen] = []
            while not (heard and heard[-1].task.is_over):
                heard.append(await seen.receive())
        entries = [one.entry for one in heard if one.entry is not None]
        assert entries == world[0].submitter.entries(task)
        assert {one.progress.kind for one in heard if one.progress} >= {"stdout"}


async def test_an_onlooker_that_reads_nothing_is_left_behind_and_harms_nobody(
    virtual_time: JumpingClock,
) -> None:
    slow = dataclasses.replace(THINKER, model_slots=64, delay_per_token_s=1.0)  # entries apart
    async with open_world([ASKER, LEADER, WORKER, slow]) as world:
        watcher = world[0].submitter
        with watcher.watch(TaskId("task")) as blind, watcher.watch(TaskId("task")) as other:
            prompt = block("ask-many 1100 q")
            task = world.submit(0, prompt, mode="blocks", model="none")
            seen = 0
            async for one in other:
                seen += one.entry is not None
                if one.task.is_over:
                    break
            assert seen == world[0].submitter.find(task).entries
            received = 0
            async for _ in blind:
                received += 1
            assert received < seen
        assert (await world.result(0, task)).state == "answered"
