"""A room behind the gate: who begins, who waits, who is sent away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.core.job import Job, Speeds, request_of
from kowalski.node.services.gate import Gate, Resources
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionAsked,
    CompletionDone,
    TokensAsked,
    TokensCounted,
    Usage,
)
from kowalski.protocol.messages.placement import Claim
from kowalski.protocol.messages.repl import (
    CellAsked,
    CellDone,
    SessionClosed,
    SubCall,
    SubCallResult,
    SubCallsAnswered,
    SubCallsAsked,
)
from simulations.virtual_time import JumpingClock
from tests.node.services.rooms import PatientClock, Two, open_two, until

pytestmark = pytest.mark.trio

PROTOCOL = "/kowalski/repl/1"


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


def cell(
    code: str = "1", *, cell: int = 0, remaining_s: float = 600.0, claim: Claim | None = None
) -> CellAsked:
    """`code`: how many seconds it takes."""
    return CellAsked(
        task=TaskId("t"),
        term=1,
        cell=cell,
        language="python",
        code=code,
        timeout_s=600.0,
        remaining_s=remaining_s,
        claim=claim or Claim(),
    )


def done_of(asked: CellAsked) -> CellDone:
    return CellDone(
        task=asked.task,
        cell=asked.cell,
        status="ok",
        stdout=f"{asked.remaining_s:.3f}",
        stderr="",
        stdout_bytes=0,
        stderr_bytes=0,
        is_session_alive=True,
        duration_s=0.0,
        held_s=0.0,
    )


@dataclass
class Room:
    """Sleeps for as long as it is asked to; `0` asks a sub-call first."""

    begun: list[int] = field(default_factory=list)

    async def answer(self, conversation: Conversation, request: Message) -> Message:
        if isinstance(request, CompletionAsked):
            usage = Usage(prompt_tokens=1, completion_tokens=10)
            return CompletionDone(model="m", finish_reason="stop", usage=usage, held_s=0.0)
        if isinstance(request, TokensAsked):
            await trio.sleep(float(request.texts[0]))
            return TokensCounted(model="m", counts=(1,), held_s=0.0)
        if not isinstance(request, CellAsked):
            return request
        self.begun.append(request.cell)
        if request.code == "0":
            await conversation.send(SubCallsAsked(batch=1, calls=(SubCall(prompt="?"),)))
            assert isinstance(await conversation.receive(), SubCallsAnswered)
        await trio.sleep(float(request.code))
        return done_of(request)


@dataclass
class Behind:
    two: Two
    gate: Gate
    room: Room

    @property
    def taken(self) -> int:
        at = self.gate.occupancy("code", 1)
        return at.running + at.queued

    async def ask(self, asked: Message) -> Message:
        asker, peer = self.two.asking.asker, self.two.room.peer
        return await asker.request(peer, PROTOCOL, asked, Message, timeout_s=1e6)


@asynccontextmanager
async def open_behind(folder: Path, *, slots: int = 1) -> AsyncIterator[Behind]:
    async with open_two(folder) as two:
        gate = Gate(
            two.room.peer, Resources(lambda _job: slots, lambda _model: Speeds(10.0, 100.0))
        )
        two.nursery.start_soon(gate.run)
        room = Room()
        two.room.serve(PROTOCOL, gate.admitting(room.answer))
        yield Behind(two, gate, room)


async def test_one_after_the_other_where_there_is_one_slot_and_the_rest_of_the_time_is_passed_on(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_behind(tmp_path) as behind:
        ended: list[Message] = []

        async def ask(number: int) -> None:
            ended.append(await behind.ask(cell("10", cell=number, remaining_s=100.0)))

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask, number)
                await until(lambda n=number: behind.taken == n + 1)
            at = behind.gate.occupancy("code", 1)
            assert (at.running, at.queued, at.slots) == (1, 2, 1)
        assert behind.room.begun == [0, 1, 2]
        left = [float(one.stdout) for one in ended if isinstance(one, CellDone)]
        assert left[0] == 100.0
        assert 89.0 < left[1] < 91.0
        assert behind.gate.occupancy("code", 1).running == 0


async def test_a_full_line_refuses_with_a_time(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_behind(tmp_path) as behind, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(behind.ask, cell("10", cell=number))
        await until(lambda: behind.gate.occupancy("code", 1).queued == 2)
        with pytest.raises(RequestRefusedError) as busy:
            await behind.ask(cell())
        assert busy.value.reason == "busy"
        assert busy.value.retry_after_s is not None
        nursery.cancel_scope.cancel()
    async with open_behind(tmp_path / "again") as behind:
        assert isinstance(await behind.ask(cell()), CellDone)


async def test_who_goes_away_while_it_waits_gives_its_place_to_the_next(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_behind(tmp_path) as behind, trio.open_nursery() as nursery:
        nursery.start_soon(behind.ask, cell("10", cell=0))
        await until(lambda: behind.room.begun == [0])
        with trio.move_on_after(1):
            await behind.ask(cell("10", cell=1))
        await behind.ask(cell("10", cell=2))
        assert behind.room.begun == [0, 2]


async def test_counts_of_tokens_wait_in_a_short_line_of_their_own(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    def count(seconds: str, remaining_s: float = 60.0) -> TokensAsked:
        return TokensAsked(model="m", texts=(seconds,), remaining_s=remaining_s)

    async with open_behind(tmp_path) as behind, trio.open_nursery() as nursery:
        nursery.start_soon(behind.ask, cell("100"))
        await until(lambda: behind.room.begun == [0])
        assert isinstance(await behind.ask(count("1")), TokensCounted)  # no cell is in its way
        with trio.CancelScope() as hung_up:
            async with trio.open_nursery() as counting:
                for _ in range(3):
                    counting.start_soon(behind.ask, count("10"))
                await until(lambda: behind.gate.occupancy("counting", 1).queued == 2)
                for asked in (count("1"), count("1", remaining_s=0.1)):
                    with pytest.raises(RequestRefusedError) as busy:
                        await behind.ask(asked)
                    assert busy.value.reason == "busy"
                hung_up.cancel()
        began_at = trio.current_time()
        assert isinstance(await behind.ask(count("1")), TokensCounted)
        assert trio.current_time() - began_at < 5
        nursery.cancel_scope.cancel()


async def test_what_needs_no_slot_is_answered_while_all_are_taken(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_behind(tmp_path) as behind, trio.open_nursery() as nursery:
        nursery.start_soon(behind.ask, cell("10"))
        await until(lambda: behind.room.begun == [0])
        closed = SessionClosed(task=TaskId("t"), term=1)
        assert await behind.ask(closed) == closed
        assert trio.current_time() < 5
        nursery.cancel_scope.cancel()


async def test_a_cell_that_waits_for_sub_calls_lends_its_slot(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_behind(tmp_path) as behind:
        asker, peer = behind.two.asking.asker, behind.two.room.peer
        async with asker.converse(peer, PROTOCOL, cell("0", cell=0)) as asking:
            assert isinstance(await asking.receive(), SubCallsAsked)
            assert behind.gate.occupancy("code", 1).running == 0
            assert isinstance(await behind.ask(cell("1", cell=1)), CellDone)
            await asking.send(SubCallsAnswered(batch=1, results=(SubCallResult(text="!"),)))
            assert isinstance(await asking.receive(), CellDone)
        assert behind.room.begun == [0, 1]


async def test_an_offer_is_kept_and_given_back(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_behind(tmp_path) as behind:
        me, asker = behind.two.room.peer, behind.two.asking.peer
        job = Job("code", language="python")

        def offer(reserve_s: float = 2.0) -> tuple[int, float]:
            promised = behind.gate.offer(asker, job, Claim(), remaining_s=60.0, reserve_s=reserve_s)
            return promised.reservation, promised.wait_s

        first, wait_s = offer()
        assert wait_s == 0.0
        second, wait_s = offer()
        assert wait_s == 1.0
        behind.gate.give_back(second)
        assert offer(reserve_s=0.0)[1] == 1.0
        claim = Claim(reservation=first)
        assert isinstance(await behind.ask(cell(claim=claim)), CellDone)
        assert behind.gate.occupancy("code", 1).queued == 0
        assert me != asker


async def test_a_paused_gate_sends_others_away_and_lets_its_owner_in(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_behind(tmp_path) as behind:
        behind.gate.pause("quiet hours")
        assert behind.gate.paused == "quiet hours"
        with pytest.raises(RequestRefusedError) as no:
            await behind.ask(cell())
        assert (no.value.reason, no.value.detail) == ("paused", "quiet hours")
        job = Job("code", language="python")
        me = behind.two.room.peer
        assert behind.gate.offer(me, job, Claim(), remaining_s=9.0, reserve_s=0.0).wait_s == 0.0
        behind.gate.pause("")
        assert isinstance(await behind.ask(cell()), CellDone)


async def test_a_model_that_has_read_a_beginning_offers_to_read_on(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_behind(tmp_path) as behind:
        begun = ChatMessage(role="system", content="x" * 4000)
        asked = CompletionAsked(model="m", messages=(begun,), remaining_s=60.0)
        await behind.ask(asked)
        job = Job("inference", model="m", prompt_tokens=1500, prefixes=_digests(asked))
        promised = behind.gate.offer(
            behind.two.asking.peer, job, Claim(), remaining_s=60.0, reserve_s=0.0
        )
        assert promised.cached_tokens == 1004
        assert promised.cost.saved_s == pytest.approx(10.04)


def _digests(asked: CompletionAsked) -> tuple[str, ...]:
    request = request_of(asked)
    assert request is not None
    return request.job.prefixes
