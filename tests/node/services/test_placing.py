"""Retries within a budget, deadlines that shrink, a second peer for stragglers, one line."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.retry_budget import WINDOW_S
from kowalski.node.services import inference, placement
from kowalski.node.services.placing import Attempt, NotYetError
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import CompletionAsked, CompletionDelta
from kowalski.protocol.messages.placement import Claim
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, THINKER
from tests.node.services.rooms import PatientClock
from tests.node.services.test_placed_work import Instead, done, prompt, raising

pytestmark = pytest.mark.trio


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


async def test_when_everybody_fails_no_more_is_tried_again_than_the_budget_allows(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, *[THINKER] * 5]) as world:
        broken = Instead(
            world, inference.PROTOCOL, raising(RequestFailedError("backend", "down")), *range(1, 6)
        )
        asked = 200

        async def ask() -> None:
            with pytest.raises(RequestFailedError):
                await world[0].work.complete(prompt())

        async with trio.open_nursery() as nursery:
            for _ in range(asked):
                nursery.start_soon(ask)
        assert asked < len(broken.asked) <= 1.2 * asked + WINDOW_S


async def test_the_only_peers_no_stays_the_same_however_often_it_is_asked(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        no = RequestRefusedError("unsupported", "no such thing")
        asked = Instead(world, inference.PROTOCOL, raising(no), 1)
        for number in range(1, 100):
            with pytest.raises(RequestRefusedError) as told:
                await world[0].work.complete(prompt())
            assert told.value.reason == "unsupported"
            assert len(asked.asked) == number


@pytest.mark.parametrize("task", [None, TaskId("t")])
async def test_what_a_task_lost_with_one_peer_is_tried_again_as_soon_as_that_may_be(
    virtual_time: JumpingClock, task: TaskId | None
) -> None:
    roomy = dataclasses.replace(THINKER, model_slots=64)

    async def dying(_conversation: Conversation, _request: Message) -> Message:
        await trio.sleep(1.0)  # so that it has taken what it takes
        raise RequestFailedError("backend", "down")

    async with open_world([ASKER, roomy, roomy]) as world:
        Instead(world, inference.PROTOCOL, dying, 1)
        asked = prompt().model_copy(update={"task": task, "term": task and 1})
        ends: list[str] = []

        async def ask() -> None:
            try:
                await world[0].work.complete(asked)
            except RequestFailedError as error:
                ends.append(error.code)
            else:
                ends.append("answered")

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(ask)
        assert set(ends) == ({"answered"} if task else {"answered", "peers_failed"})


@pytest.mark.parametrize("task", [None, TaskId("t")])
async def test_where_all_others_have_failed_work_of_a_task_waits_for_who_is_only_silent(
    virtual_time: JumpingClock, task: TaskId | None
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        asker, silent = world.peer(0), world.peer(2)
        Instead(world, inference.PROTOCOL, raising(RequestFailedError("backend", "down")), 1)
        storm = world.wires.storm
        storm.silent[(asker, silent)] = storm.silent[(silent, asker)] = 1
        await world.until(lambda: not world[0].mesh.is_routable(silent))
        asked = prompt().model_copy(update={"task": task, "term": task and 1})

        async def heal() -> None:
            await trio.sleep(1.0)
            storm.silent.clear()
            world.network.release(asker, silent)
            world.network.release(silent, asker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(heal)
            if task is None:
                with pytest.raises(RequestFailedError) as told:
                    await world[0].work.complete(asked)
                assert told.value.code == "peers_failed"
            else:
                done_by = await world[0].work.complete(asked)
                assert done_by.placed.peer == silent


async def test_who_is_passed_over_is_asked_where_nobody_else_could_do_it(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        work = world[0].work
        first, second = (world.peer(number) for number in (1, 2))

        async def who(*passed_over: PeerId) -> PeerId:
            async def do(to: Attempt) -> PeerId:
                return to.peer

            done_by, _ = await work.placing.place(
                work.model_work(prompt()),
                do,
                remaining_s=10.0,
                on_restart=lambda _why: None,
                passed_over=lambda _failed: frozenset(passed_over),
            )
            return done_by

        assert [await who(first) for _ in range(10)] == [second] * 10
        assert [await who(second) for _ in range(10)] == [first] * 10
        assert await who(first, second) in (first, second)


async def test_each_hop_has_less_time_than_the_one_before(virtual_time: JumpingClock) -> None:
    heard: list[float] = []

    async def answer(_conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, CompletionAsked)
        heard.append(request.remaining_s)
        await trio.sleep(3)
        raise RequestFailedError("backend", "no luck")

    async with open_world([ASKER, THINKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, answer, 1, 2)
        with pytest.raises(RequestFailedError):
            await world[0].work.complete(prompt(remaining_s=10.0))
        first, second = heard
        assert 9.0 < first < 10.0
        assert second < first - 2.9


class Speaking:
    """Answers after `waits_s`, in two pieces; notes who was cancelled."""

    def __init__(self, waits_s: float, name: str) -> None:
        self.waits_s = waits_s
        self.name = name
        self.cancelled = 0
        self.begun = 0

    async def answer(self, conversation: Conversation, _request: Message) -> Message:
        self.begun += 1
        try:
            await trio.sleep(self.waits_s)
            await conversation.send(CompletionDelta(text=f"{self.name} "))
            await trio.sleep(0.1)
            await conversation.send(CompletionDelta(text="says"))
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return done()


async def warmed_up(world: World, calls: int = 40) -> None:
    """So many calls, that it is known what is usual."""
    for _ in range(calls):
        await world[0].work.complete(prompt())


@pytest.mark.parametrize("may_hedge", [False, True])
async def test_while_nothing_may_be_sent_nothing_is_under_way_and_who_has_it_is_asked_then(
    virtual_time: JumpingClock, *, may_hedge: bool
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        work, allowed = world[0].work, trio.Event()
        holder = world.peer(2)

        async def do(to: Attempt) -> PeerId:
            if not allowed.is_set():
                raise NotYetError(allowed.wait)
            return to.peer

        async def allow() -> None:
            await trio.sleep(5.0)
            assert work.placing.dispatch.under_way == 0
            allowed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(allow)
            done_by, placed = await work.placing.place(
                work.model_work(prompt()),
                do,
                remaining_s=10.0,
                on_restart=lambda _why: None,
                may_hedge=may_hedge,
                holder=holder,
            )
        assert (done_by, placed.attempts) == (holder, 1)
        allowed = trio.Event()
        with pytest.raises(RequestFailedError, match="no answer within 2 s"):
            await work.placing.place(
                work.model_work(prompt()),
                do,
                remaining_s=2.0,
                on_restart=lambda _why: None,
                may_hedge=may_hedge,
            )


async def test_a_straggler_is_overtaken_and_stopped(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        fast, quick = Speaking(0.2, "fast"), Speaking(0.2, "quick")
        Instead(world, inference.PROTOCOL, fast.answer, 1)
        Instead(world, inference.PROTOCOL, quick.answer, 2)
        await warmed_up(world)
        slow, other = (fast, quick) if fast.begun > quick.begun else (quick, fast)
        slow.waits_s = 1000.0
        deltas: list[str] = []
        began = trio.current_time()
        for _ in range(3):
            reply = await world[0].work.complete(prompt(), on_delta=deltas.append)
            if slow.cancelled:
                break
        assert slow.cancelled == 1
        assert reply.text == f"{other.name} says"
        assert trio.current_time() - began < 5
        assert f"{slow.name} " not in deltas


async def test_what_is_usual_is_not_hedged(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        both = Speaking(0.2, "both")
        Instead(world, inference.PROTOCOL, both.answer, 1, 2)
        await warmed_up(world, 100)
        assert both.begun <= 105
        assert both.cancelled == both.begun - 100


async def test_while_all_are_full_only_the_head_of_the_line_asks(
    virtual_time: JumpingClock,
) -> None:
    free_at = 10.0

    async def full(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < free_at:
            raise RequestRefusedError("busy", "full", 0.5)
        raise RequestFailedError("internal", "ask for the work itself")

    async with open_world([ASKER, THINKER, THINKER]) as world:
        asked = Instead(world, placement.PROTOCOL, full, 1, 2)
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(world[0].work.complete, prompt(f"{number}"))
        assert len(world.calls) == 50
        assert len(asked.asked) < 2 * (50 + 20 + 50), "not fifty times at each moment"
        while_full = 10.0 / 0.5
        assert len(asked.asked) >= while_full / 2


async def test_the_more_urgent_leave_the_line_first(virtual_time: JumpingClock) -> None:
    free_at = 5.0
    served: list[str] = []

    async def one_slot(_conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, CompletionAsked)
        if trio.current_time() < free_at:
            await trio.lowlevel.checkpoint()
            raise RequestRefusedError("busy", "full", 0.2)
        served.append(request.messages[0].content)
        await trio.lowlevel.checkpoint()
        return done()

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, one_slot, 1)
        async with trio.open_nursery() as nursery:
            for name, priority in (("first", "normal"), ("bulk", "batch"), ("now", "interactive")):
                claim = Claim.model_validate({"priority": priority})
                asked = prompt(name).model_copy(update={"claim": claim})
                nursery.start_soon(world[0].work.complete, asked)
                await trio.sleep(0.01)
        assert served.index("now") < served.index("bulk")
