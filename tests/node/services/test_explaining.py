"""Why a task went where it did, asked of whole nodes under virtual time."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.core.decision_log import DECISIONS_KEPT
from kowalski.node.services import explaining
from kowalski.node.services.explaining import Explaining, Explanation
from kowalski.protocol.errors import RequestFailedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.explaining import ExplainAsked, Explained
from kowalski.protocol.messages.repl import SessionClosed
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks
from tests.node.services.test_placed_work import Instead

pytestmark = pytest.mark.trio

ALL = (ASKER, LEADER, LEADER, WORKER, WORKER, THINKER)
LOOKER = 4


def room(world: World, number: int) -> Explaining:
    node = world[number]
    return Explaining(node.mesh, node.work.placing.dispatch, node.submitter)


async def explain(world: World, task: TaskId, number: int) -> Explanation:
    place = await world[number].tasks.find(task)
    looked, _ = await world[number].tasks.look(place)
    return await room(world, number).explain(
        task, place.submitter, place.holder, looked.coordinator
    )


def leader_of(world: World, task: TaskId) -> PeerId:
    leader = world[0].submitter.find(task).coordinator
    assert leader is not None
    return leader


@pytest.mark.parametrize("number", [0, 1, LOOKER])
async def test_every_peer_can_tell_who_was_appointed_and_why_each_piece_went_where_it_did(
    virtual_time: JumpingClock, number: int
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say hi"), mode="blocks")
        await world.result(0, task)
        found = await explain(world, task, number)
        (appointed,) = found.appointments
        assert (appointed.term, appointed.chosen) == (1, leader_of(world, task))
        assert {one.peer for one in appointed.candidates} == {world.peer(1), world.peer(2)}
        code, model = found.in_order()
        assert (code.peer, model.peer) == (appointed.chosen, appointed.chosen)
        assert (code.told.kind, code.told.language, code.told.way) == ("code", "python", "offers")
        asked = {one.peer for one in code.told.candidates if one.offer is not None}
        assert asked == {world.peer(3), world.peer(4)}
        assert code.told.chosen in asked
        assert (model.told.model, model.told.chosen) == ("m", world.peer(5))
        assert not found.silent


async def test_of_two_tasks_of_one_name_each_has_its_own_reasons(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, ASKER, LEADER, WORKER]) as world:
        for number in (0, 1):
            world.submit(number, block("say hi"), mode="blocks")
        await world.result(0, TaskId("task"))
        await world.result(1, TaskId("task"))
        leader = room(world, 2)
        both = leader.decisions(ExplainAsked(task=TaskId("task")))
        mine = leader.decisions(ExplainAsked(task=TaskId("task"), submitter=world.peer(0)))
        assert (len(both), len(mine)) == (2, 1)
        found = await room(world, 3).explain(
            TaskId("task"), world.peer(1), world.peer(1), world.peer(2)
        )
        assert [one.told.kind for one in found.decisions] == ["code"]


async def test_what_a_lost_coordinator_decided_is_named_as_unknown_and_the_rest_is_told(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, blocks("say one", "wait 5\nsay two"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        lost = leader_of(world, task)
        await world.kill(world.number_of(lost))
        await world.result(0, task)
        found = await explain(world, task, LOOKER)
        assert [one.term for one in found.appointments] == [1, 2]
        assert [one.chosen for one in found.appointments] == [lost, leader_of(world, task)]
        after = found.appointments[1]
        assert after.why, "why there had to be another"
        assert {one.peer for one in after.candidates if one.is_excluded} <= {lost}
        assert list(found.silent) == [lost]
        assert {one.peer for one in found.decisions} == {leader_of(world, task)}
        assert found.in_order()[0].told.way == "bound", "its session is there"


async def test_who_does_not_answer_is_not_waited_for_without_end(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say hi"), mode="blocks")
        await world.result(0, task)
        leader = world.number_of(leader_of(world, task))
        Instead(world, explaining.PROTOCOL, _silence, leader)
        began = trio.current_time()
        found = await explain(world, task, 0)
        assert trio.current_time() - began <= explaining.REPLY_S + 1.0
        assert found.silent == {world.peer(leader): "no answer within 10 s"}
        assert len(found.appointments) == 1


async def _silence(_conversation: Conversation, _request: Message) -> Message:
    await trio.sleep(60.0)
    raise AssertionError


async def test_a_restarted_submitter_has_forgotten_whom_it_appointed_not_who_leads(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say hi"), mode="blocks")
        await world.result(0, task)
        await world.kill(0)
        await world.start(0)
        await world.meet()
        found = await explain(world, task, LOOKER)
        assert found.appointments == []
        assert [one.told.kind for one in found.in_order()] == ["code", "inference"]


async def test_the_latest_choices_are_those_made_here(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        for _ in range(5):
            await world.verbs(0)["run"]({"language": "python", "code": "say x"}, _unheard)
        latest = room(world, 0).latest(3)
        assert [one.told.language for one in latest.decisions] == ["python"] * 3
        assert {one.peer for one in latest.decisions} == {world.peer(0)}
        assert room(world, 1).latest(3).decisions == []
        assert len(world[0].work.placing.dispatch.decisions) <= DECISIONS_KEPT


async def _unheard(_event: dict[str, object]) -> None:
    await trio.lowlevel.checkpoint()


async def test_who_asks_for_something_else_is_told_so(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER]) as world:
        closed = SessionClosed(task=TaskId("t"), term=1)
        with pytest.raises(RequestFailedError, match="bad_request"):
            await world[0].mesh.request(
                world.peer(1), explaining.PROTOCOL, closed, Explained, timeout_s=5.0
            )


async def test_choices_that_made_room_for_later_ones_are_counted(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say hi"), mode="blocks")
        await world.result(0, task)
        leader = leader_of(world, task)
        log = world[world.number_of(leader)].work.placing.dispatch.decisions
        for choice in [next(iter(log))] * (DECISIONS_KEPT - 1):
            log.add(None, choice)
        found = await explain(world, task, LOOKER)
        assert found.forgotten == {leader: 1}
        assert not found.silent


async def test_a_coordinator_that_was_restarted_says_that_it_has_forgotten(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, block("say hi"), mode="blocks")
        await world.result(0, task)
        leader = leader_of(world, task)
        await trio.sleep(30.0)
        assert not (await explain(world, task, LOOKER)).silent
        await world.kill(world.number_of(leader))
        await world.start(world.number_of(leader))
        await world.until(lambda: leader in {one.peer for one in world[0].mesh.candidates()})
        await trio.sleep(5.0)
        found = await explain(world, task, LOOKER)
        assert found.decisions == []
        assert found.silent == {leader: explaining.RESTARTED}
