"""One task led in one term, seen from outside, on whole nodes under virtual time."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.loopback_transport import Weather
from kowalski.node.core.missed import LOST_S
from kowalski.node.services import coordinator
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.task import Mode
from kowalski.rlm.journal import GENESIS, check_chain, event_of
from simulations.determinism import without_threads
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks, heard

pytestmark = pytest.mark.trio


def events(world: World, number: int, task: TaskId) -> list[object]:
    return [event_of(entry) for entry in world[number].submitter.entries(task)]


# --- the modes ----------------------------------------------------------------------------------


async def test_blocks_of_two_languages_run_on_the_peers_that_have_them(
    virtual_time: JumpingClock,
) -> None:
    only_bash = dataclasses.replace(WORKER, languages={"bash": "5.2"})
    only_python = dataclasses.replace(WORKER, languages={"python": "3.11"})
    async with open_world([ASKER, LEADER, only_bash, only_python]) as world:
        prompt = (
            block("keep x 41\nsay one")
            + block("say two", "bash")
            + block("show x")
            + block("show x", "bash")
        )
        result = await world.result(0, world.submit(0, prompt, mode="blocks"))
        assert result.state == "answered"
        assert result.answer is not None
        answer = result.answer.answer
        assert "```output\none\n```" in answer
        assert "```output\ntwo\n```" in answer
        assert "x is 41" in answer
        assert "NameError: x" in answer, "each language has variables of its own"
        assert len(world.places[2].cells) == 2
        assert len(world.places[3].cells) == 2


async def test_direct_mode_is_one_call_and_its_reply_is_the_answer(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, THINKER]) as world:
        result = await world.result(0, world.submit(0, "how many?", mode="direct"))
        assert result.answer is not None
        assert (result.state, result.answer.answer) == ("answered", "reply to: how many?")
        assert world.calls == ["how many?"]


# --- quiet work ---------------------------------------------------------------------------------


async def test_a_cell_that_says_nothing_for_a_minute_keeps_its_coordinator(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
        task = world.submit(0, block("wait 60\nsay done"), mode="blocks", cell_timeout_s=100.0)
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 1)
        assert len(world.cells) == 1


async def test_a_model_that_thinks_for_a_minute_keeps_its_coordinator(
    virtual_time: JumpingClock,
) -> None:
    slow = dataclasses.replace(THINKER, delay_per_token_s=50.0)
    async with open_world([ASKER, LEADER, LEADER, slow]) as world:
        result = await world.result(0, world.submit(0, "hm", mode="direct"), within_s=300)
        assert (result.state, result.term) == ("answered", 1)
        assert len(world.calls) == 1


# --- ends ---------------------------------------------------------------------------------------


async def test_cancel_stops_the_cell_within_a_second_and_keeps_what_there_is(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks("say first", "wait 500"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        before = trio.current_time()
        world[0].submitter.cancel(task, "changed my mind")
        result = await world.result(0, task)
        assert trio.current_time() - before < 1.0
        assert result.state == "cancelled"
        assert result.answer is not None
        assert "```output\nfirst\n```" in result.answer.answer
        assert "changed my mind" in result.answer.detail
        await world.until(lambda: world[2].mesh.facts_of(world.peer(2)).hot is not None)
        hot = world[2].mesh.facts_of(world.peer(2)).hot
        assert hot is not None
        assert hot.repl.running == 0


async def test_cancel_is_heard_while_a_task_still_looks_for_somebody_able(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER]) as world:
        task = world.submit(0, "no model here", mode="direct")
        await trio.sleep(1)
        before = trio.current_time()
        world[0].submitter.cancel(task, "enough")
        assert (await world.result(0, task)).state == "cancelled"
        assert trio.current_time() - before < 0.5


async def test_cancel_is_heard_while_inputs_are_still_being_fetched(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        content = await world[2].store.put(b"x" * 1000)
        given = {"name": "x", "content": content.model_dump()}
        world.network.weather = Weather(latency_s=0.9)  # asking for it takes seconds
        task = world.submit(0, block("say x"), mode="blocks", inputs=[given])
        await trio.sleep(2)
        before = trio.current_time()
        world[0].submitter.cancel(task, "enough")
        assert (await world.result(0, task)).state == "cancelled"
        assert trio.current_time() - before < 3
        assert world.cells == []


@pytest.mark.parametrize(
    ("failover", "state", "detail"),
    [("redistribute", "answered", ""), ("fail", "failed", "inputs: the disk takes no more")],
)
async def test_whoever_has_no_room_for_the_inputs_leaves_the_lead_to_another(
    virtual_time: JumpingClock, failover: str, state: str, detail: str
) -> None:
    with without_threads():
        async with open_world([ASKER, LEADER, LEADER, WORKER]) as world:
            content = await world[0].store.put(b"x" * 1000)
            given = {"name": "x", "content": content.model_dump()}
            disks = [world.places[number].disk for number in (1, 2)]
            for disk in disks:
                disk.is_full += 1
            task = world.submit(0, block("say x"), mode="blocks", inputs=[given], failover=failover)
            await world.until(lambda: world[0].submitter.find(task).term > 0)
            await trio.sleep(0.5)
            disks[1].is_full -= 1
            result = await world.result(0, task)
            assert result.answer is not None
            assert result.state == state
            assert detail in result.answer.detail


async def test_a_cancelled_task_is_cancelled_even_if_its_coordinator_forgot_it(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, block("wait 500"), mode="blocks")
        await world.until(lambda: len(world.cells) == 1)
        world.cut(0, 1)
        await trio.sleep(0.1)
        world[0].submitter.cancel(task, "now")
        await world.restart(1)
        world.mend(0, 1)
        assert (await world.result(0, task)).state == "cancelled"


async def test_a_task_that_takes_too_long_fails_at_its_deadline_and_says_so(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        before = trio.current_time()
        task = world.submit(
            0, block("wait 500"), mode="blocks", timeout_s=20.0, cell_timeout_s=900.0
        )
        result = await world.result(0, task)
        assert result.answer is not None
        assert result.state == "failed"
        assert result.answer.detail.startswith("timeout: ")
        assert 20.0 <= trio.current_time() - before < 21.0


async def test_without_a_model_a_task_that_needs_one_says_so(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        result = await world.result(0, world.submit(0, "what is it?", mode="direct"))
        assert result.answer is not None
        assert (result.state, result.answer.detail[:9]) == ("failed", "no_model:")


@pytest.mark.parametrize(
    ("prompt", "mode"), [(block("say hi"), "blocks"), ("question", "direct")], ids=["cell", "model"]
)
async def test_a_task_waits_for_the_only_one_that_can_do_it_and_was_here_a_moment_ago(
    virtual_time: JumpingClock, prompt: str, mode: Mode
) -> None:
    """Given up meanwhile: nobody counts it among those that could be asked."""
    able = WORKER if mode == "blocks" else THINKER
    async with open_world([ASKER, LEADER, able]) as world:
        await world.kill(2, is_silent=True)
        await world.until(lambda: world[1].mesh.state_of(world.peer(2)) == "failed")
        task = world.submit(0, prompt, mode=mode)
        await trio.sleep(8)
        assert not world[0].submitter.find(task).is_over
        await world.start(2)
        assert (await world.result(0, task, within_s=20)).state == "answered"


@pytest.mark.parametrize("failover", ["redistribute", "fail"])
async def test_a_task_does_not_wait_for_who_has_been_away_for_long_nor_where_it_must_not(
    virtual_time: JumpingClock, failover: str
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        await world.kill(2, is_silent=True)
        await trio.sleep(LOST_S + 5.0 if failover == "redistribute" else 5.0)
        task = world.submit(0, block("say hi"), mode="blocks", failover=failover)
        result = await world.result(0, task, within_s=6)
        assert result.answer is not None
        assert result.answer.detail == "no_language: no peer runs python"


@pytest.mark.parametrize("mode", ["blocks", "rlm"])
async def test_who_is_heard_of_through_others_and_cannot_be_reached_is_not_waited_for_without_end(
    virtual_time: JumpingClock, mode: Mode
) -> None:
    """Its gossip comes by way of the others, so that it was always heard of a moment ago."""
    prompt = block("say hi") if mode == "blocks" else "question"
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        world.cut(1, 2)
        await trio.sleep(60)
        assert world[1].mesh.state_of(world.peer(2)) == "alive"
        assert not world[1].mesh.is_routable(world.peer(2))
        task = world.submit(0, prompt, mode=mode)
        result = await world.result(0, task, within_s=LOST_S + 10.0)
        assert result.answer is not None
        assert "no_language" in result.answer.detail


async def test_a_task_that_queues_waits_in_the_ledger_for_a_peer_that_is_able(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        await world.kill(3)
        task = world.submit(0, "question", mode="direct", failover="queue")
        await trio.sleep(30)
        waiting = world[0].submitter.find(task)
        assert waiting.retries == 0
        assert "no_model" in waiting.why_waiting
        await world.start(3)
        result = await world.result(0, task, within_s=20)
        assert result.state == "answered"


async def test_a_task_that_queues_waits_in_the_middle_for_a_model_that_went_away(
    virtual_time: JumpingClock,
) -> None:
    slow = dataclasses.replace(THINKER, delay_per_token_s=5.0)
    async with open_world([ASKER, LEADER, WORKER, slow]) as world:
        task = world.submit(0, "question", mode="direct", failover="queue")
        await world.until(lambda: len(world.calls) == 1)
        await world.kill(3)
        await trio.sleep(30)
        assert not world[0].submitter.find(task).is_over
        await world.start(3)
        result = await world.result(0, task)
        assert result.state == "answered"


async def test_a_peer_that_comes_a_moment_later_is_waited_for(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, THINKER]) as world:
        await world.kill(2)
        task = world.submit(0, "what is it?", mode="direct")
        await trio.sleep(0.5)
        await world.start(2)
        assert (await world.result(0, task)).state == "answered"


async def test_a_node_that_begins_anew_with_its_task_waits_for_those_of_whom_it_has_not_heard(
    virtual_time: JumpingClock,
) -> None:
    both = dataclasses.replace(LEADER, roles=("submit", "coordinate"))
    slow = dataclasses.replace(THINKER, delay_per_token_s=1.0)
    async with open_world([both, slow]) as world:
        task = world.submit(0, "what is it?", mode="direct")
        await world.until(lambda: len(world.calls) == 1)
        await world.restart(0)
        result = await world.result(0, task)
        assert (result.state, result.term) == ("answered", 2), result.answer


async def test_a_long_answer_goes_by_hash_and_arrives_whole(virtual_time: JumpingClock) -> None:
    big = dataclasses.replace(
        THINKER, tells=lambda _request: block("answer-big 90000 \N{CJK UNIFIED IDEOGRAPH-6F22}")
    )
    async with open_world([ASKER, LEADER, WORKER, big]) as world:
        result = await world.result(0, world.submit(0, "write much", mode="rlm"))
        assert result.state == "answered"
        assert result.answer is not None
        assert result.answer.full is not None
        await world[0].store.fetch(result.answer.full, world[0].mesh)
        data = await world[0].store.read(result.answer.full)
        assert data.decode() == "\N{CJK UNIFIED IDEOGRAPH-6F22}" * 90_000


async def test_an_answer_beyond_what_a_message_holds_is_cut_not_lost(
    virtual_time: JumpingClock,
) -> None:
    big = dataclasses.replace(
        THINKER, tells=lambda _request: block("answer-big 250000 \N{CJK UNIFIED IDEOGRAPH-6F22}")
    )
    async with open_world([ASKER, LEADER, WORKER, big]) as world:
        result = await world.result(0, world.submit(0, "write too much", mode="rlm"))
        assert result.state == "answered"
        assert result.answer is not None
        assert result.answer.full is not None
        assert result.answer.full.bytes_total == 393_216


# --- by hand: the submitter's side of the conversation ------------------------------------------


def grant(prompt: str, term: int = 1, *, prefix: int = 0, lease_s: float = 3.0) -> wire.Grant:
    return wire.Grant(
        task=TaskId("by-hand"),
        term=term,
        spec=wire.TaskSpec(prompt=prompt, mode="blocks", max_iterations=5, timeout_s=600.0),
        prefix_entries=prefix,
        last_digest=GENESIS,
        lease_s=lease_s,
        remaining_s=600.0,
    )


async def next_entry(conversation: Conversation) -> wire.Entry:
    return (await heard(conversation, wire.EntryOffered)).entry


async def renew_for(conversation: Conversation, seconds: float, term: int = 1) -> None:
    for _ in range(int(seconds)):
        renewal = wire.Renewal(task=TaskId("by-hand"), term=term, lease_s=3.0, remaining_s=500.0)
        await conversation.send(renewal)
        await trio.sleep(1)


async def test_entries_go_to_the_latest_conversation_even_if_the_earlier_is_still_open(
    virtual_time: JumpingClock,
) -> None:
    prompt = blocks(*(f"wait 0.1\nsay {n}" for n in range(20)))
    async with open_world([ASKER, LEADER, WORKER]) as world, trio.open_nursery() as nursery:
        mesh, leader = world[0].mesh, world.peer(1)
        asked = grant(prompt)
        async with mesh.converse(leader, coordinator.PROTOCOL, asked) as first:
            first_entry = await next_entry(first)
            async with mesh.converse(leader, coordinator.PROTOCOL, asked) as second:
                nursery.start_soon(renew_for, second, 10)
                entries = [await next_entry(second) for _ in range(40)]
            assert entries[0] == first_entry
            check_chain(TaskId("by-hand"), entries)
        nursery.cancel_scope.cancel()


async def test_no_cell_is_sent_after_the_lease_until_it_is_renewed(
    virtual_time: JumpingClock,
) -> None:
    """lease_stop, from outside: what the worker began, and when."""
    prompt = blocks(*("wait 1" for _ in range(20)))
    async with open_world([ASKER, LEADER, WORKER]) as world, trio.open_nursery() as nursery:
        mesh, leader = world[0].mesh, world.peer(1)
        async with mesh.converse(leader, coordinator.PROTOCOL, grant(prompt)) as conversation:
            await trio.sleep(10)
            assert len(world.cells) == 3, "those that began within the three seconds"
            nursery.start_soon(renew_for, conversation, 4)
            await trio.sleep(20)
            assert len(world.cells) == 3 + 6, "and those of the six seconds more"
        nursery.cancel_scope.cancel()


async def test_no_cell_is_sent_where_a_grant_leaves_no_time(virtual_time: JumpingClock) -> None:
    """Of a leader that runs cells itself, to whom they go out at once (seed 501 of `split`)."""
    both = Part(languages={"bash": "1.0", "python": "1.0"})
    async with open_world([ASKER, both]) as world:
        late = grant(blocks("wait 1")).model_copy(update={"remaining_s": 0.0})
        async with world[0].mesh.converse(
            world.peer(1), coordinator.PROTOCOL, late
        ) as conversation:
            entries = [await next_entry(conversation) for _ in range(2)]
            assert "timeout" in str(event_of(entries[1]))
            assert not [kind for kind in world.witness.messages if "cell-asked" in kind]
            await conversation.send(wire.Settle(task=TaskId("by-hand"), term=1))


async def test_a_cell_is_not_moved_to_another_worker_after_the_lease(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER]) as world:
        mesh, leader = world[0].mesh, world.peer(1)
        asked = grant(block("wait 20"))
        async with mesh.converse(leader, coordinator.PROTOCOL, asked):
            await world.until(lambda: len(world.cells) == 1)
            await trio.sleep(5)
            await world.kill(2 if world.places[2].cells else 3)
            await trio.sleep(10)
            assert len(world.cells) == 1
        async with mesh.converse(leader, coordinator.PROTOCOL, asked):
            await world.until(lambda: len(world.cells) == 2)


async def test_a_submitter_that_leaves_before_it_gave_the_prefix_leaves_nothing_behind(
    virtual_time: JumpingClock,
) -> None:
    full = dataclasses.replace(LEADER, languages={})
    async with open_world([ASKER, full]) as world:
        mesh, leader = world[0].mesh, world.peer(1)
        for number in range(70):  # more than a coordinator leads at a time
            asked = grant(block("say x"), prefix=3).model_copy(
                update={"task": TaskId(f"left-{number}")}
            )
            with trio.move_on_after(0.05):
                async with mesh.converse(leader, coordinator.PROTOCOL, asked) as conversation:
                    await heard(conversation, wire.PrefixAsked)
                    await trio.sleep_forever()
            await trio.sleep(1)
        async with mesh.converse(leader, coordinator.PROTOCOL, grant(block("say x"))) as last:
            await next_entry(last)


async def test_a_task_is_dropped_when_its_submitter_stays_away(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        asked = grant(block("say done"))
        async with world[0].mesh.converse(world.peer(1), coordinator.PROTOCOL, asked) as talk:
            first = await next_entry(talk)
        await trio.sleep(30)
        async with world[0].mesh.converse(world.peer(1), coordinator.PROTOCOL, asked) as talk:
            assert await next_entry(talk) == first, "it is held for a minute"
        await trio.sleep(100)
        assert world[1].leading is not None
        assert world[1].leading.coordinator.leading == {}
        async with world[0].mesh.converse(world.peer(1), coordinator.PROTOCOL, asked) as talk:
            assert await next_entry(talk) == first, "what was done is kept all the same"
        assert len(world.cells) == 1


async def test_two_models_make_no_difference_to_the_plain_kind_of_node(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([Part(models=("m",)), Part(models=("n",))]) as world:
        result = await world.result(0, world.submit(0, "hello", mode="direct", model="n"))
        assert result.state == "answered"
        assert world.places[1].calls == ["hello"]
        assert world.places[0].calls == []
