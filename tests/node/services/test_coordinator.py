"""Who leads: terms that begin, are refused, and are deposed, on whole nodes."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.services import coordinator
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.journal import CellFinished, Opened
from kowalski.protocol.messages.repl import SessionClosed
from kowalski.rlm.journal import GENESIS, digest, entry_of, event_of
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.node.services.prompts import ASKER, LEADER, WORKER, block, blocks, heard

pytestmark = pytest.mark.trio


def grant(term: int, *, task: str = "by-hand", prompt: str | None = None) -> wire.Grant:
    return wire.Grant(
        task=TaskId(task),
        term=term,
        spec=wire.TaskSpec(
            prompt=prompt or block("wait 50"), mode="blocks", max_iterations=5, timeout_s=600.0
        ),
        prefix_entries=0,
        last_digest=GENESIS,
        lease_s=3.0,
        remaining_s=600.0,
    )


async def failure(conversation: Conversation) -> RequestFailedError:
    """How it ends, whatever comes before."""
    with trio.fail_after(60):
        try:
            while True:
                await conversation.receive()
        except RequestFailedError as failed:
            return failed


async def refusal(world: World, number: int, request: Message) -> RequestRefusedError:
    async with world[0].mesh.converse(
        world.peer(number), coordinator.PROTOCOL, request
    ) as conversation:
        try:
            while True:
                await conversation.receive()
        except RequestRefusedError as no:
            return no


async def test_a_coordinator_that_is_killed_is_followed_by_the_next_term(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        prompt = blocks("keep x 41\nsay one", "wait 5\nsay two", "show x")
        task = world.submit(0, prompt, mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        first = world[0].submitter.find(task)
        await world.kill(world.number_of(first.coordinator))
        result = await world.result(0, task)
        assert result.answer is not None
        assert (result.state, result.term) == ("answered", 2)
        assert result.coordinator != first.coordinator
        for output in ("one", "two", "x is 41"):
            assert f"```output\n{output}\n```" in result.answer.answer
        terms = [entry.term for entry in world[0].submitter.entries(task)]
        assert terms == sorted(terms)
        assert set(terms) == {1, 2}


async def test_every_coordinator_but_the_last_is_killed_and_the_task_is_answered(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, LEADER, WORKER]) as world:
        prompt = blocks(*(f"wait 3\nsay cell {n}" for n in range(6)))
        task = world.submit(0, prompt, mode="blocks")
        for cells in (1, 3, 5):
            await world.until(lambda cells=cells: len(world.cells) >= cells)  # type: ignore[misc]
            leader = world[0].submitter.find(task).coordinator
            await world.kill(world.number_of(leader))
            await trio.sleep(1)
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 4)


async def test_a_lower_term_is_refused_stale_even_when_the_task_is_over(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        mesh = world[0].mesh
        async with mesh.converse(world.peer(1), coordinator.PROTOCOL, grant(3)) as talk:
            await talk.receive()
            assert (await refusal(world, 1, grant(2))).reason == "stale"
            await talk.send(wire.Settle(task=TaskId("by-hand"), term=3))
            await heard(talk, wire.Settled)
        assert (await refusal(world, 1, grant(2))).reason == "stale"


async def test_a_higher_term_for_the_same_peer_goes_on_with_the_work_that_is_under_way(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        mesh, leader = world[0].mesh, world.peer(1)
        async with mesh.converse(leader, coordinator.PROTOCOL, grant(1)) as first:
            opened = await heard(first, wire.EntryOffered)
            await world.until(lambda: len(world.cells) == 1)
            async with mesh.converse(leader, coordinator.PROTOCOL, grant(2)) as second:
                again = await heard(second, wire.EntryOffered)
                assert (again.entry.term, again.entry.body) == (2, opened.entry.body)
                assert (await failure(first)).code == "superseded"
                while not isinstance(event_of(again.entry), CellFinished):
                    again = await heard(second, wire.EntryOffered)
                assert again.entry.term == 2
                assert len(world.cells) == 1, "it was not begun again"


async def test_a_higher_term_on_a_journal_of_somebody_else_deposes_the_lower_one_here(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        mesh, leader = world[0].mesh, world.peer(1)
        async with mesh.converse(leader, coordinator.PROTOCOL, grant(1)) as first:
            await heard(first, wire.EntryOffered)
            await world.until(lambda: len(world.cells) == 1)
            opened = Opened(mode="blocks", why="by somebody else")
            theirs = entry_of(2, 0, GENESIS, opened)
            on_theirs = grant(3).model_copy(
                update={"prefix_entries": 1, "last_digest": digest(TaskId("by-hand"), theirs)}
            )
            async with mesh.converse(leader, coordinator.PROTOCOL, on_theirs) as second:
                assert (await failure(first)).code == "superseded"
                asked = await heard(second, wire.PrefixAsked)
                prefix = wire.Prefix(task=asked.task, start=0, entries=(theirs,))
                await second.send(prefix)
                entry = await heard(second, wire.EntryOffered)
                assert (entry.entry.term, entry.entry.index) == (3, 1)
                await trio.sleep(1)
                assert len(world.cells) == 1, "the same cell was under way, and is joined"


async def test_two_submitters_may_call_their_tasks_alike(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, ASKER, LEADER, WORKER]) as world:
        names = [world.submit(n, block(f"say for {n}"), mode="blocks") for n in (0, 1)]
        assert names[0] == names[1]
        for number in (0, 1):
            result = await world.result(number, names[number])
            assert result.answer is not None
            assert f"for {number}" in result.answer.answer


async def test_more_tasks_than_a_coordinator_leads_wait_for_their_turn(
    virtual_time: JumpingClock,
) -> None:
    worker = dataclasses.replace(WORKER, slots=200)
    async with open_world([ASKER, ASKER, LEADER, worker]) as world:
        tasks = [
            (n % 2, world.submit(n % 2, block("wait 20\nsay done"), mode="blocks", task=f"t{n}"))
            for n in range(coordinator.TASKS_AT_A_TIME + 10)
        ]
        await trio.sleep(15)
        assert len(world.cells) == coordinator.TASKS_AT_A_TIME
        for asker, task in tasks:
            result = await world.result(asker, task)
            assert (result.state, result.term) == ("answered", 1), "it waited where it was"
        assert len(world.cells) == len(tasks)


async def test_a_settled_task_leaves_room_at_its_coordinator_and_its_worker(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        for number in range(coordinator.TASKS_AT_A_TIME + 2):
            task = world.submit(0, block("say done"), mode="blocks", task=f"t{number}")
            assert (await world.result(0, task)).state == "answered"
        assert trio.current_time() < 30, "nobody waited for a turn"
        hands = world.places[2].hands
        assert hands is not None
        host = hands.host
        assert host is not None
        await world.until(lambda: host.slots_free == host.slots, within_s=5)


async def test_what_opens_no_task_is_refused_and_the_room_lives_on(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        mesh, leader = world[0].mesh, world.peer(1)
        strange = SessionClosed(task=TaskId("x"), term=1)
        async with mesh.converse(leader, coordinator.PROTOCOL, strange) as talk:
            with pytest.raises(RequestFailedError, match="bad_request"):
                await talk.receive()
        async with mesh.converse(leader, coordinator.PROTOCOL, grant(1)) as talk:
            await talk.receive()
            await talk.send(strange)
            assert (await failure(talk)).code == "bad_request"
        task = world.submit(0, block("say fine"), mode="blocks")
        assert (await world.result(0, task)).state == "answered"


async def test_a_prefix_that_is_not_the_one_granted_is_refused(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        asked = grant(2).model_copy(update={"prefix_entries": 1, "last_digest": "a" * 64})
        forged = wire.Entry(term=1, index=0, parent=GENESIS, body=b"x")
        async with world[0].mesh.converse(
            world.peer(1), coordinator.PROTOCOL, asked
        ) as conversation:
            await heard(conversation, wire.PrefixAsked)
            await conversation.send(wire.Prefix(task=asked.task, start=0, entries=(forged,)))
            assert (await failure(conversation)).code == "bad_request"
        assert world.cells == []


async def test_a_peer_that_speaks_garbage_harms_nobody_else(virtual_time: JumpingClock) -> None:
    async with open_world([Part(), Part(), Part()]) as world:
        transport = world.transport(2)
        for protocol in (coordinator.PROTOCOL, "/kowalski/repl/1", "/kowalski/inference/1"):
            for rubbish in (b"\xff" * 3000, b"\x00\x00\x00\x04hiya", b"\x00" * 10, b""):
                stream = await transport.open_stream(world.peer(0), protocol, timeout_s=5.0)
                await stream.send(rubbish)
                await stream.finish()
        await world.kill(2)
        task = world.submit(0, block("say fine"), mode="blocks")
        assert (await world.result(0, task)).state == "answered"
        assert world.is_up(0)


async def test_a_peer_that_may_not_submit_has_nothing_led_in_its_own_name(
    virtual_time: JumpingClock,
) -> None:
    """Its role lets it speak with this room, for detached tasks; not more."""
    mere = dataclasses.replace(LEADER, certified=("coordinate",))
    async with open_world([ASKER, mere, LEADER, WORKER]) as world:
        for asked in (grant(1), grant(1).model_copy(update={"submitter": world.peer(1)})):
            with pytest.raises(RequestRefusedError, match="role submit"):
                await world[1].mesh.request(
                    world.peer(2), coordinator.PROTOCOL, asked, wire.Settled, timeout_s=5
                )
        assert not world.cells
