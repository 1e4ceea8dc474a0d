"""A cell under way, through askers that come, are lost, and take their request back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from kowalski.node.repl.seam import SubCall, SubCallResult
from kowalski.node.services.running_cell import CALLS_PER_MESSAGE, OUTPUT_HELD_S, RunningCell
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import repl as wire
from kowalski.protocol.messages.base import Message
from simulations.virtual_time import JumpingClock
from tests.node.services.rooms import until

pytestmark = pytest.mark.trio

ASKED = wire.CellAsked(
    task=TaskId("task"),
    term=1,
    cell=0,
    language="python",
    code="x",
    timeout_s=30.0,
    remaining_s=60.0,
)
DONE = wire.CellDone(
    task=TaskId("task"),
    cell=0,
    status="ok",
    stdout="",
    stderr="",
    stdout_bytes=0,
    stderr_bytes=0,
    is_session_alive=True,
    duration_s=1.0,
    held_s=1.0,
)
ORPHAN_S = 20.0
ASKER = PeerId("12D3KooWabcdefgh")


@dataclass
class Talk:
    """The answering side of a conversation in memory; what it says stands in `said`."""

    peer: PeerId = ASKER
    said: list[Message] = field(default_factory=list)
    is_taken_back: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    outcome: wire.CellDone | Exception | None = None
    said_at: list[tuple[float, bool]] = field(default_factory=list)
    """When, and whether it waits to go out with what follows."""

    def __post_init__(self) -> None:
        self._heard_in, self._heard = trio.open_memory_channel[Message](100)

    async def send(self, message: Message, *, more_follows: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        self.said.append(message)
        self.said_at.append((trio.current_time(), more_follows))

    async def receive(self) -> Message:
        return await self._heard.receive()

    def answer(self, *batches: int, text: str = "reply") -> None:
        """The batches that it was asked, by their place among all it was asked."""
        asked = [one for one in self.said if isinstance(one, wire.SubCallsAsked)]
        for at in batches:
            results = tuple(wire.SubCallResult(text=text) for _ in asked[at].calls)
            self.say(wire.SubCallsAnswered(batch=asked[at].batch, results=results))

    def say(self, message: Message) -> None:
        self._heard_in.send_nowait(message)

    async def attend(self, running: RunningCell) -> None:
        """As a room does it for an asker."""
        with self.scope:
            try:
                self.outcome = await running.attend(self)
            except (RequestFailedError, RequestRefusedError, RemoteProtocolError) as error:
                self.outcome = error

    def be_lost(self) -> None:
        self.scope.cancel()

    def take_back(self) -> None:
        self.is_taken_back = True
        self.scope.cancel()


@dataclass
class World:
    running: RunningCell
    nursery: trio.Nursery
    results: list[tuple[SubCallResult, ...]] = field(default_factory=list)
    ended: trio.Event = field(default_factory=trio.Event)

    def begin(self, work: Callable[[], Awaitable[wire.CellDone]]) -> None:
        async def run() -> None:
            await self.running.run(work)
            self.ended.set()

        self.nursery.start_soon(run)

    def ask(self) -> Talk:
        talk = Talk()
        self.nursery.start_soon(talk.attend, self.running)
        return talk

    async def work_for(self, seconds: float) -> wire.CellDone:
        await trio.sleep(seconds)
        return DONE

    async def work_that_asks(self, count: int) -> wire.CellDone:
        calls = tuple(SubCall(f"call {n}") for n in range(count))
        self.results.append(await self.running.on_sub_calls(calls))
        return DONE


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    return World(RunningCell(ASKED, by=PeerId("12D3KooWAsker"), orphan_s=ORPHAN_S), nursery)


async def test_every_asker_hears_the_end(virtual_time: JumpingClock, world: World) -> None:
    world.begin(lambda: world.work_for(5))
    one, other = world.ask(), world.ask()
    await world.ended.wait()
    late = world.ask()
    await trio.sleep(1)
    assert one.outcome == other.outcome == late.outcome == DONE


async def test_when_its_asker_is_lost_the_next_one_joins(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_for(10))
    first = world.ask()
    await trio.sleep(1)
    first.be_lost()
    await trio.sleep(5)
    second = world.ask()
    await world.ended.wait()
    await trio.sleep(1)
    assert second.outcome == DONE
    assert first.outcome is None


async def test_for_nobody_it_goes_on_for_a_while_and_no_longer(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_for(100))
    first = world.ask()
    await trio.sleep(1)
    began = trio.current_time()
    first.be_lost()
    await world.ended.wait()
    assert trio.current_time() - began == pytest.approx(ORPHAN_S, abs=0.1)
    late = world.ask()
    await trio.sleep(1)
    assert isinstance(late.outcome, RequestFailedError)
    assert late.outcome.code == "cancelled"


async def test_it_ends_at_once_when_its_only_asker_takes_it_back(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_for(100))
    first = world.ask()
    await trio.sleep(1)
    began = trio.current_time()
    first.take_back()
    await world.ended.wait()
    assert trio.current_time() - began == pytest.approx(0.0, abs=0.1)


async def test_one_of_two_that_takes_it_back_leaves_it_to_the_other(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_for(10))
    first, second = world.ask(), world.ask()
    await trio.sleep(1)
    second.take_back()
    await world.ended.wait()
    await trio.sleep(1)
    assert first.outcome == DONE


async def test_sub_calls_that_nobody_has_answered_are_asked_again_of_the_next(
    virtual_time: JumpingClock,
    world: World,
) -> None:
    world.begin(lambda: world.work_that_asks(3 * CALLS_PER_MESSAGE))
    first = world.ask()
    await trio.sleep(1)
    assert len(first.said) == 3
    first.answer(0, text="by the first")
    await trio.sleep(1)
    first.be_lost()
    await trio.sleep(1)
    second = world.ask()
    await trio.sleep(1)
    assert second.said == first.said[1:]
    second.answer(1, 0, text="by the second")
    await world.ended.wait()
    texts = [result.text for result in world.results[0]]
    assert texts == ["by the first"] * CALLS_PER_MESSAGE + ["by the second"] * (
        2 * CALLS_PER_MESSAGE
    )


async def test_when_the_latest_asker_goes_an_earlier_one_is_asked(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_that_asks(1))
    first = world.ask()
    await trio.sleep(1)
    second = world.ask()
    await trio.sleep(1)
    assert len(second.said) == 1
    second.be_lost()
    await trio.sleep(1)
    first.answer(0)
    await world.ended.wait()
    assert [one.text for one in world.results[0]] == ["reply"]


async def test_who_asked_before_the_latest_answers_nothing(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_that_asks(1))
    deposed = world.ask()
    await trio.sleep(1)
    leading = world.ask()
    await trio.sleep(1)
    deposed.answer(0, text="stale")
    await trio.sleep(1)
    assert not world.results
    leading.answer(0)
    await world.ended.wait()
    assert [one.text for one in world.results[0]] == ["reply"]


async def test_what_is_left_of_an_answer_that_was_not_taken_is_no_fault(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_that_asks(2))
    first = world.ask()
    await trio.sleep(1)
    second = world.ask()
    await trio.sleep(1)
    one = wire.SubCallResult(text="one")
    first.say(wire.SubCallsAnswered(batch=1, left=1, results=(one,)))
    await trio.sleep(1)
    second.be_lost()
    await trio.sleep(1)
    first.say(wire.SubCallsAnswered(batch=1, results=(one,)))
    first.answer(1)
    await world.ended.wait()
    assert [one.text for one in world.results[0]] == ["reply", "reply"]


async def test_sub_calls_wait_where_nobody_is_there_to_answer(
    virtual_time: JumpingClock, world: World
) -> None:
    async def work() -> wire.CellDone:
        await trio.sleep(2)
        return await world.work_that_asks(1)

    world.begin(work)
    first = world.ask()
    await trio.sleep(1)
    first.be_lost()
    await trio.sleep(5)
    second = world.ask()
    await trio.sleep(1)
    second.answer(0)
    await world.ended.wait()
    assert len(world.results) == 1


async def test_an_answer_that_comes_twice_or_to_nothing_changes_nothing(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_that_asks(2 * CALLS_PER_MESSAGE))
    talk = world.ask()
    await trio.sleep(1)
    talk.answer(0, text="first")
    talk.answer(0, text="second")
    talk.say(wire.SubCallsAnswered(batch=99, results=()))
    talk.answer(1, text="other")
    await world.ended.wait()
    texts = [result.text for result in world.results[0]]
    assert texts == ["first"] * CALLS_PER_MESSAGE + ["other"] * CALLS_PER_MESSAGE


async def test_an_asker_that_breaks_the_rules_is_told_and_has_taken_it_back(
    virtual_time: JumpingClock, world: World
) -> None:
    world.begin(lambda: world.work_that_asks(2))
    talk = world.ask()
    await trio.sleep(1)
    talk.say(wire.SubCallsAnswered(batch=1, results=()))
    await world.ended.wait()
    await trio.sleep(1)
    assert isinstance(talk.outcome, RemoteProtocolError)


async def test_output_goes_to_the_latest_asker_and_before_the_end(
    virtual_time: JumpingClock, world: World
) -> None:
    async def work() -> wire.CellDone:
        world.running.on_output("stdout", b"one")
        await trio.sleep(2)
        world.running.on_output("stderr", b"two")
        return DONE

    first = world.ask()
    await trio.sleep(1)
    world.begin(work)
    await trio.sleep(1)
    second = world.ask()
    await world.ended.wait()
    await trio.sleep(1)
    assert first.said == [wire.CellOutput(stream="stdout", data=b"one")]
    assert second.said == [wire.CellOutput(stream="stderr", data=b"two")]


async def test_the_last_output_goes_out_with_the_end_and_other_output_soon(
    virtual_time: JumpingClock, world: World
) -> None:
    async def work() -> wire.CellDone:
        for _ in range(3):
            world.running.on_output("stdout", b"line\n")
            await trio.sleep(OUTPUT_HELD_S / 4)
        await trio.sleep(1)
        world.running.on_output("stdout", b"last\n")
        return DONE

    talk = world.ask()
    await trio.sleep(1)
    began_at = trio.current_time()
    world.begin(work)
    await world.ended.wait()
    ended_at = trio.current_time()
    await trio.sleep(1)
    said = [one.data for one in talk.said if isinstance(one, wire.CellOutput)]
    assert said == [b"line\n" * 3, b"last\n"]
    (first_at, first_waits), (last_at, last_waits) = talk.said_at
    assert first_at - began_at == pytest.approx(OUTPUT_HELD_S)
    assert (first_waits, last_waits, last_at) == (False, True, ended_at)
    assert talk.outcome == DONE


async def test_a_question_does_not_wait_for_output(
    virtual_time: JumpingClock, world: World
) -> None:
    async def work() -> wire.CellDone:
        world.running.on_output("stdout", b"asking\n")
        return await world.work_that_asks(1)

    talk = world.ask()
    await trio.sleep(1)
    began_at = trio.current_time()
    world.begin(work)
    await until(lambda: len(talk.said) == 2)
    asked, output = talk.said
    assert isinstance(asked, wire.SubCallsAsked)
    assert output == wire.CellOutput(stream="stdout", data=b"asking\n")
    assert talk.said_at == [(began_at, False)] * 2
    talk.answer(0)
    await world.ended.wait()


async def test_a_refusal_of_the_work_is_what_every_asker_hears(
    virtual_time: JumpingClock, world: World
) -> None:
    async def work() -> wire.CellDone:
        await trio.sleep(1)
        raise RequestRefusedError("busy", "full", 1.0)

    world.begin(work)
    talk = world.ask()
    await world.ended.wait()
    await trio.sleep(1)
    assert isinstance(talk.outcome, RequestRefusedError)
    assert (talk.outcome.reason, talk.outcome.retry_after_s) == ("busy", 1.0)


async def test_what_is_the_same_cell_is_told_by_number_code_and_what_went_before(
    virtual_time: JumpingClock,
    world: World,
) -> None:
    assert world.running.is_the_same(ASKED.model_copy(update={"term": 5, "remaining_s": 1.0}))
    for changed in ({"cell": 1}, {"code": "y"}, {"after": (7,)}):
        assert not world.running.is_the_same(ASKED.model_copy(update=changed))


async def test_a_work_that_dies_of_weather_says_so(
    virtual_time: JumpingClock, world: World
) -> None:
    async def work() -> wire.CellDone:
        await trio.lowlevel.checkpoint()
        raise RequestFailedError("content", str(PeerUnreachableError("nobody has it")))

    talk = world.ask()
    world.begin(work)
    await world.ended.wait()
    await trio.sleep(1)
    assert isinstance(talk.outcome, RequestFailedError)
