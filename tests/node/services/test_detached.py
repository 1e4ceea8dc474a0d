"""Detached tasks: their submitter vanishes for good, and any peer has the answer, once.

On whole nodes under virtual time. What is counted from outside: cells that ran, calls that models
heard, entries that became visible.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from kowalski.node.core.task_ledger import Task
from kowalski.node.services.coordinator import PROTOCOL
from kowalski.node.services.detached_task import PROTOCOL as DETACHED
from kowalski.node.services.following import unheeded
from kowalski.node.services.onlookers import Seen
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.detached import DelegationKept
from kowalski.protocol.messages.repl import Input
from kowalski.protocol.messages.task import Grant, Settled, TaskSpec
from kowalski.rlm.journal import GENESIS, check_chain
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, blocks
from tests.node.test_verbs import Emitted, ask

pytestmark = pytest.mark.trio

NAME = TaskId("t")
STEPS = blocks(*(f"keep x {n}\nwait 2\nsay step {n}" for n in range(5)), "show x\nask what is it")
MERE_LEADER = replace(LEADER, certified=("coordinate",))
PARTS = [ASKER, LEADER, LEADER, LEADER, WORKER, THINKER]
REQUEST = {"prompt": STEPS, "mode": "blocks", "task_id": str(NAME), "detach": True}


async def attach(world: World, number: int) -> tuple[Task, list[int]]:
    """Follow it from a node as its owner would, and which entries became visible in which order."""
    indexes: list[int] = []

    async def on_seen(seen: Seen) -> None:
        await trio.lowlevel.checkpoint()
        if seen.entry is not None:
            indexes.append(seen.entry.index)

    tasks = world[number].tasks
    place = await tasks.find(NAME)
    return await tasks.follow(place, on_seen), indexes


def leader(world: World) -> int:
    """The node that leads it, as the one with the highest term says."""
    kept = [
        (one.member.term, number)
        for number in range(len(world.places))
        if world.is_up(number)
        for one in world[number].submitting.detached.held(NAME)
        if one.member.role == "leader"
    ]
    return max(kept)[1] if kept else -1


async def result(world: World, number: int) -> str:
    with trio.fail_after(120):
        task, indexes = await attach(world, number)
    assert task.answer is not None
    assert task.state == "answered", task.answer
    assert indexes == list(range(task.entries)), "all of it, once, in order"
    return task.answer.answer


@pytest.fixture(scope="module")
def wanted() -> str:
    async def undisturbed() -> str:
        async with open_world(PARTS) as world:
            task = await world.result(0, world.submit(0, STEPS, mode="blocks"))
            assert task.answer is not None
            return task.answer.answer

    return trio.run(undisturbed, clock=JumpingClock())


async def test_its_submitter_vanishes_for_good_and_any_peer_has_the_answer(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world(PARTS) as world:
        taken = await ask(world, "submit", **REQUEST)
        assert sorted(taken["kept_by"]) == ["node-1", "node-2", "node-3"]  # type: ignore[call-overload]
        await world.kill(0)
        for number in (1, 4, 5):
            assert await result(world, number) == wanted
        assert (len(world.cells), len(world.calls)) == (6, 2), "nothing was done twice"
        for number in (1, 2, 3):
            (kept,) = world[number].submitting.detached.held(NAME)
            check_chain(NAME, kept.entries(NAME))


async def test_its_leader_dies_as_well_and_the_two_that_are_left_go_on(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 3)
        first = leader(world)
        await world.kill(first)
        assert await result(world, 5) == wanted
        assert leader(world) != first
        assert len(world.calls) == 2, "no model is asked again"


async def test_its_leader_that_is_about_to_leave_has_another_lead(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 3)
        first = leader(world)
        draining = world[first].draining
        await draining.begin()
        with trio.fail_after(6):
            await draining.until_empty()
            await world.until(lambda: leader(world) not in {first, -1})
        assert await result(world, 5) == wanted
        assert len(world.calls) == 2, "no model is asked again"


async def test_who_follows_it_at_a_keeper_that_dies_goes_on_with_another(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 3)
        answers: list[str] = []

        async def follow() -> None:
            answers.append(await result(world, 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(1)
            place = await world[5].tasks.find(NAME)
            await world.kill(world.number_of(place.holder))
        assert answers == [wanted]


async def test_all_three_die_and_come_back(virtual_time: JumpingClock, wanted: str) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 3)
        for number in (1, 2, 3):
            await world.kill(number)
        for number in (1, 2, 3):
            await world.start(number)
        await world.meet()
        assert await result(world, 5) == wanted
        assert len(world.calls) == 2


async def test_a_leader_that_is_cut_off_stops_and_the_two_others_finish(
    virtual_time: JumpingClock, wanted: str
) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 3)
        first = leader(world)
        others = [number for number in range(1, 6) if number != first]
        for number in others:
            world.cut(first, number)
        assert await result(world, 5) == wanted
        for number in others:
            world.mend(first, number)
        (kept,) = world[first].submitting.detached.held(NAME)
        await world.until(lambda: kept.find(NAME).is_over)
        closed = kept.find(NAME).answer
        assert closed is not None
        assert closed.answer == wanted, "the same, though it was cut off"


async def test_the_same_name_is_the_same_task_and_another_task_is_a_conflict(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(PARTS) as world:
        first = await ask(world, "submit", **REQUEST)
        assert await ask(world, "submit", **REQUEST) == first
        with pytest.raises(RequestRefusedError, match="conflict"):
            await ask(world, "submit", **{**REQUEST, "prompt": blocks("say other")})
        await result(world, 0)
        assert len(world.cells) == 6


async def test_it_is_cancelled_from_any_peer(virtual_time: JumpingClock) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 2)
        place = await world[5].tasks.find(NAME)
        with trio.fail_after(30):
            ended = await world[5].tasks.cancel(place, "enough")
        assert ended.state == "cancelled"


async def test_it_is_cancelled_at_a_keeper_that_does_not_lead_and_may_not_submit(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, *[MERE_LEADER] * 3, WORKER, THINKER]) as world:
        await ask(world, "submit", **REQUEST)
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 2)
        keeper = next(number for number in (1, 2, 3) if number != leader(world))
        assert "submit" not in world[1].mesh.roles_of(world.peer(keeper))
        place = await world[keeper].tasks.find(NAME)
        assert place.holder == world.peer(keeper)
        with trio.fail_after(30):
            ended = await world[keeper].tasks.cancel(place, "enough")
        assert ended.state == "cancelled"
        assert ended.answer is not None
        assert ended.answer.detail == "cancelled: enough"


async def test_a_cancel_is_not_lost_with_the_leader_that_heard_it(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 2)
        first = leader(world)
        keeper = next(number for number in (1, 2, 3) if number != first)
        place = await world[keeper].tasks.find(NAME)
        await world.kill(first)
        with trio.fail_after(30):
            ended = await world[keeper].tasks.cancel(place, "enough")
        assert ended.state == "cancelled"
        assert leader(world) not in {first, -1}


async def test_a_cancel_that_nobody_can_agree_on_is_refused_in_time(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.until(lambda: len(world.cells) == 2)
        await world.kill(2)
        await world.kill(3)
        place = await world[1].tasks.find(NAME)
        with trio.fail_after(30), pytest.raises(RequestRefusedError, match="two of its three"):
            await world[1].tasks.cancel(place, "enough")


async def test_what_one_left_that_was_cancelled_goes_on_with_the_same_three(
    virtual_time: JumpingClock,
) -> None:
    prompt = blocks("ask what is it\nkeep x 41\nsay one", "wait 50", "show x")
    async with open_world([*PARTS, ASKER]) as world:
        await ask(world, "submit", **{**REQUEST, "prompt": prompt})
        await world.kill(0)
        await world.until(lambda: len(world.cells) == 2)
        place = await world[6].tasks.find(NAME)
        assert (await world[6].tasks.cancel(place, "enough")).state == "cancelled"
        name = await world[6].tasks.resume(place, timeout_s=900.0, max_iterations=None)
        assert name == "t-r2"
        (kept,) = world[2].submitting.detached.held(name)
        assert kept.delegation.group == world[1].submitting.detached.held(NAME)[0].delegation.group
        await world.kill(6)
        with trio.fail_after(120):
            task = await world[5].tasks.follow(await world[5].tasks.find(name), unheeded)
        assert (task.state, task.spec.timeout_s) == ("answered", 900.0)
        assert task.answer is not None
        assert "x is 41" in task.answer.answer
        assert world.calls.count("what is it") == 1, "no model is asked again"
        check_chain(name, kept.entries(name))


async def test_a_leader_that_dies_before_it_has_written_the_past_is_followed_by_one_that_does(
    virtual_time: JumpingClock,
) -> None:
    prompt = blocks("ask what is it\nkeep x 41\nsay one", "wait 50", "show x")
    async with open_world([*PARTS, ASKER]) as world:
        await ask(world, "submit", **{**REQUEST, "prompt": prompt})
        await world.until(lambda: len(world.cells) == 2)
        place = await world[6].tasks.find(NAME)
        await world[6].tasks.cancel(place, "enough")
        name = await world[6].tasks.resume(place, timeout_s=900.0, max_iterations=None)
        for number in (1, 2, 3):
            await world.kill(number)
        for number in (1, 2, 3):
            await world.start(number)
        await world.meet()
        with trio.fail_after(200):
            task = await world[5].tasks.follow(await world[5].tasks.find(name), unheeded)
        assert task.state == "answered"
        assert world.calls.count("what is it") == 1


async def test_what_is_answered_is_not_gone_on_with(virtual_time: JumpingClock) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await result(world, 0)
        place = await world[0].tasks.find(NAME)
        with pytest.raises(RequestRefusedError, match="conflict"):
            await world[0].tasks.resume(place, timeout_s=None, max_iterations=None)


async def test_a_device_that_may_not_submit_goes_on_with_nothing(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, *[MERE_LEADER] * 3, WORKER, THINKER]) as world:
        await ask(world, "submit", **REQUEST)
        await world.until(lambda: len(world.cells) == 2)
        place = await world[1].tasks.find(NAME)
        await world[1].tasks.cancel(place, "enough")
        with pytest.raises(RequestRefusedError, match="may not submit"):
            await world[1].tasks.resume(place, timeout_s=None, max_iterations=None)


async def test_it_waits_out_its_pause_with_its_next_leader_unless_it_is_told_to_go_on(
    virtual_time: JumpingClock, wanted: str
) -> None:
    patient = {"retry_delay_s": 400.0}
    async with open_world(PARTS) as world:
        await ask(world, "submit", **{**REQUEST, **patient})
        await world.until(lambda: len(world.cells) == 2)
        first = leader(world)
        await world.kill(first)
        await trio.sleep(60)
        assert len(world.cells) == 2, "it pauses"
        keeper = next(number for number in (1, 2, 3) if number != first)
        assert (await world[keeper].tasks.find(NAME)).task == NAME
        place = await world[0].tasks.find(NAME)
        assert await world[0].tasks.resume(place, timeout_s=None, max_iterations=None) == NAME
        assert await result(world, 0) == wanted


async def test_one_that_may_not_fail_over_fails_with_its_leader(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST, failover="fail")
        await world.until(lambda: len(world.cells) == 2)
        await world.kill(leader(world))
        with trio.fail_after(60):
            task, _ = await attach(world, 0)
        assert task.state == "failed"
        assert task.answer is not None
        assert task.answer.detail.startswith("device_failed")


async def test_it_is_listed_once_on_every_peer(virtual_time: JumpingClock) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        await world.until(lambda: len(world.cells) == 2)
        for number in range(6):
            rows = (await world.verbs(number)["tasks"]({}, Emitted()))["tasks"]
            assert isinstance(rows, list)
            assert [(row["task"], row["submitter_name"]) for row in rows] == [("t", "node-0")]


async def test_where_there_are_no_three_it_stays_here_and_says_so(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        taken = await ask(world, "submit", **REQUEST)
        assert taken["kept_by"] == []
        assert "there are 1" in str(taken["note"])
        assert (await world.result(0, NAME)).state == "answered"


async def test_nobody_keeps_what_its_submitter_has_not_signed(virtual_time: JumpingClock) -> None:
    async with open_world(PARTS) as world:
        await ask(world, "submit", **REQUEST)
        (kept,) = world[1].submitting.detached.held(NAME)
        forged = kept.delegated.model_copy(update={"signature": bytes(64)})
        with pytest.raises(RequestRefusedError, match="not_allowed"):
            await world[1].mesh.request(
                world.peer(2), DETACHED, forged, DelegationKept, timeout_s=5
            )


async def test_nobody_leads_for_another_at_the_word_of_a_peer(virtual_time: JumpingClock) -> None:
    async with open_world(PARTS) as world:
        spec = TaskSpec(prompt="x", max_iterations=1, timeout_s=5)
        grant = Grant(
            task=NAME,
            term=9,
            spec=spec,
            prefix_entries=0,
            last_digest=GENESIS,
            lease_s=3,
            remaining_s=5,
            submitter=world.peer(3),
        )
        with pytest.raises(RequestRefusedError, match="not_allowed"):
            await world[0].mesh.request(world.peer(1), PROTOCOL, grant, Settled, timeout_s=5)


async def test_a_keeper_that_its_submitter_cannot_reach_has_the_inputs_from_another(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(PARTS) as world:
        text = Input(name="text", content=await world[0].store.put(b"forty-two\n" * 10_000))
        spec = TaskSpec(prompt="x", max_iterations=1, timeout_s=600, inputs=(text,))
        detached = world[0].submitting.detached
        group = detached.group_for(NAME)
        third = world.number_of(group[2])
        world.cut(0, third)
        await detached.delegate(NAME, spec, group)
        await world.kill(0)
        await world.until(lambda: len(world[third].submitting.detached.held(NAME)) == 1)
        (kept,) = world[third].submitting.detached.held(NAME)
        await world.until(lambda: not kept.lacks_inputs())


async def test_a_task_whose_time_is_over_is_taken_by_nobody(virtual_time: JumpingClock) -> None:
    async with open_world(PARTS) as world:
        world.places[2].unix_offset_s = 3 * 86_400.0
        await ask(world, "submit", **REQUEST)
        (kept,) = world[1].submitting.detached.held(NAME)
        with pytest.raises(RequestRefusedError, match="is over"):
            await world[1].mesh.request(
                world.peer(2), DETACHED, kept.delegated, DelegationKept, timeout_s=5
            )
        assert world[2].submitting.detached.held(NAME) == ()


async def test_nobody_keeps_the_task_of_a_submitter_that_was_put_out(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([*PARTS, ASKER]) as world:
        spec = TaskSpec(prompt="x", max_iterations=1, timeout_s=5)
        detached = world[6].submitting.detached
        await detached.delegate(NAME, spec, detached.group_for(NAME))
        (kept,) = world[1].submitting.detached.held(NAME)
        world[0].mesh.trust.revoke(world.peer(6), "lost")
        await world.until(lambda: not world[2].mesh.roles_of(world.peer(6)))
        with pytest.raises(RequestRefusedError, match="may not submit"):
            await world[1].mesh.request(
                world.peer(2), DETACHED, kept.delegated, DelegationKept, timeout_s=5
            )
