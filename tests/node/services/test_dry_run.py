"""Where a task would go: asked of whole nodes under virtual time, and nothing is begun."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.mesh.conversation import Answer, Conversation
from kowalski.node.services import dry_run
from kowalski.node.services.dry_run import Rehearsal, rehearse
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.repl import Input, SessionClosed
from kowalski.protocol.messages.task import TaskSpec
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks
from tests.node.services.rooms import PatientClock
from tests.node.services.test_placed_work import Instead

pytestmark = pytest.mark.trio


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


async def would(
    world: World, prompt: str, mode: str = "auto", name: str = "t", **spec: object
) -> Rehearsal:
    node = world[0]
    asked = {"prompt": prompt, "mode": mode, "max_iterations": 5, "timeout_s": 60.0, **spec}
    return await rehearse(
        TaskId(name),
        TaskSpec.model_validate(asked),
        mesh=node.mesh,
        store=node.store,
        work=node.work,
        submitter=node.submitter,
    )


async def test_it_tells_who_would_lead_run_and_think_and_begins_nothing(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER, WORKER, THINKER]) as world:
        found = await would(world, block("say hi"), "blocks")
        assert found.obstacle is None
        assert found.appointment is not None
        assert found.appointment.chosen in {world.peer(1), world.peer(2)}
        assert [one.kind for one in found.decisions] == ["code", "inference"]
        code, model = found.decisions
        offered = {one.peer for one in code.candidates if one.offer is not None}
        assert offered == {world.peer(3), world.peer(4)}
        assert model.chosen == world.peer(5), "who alone can is asked for an offer, too"
        assert model.candidates[0].offer is not None
        await trio.sleep(0.1)
        assert world.cells == []
        assert world.calls == []
        assert world[0].submitter.tasks == ()
        hot = [world[n].mesh.facts_of(world.peer(n)).hot for n in (3, 4)]
        assert [one.repl.queued for one in hot if one is not None] == [0, 0], "no place is held"


async def test_it_is_decided_by_who_would_lead_on_its_own_view(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER]) as world:
        found = await would(world, block("say hi"), "blocks", timeout_s=600.0)
        assert (found.seen_by, found.instead) == (world.peer(1), "")
        chosen = {n: world[n].work.placing.dispatch.decisions for n in (0, 1)}
        assert [len(chosen[n]) for n in (0, 1)] == [0, 1]
        ((wanted, decision),) = chosen[1]
        assert wanted.claim.submitter == world.peer(0)
        assert found.decisions[0].chosen == decision.chosen


async def test_small_inputs_are_fetched_as_for_the_task_itself(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        content = await world[0].store.put(b"a few words")
        found = await would(world, "why?", inputs=(Input(name="notes", content=content),))
        assert (found.obstacle, found.seen_by) == (None, world.peer(1))
        assert found.opened is not None
        assert found.opened.mode == "direct", "it was read, and is short"
        assert world[1].store.path(content.hash) is not None


async def _too_old(_conversation: Conversation, request: Message) -> Message:
    await trio.lowlevel.checkpoint()
    raise RequestRefusedError("unknown_kind", f"{request.KIND} is not known here")


async def _silence(_conversation: Conversation, _request: Message) -> Message:
    await trio.sleep_forever()
    raise AssertionError


async def _nonsense(_conversation: Conversation, _request: Message) -> Message:
    await trio.lowlevel.checkpoint()
    return SessionClosed(task=TaskId("t"), term=1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_too_old, "is not known here"),
        (_silence, "no answer within 10 s"),
        (_nonsense, "repl/session-closed in answer to rehearsing/asked"),
    ],
)
async def test_where_who_would_lead_cannot_be_asked_this_node_says_what_it_would_do(
    virtual_time: JumpingClock, answer: Answer, words: str
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        Instead(world, dry_run.PROTOCOL, answer, 1)
        began = trio.current_time()
        found = await would(world, block("say hi"), "blocks")
        assert trio.current_time() - began <= dry_run.REPLY_S + 1.0
        assert found.appointment is not None
        assert found.appointment.chosen == world.peer(1)
        assert found.seen_by == world.peer(0)
        assert words in found.instead
        assert [one.chosen for one in found.decisions] == [world.peer(2)]


async def test_the_task_of_that_name_is_then_led_by_the_one_that_was_told(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, WORKER]) as world:
        for name in ("a", "b", "c", "d"):
            found = await would(world, block("say hi"), "blocks", name)
            assert found.appointment is not None
            task = world.submit(0, block("say hi"), mode="blocks", task=name)
            await world.result(0, task)
            assert world[0].submitter.find(task).coordinator == found.appointment.chosen


@pytest.mark.parametrize(
    ("parts", "prompt", "mode", "code"),
    [
        ([ASKER, WORKER], block("say hi"), "blocks", "no_coordinator"),
        ([ASKER, LEADER], block("say hi"), "blocks", "no_language"),
        ([ASKER, LEADER, WORKER], "no code here", "blocks", "no_blocks"),
        ([ASKER, LEADER, WORKER], "why?", "rlm", "no_model"),
        ([ASKER, LEADER, THINKER], "why?", "rlm", "no_language"),
        ([ASKER, LEADER, WORKER], blocks("x", language="rust") + block("say"), "blocks", "no_peer"),
    ],
)
async def test_what_is_missing_is_said(
    virtual_time: JumpingClock, parts: list[object], prompt: str, mode: str, code: str
) -> None:
    async with open_world(parts) as world:  # type: ignore[arg-type]
        found = await would(world, prompt, mode)
        assert found.obstacle is not None
        assert found.obstacle.code == code, found.obstacle


async def test_that_nobody_folds_is_no_obstacle(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER, THINKER]) as world:
        found = await would(world, "why?", "rlm")
        assert found.obstacle is None
        assert [(one.kind, one.chosen is None) for one in found.decisions] == [
            ("code", False),
            ("inference", False),
            ("folding", True),
        ]


async def test_a_full_mesh_says_when_to_ask_again(virtual_time: JumpingClock) -> None:
    single = dataclasses.replace(WORKER, slots=1)
    async with open_world([ASKER, LEADER, single]) as world:
        for number in range(3):
            world.submit(
                0, block("wait 500"), mode="blocks", task=f"t{number}", cell_timeout_s=900.0
            )
        await world.until(lambda: len(world.cells) == 1)
        await trio.sleep(2.0)
        found = await would(world, block("say hi"), "blocks", timeout_s=5.0)
        assert found.obstacle is not None
        assert found.obstacle.code == "busy"
        assert found.decisions[0].retry_after_s
