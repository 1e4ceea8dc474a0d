"""The room that runs cells, asked over frames by a peer; sessions are scripted, disks real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from kowalski.mesh.own_conversation import converse_with_ourselves
from kowalski.node.repl.scripted_sessions import (
    Script,
    ScriptedCell,
    ScriptedHost,
    ScriptedState,
    open_scripted_host,
)
from kowalski.node.repl.seam import Answer, CellOutcome, CellStatus, SubCall, SubCallResult
from kowalski.node.services import repl, running_cell
from kowalski.node.services.repl import PROTOCOL, ReplRoom
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import ContentHash, TaskId
from kowalski.protocol.limits import OUTPUT_CHARS_SHOWN, TEXT_BYTES_MAX
from kowalski.protocol.messages import repl as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.membership import RoundTrip
from simulations.toy_cells import toy_script
from simulations.virtual_time import JumpingClock
from tests.node.services.rooms import HOT, Two, hot, open_two, until

pytestmark = pytest.mark.trio

Answers = Callable[[wire.SubCallsAsked], Message | None]


def asked(
    code: str,
    *,
    task: str = "task",
    cell: int = 0,
    after: tuple[int, ...] = (),
    term: int = 1,
    **more: Any,  # noqa: ANN401 fields of the message
) -> wire.CellAsked:
    given = {"language": "python", "timeout_s": 30.0, "remaining_s": 60.0, **more}
    return wire.CellAsked(task=TaskId(task), cell=cell, after=after, term=term, code=code, **given)


def echoed(batch: wire.SubCallsAsked) -> wire.SubCallsAnswered:
    return wire.SubCallsAnswered(
        batch=batch.batch,
        results=tuple(wire.SubCallResult(text=f"<{call.prompt[:200]}>") for call in batch.calls),
    )


@dataclass(slots=True)
class Desk:
    """The room, and who asks it."""

    two: Two
    host: ScriptedHost
    room: ReplRoom
    begun: list[str]
    """The code of every cell that began."""
    pieces: list[wire.CellOutput] = field(default_factory=list)
    batches: list[wire.SubCallsAsked] = field(default_factory=list)

    async def run(self, cell: wire.CellAsked, answers: Answers = echoed) -> wire.CellDone:
        """Ask, listen, and answer sub-calls by `answers` (None: not at all)."""
        async with self.two.asking.asker.converse(
            self.two.room.peer, PROTOCOL, cell
        ) as conversation:
            while True:
                message = await conversation.receive()
                match message:
                    case wire.CellOutput():
                        self.pieces.append(message)
                    case wire.SubCallsAsked():
                        self.batches.append(message)
                        if answer := answers(message):
                            await conversation.send(answer)
                    case wire.CellDone():
                        return message
                    case _:
                        raise AssertionError(message)

    async def close(self, task: str, term: int = 1) -> None:
        closed = wire.SessionClosed(task=TaskId(task), term=term)
        await self.two.asking.asker.request(
            self.two.room.peer, PROTOCOL, closed, wire.SessionClosed, timeout_s=5
        )

    def begin(self, nursery: trio.Nursery, cell: wire.CellAsked) -> Pending:
        """Ask, and go on; cancel the scope to be an asker who goes away."""
        pending = Pending()

        async def ask() -> None:
            with pending.scope:
                try:
                    pending.done = await self.run(cell)
                except (RequestRefusedError, RequestFailedError) as no:
                    pending.error = no
            pending.ended.set()

        nursery.start_soon(ask)
        return pending


@dataclass(slots=True)
class Pending:
    done: wire.CellDone | None = None
    error: Exception | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def open_desk(
    folder: Path,
    *,
    script: Script = toy_script,
    slots: int = 4,
    languages: Mapping[str, str] | None = None,
    idle_s: float | None = None,
) -> AsyncIterator[Desk]:
    begun: list[str] = []

    def recorded(code: str, state: ScriptedState) -> ScriptedCell:
        begun.append(code)
        return script(code, state)

    async with (
        open_two(folder) as two,
        open_scripted_host(
            recorded, languages=languages or {"python": "3.11", "bash": "5.2"}, slots=slots
        ) as host,
    ):
        room = ReplRoom(host, two.room.store, two.room.requester, two.nursery, hot=hot)
        two.room.serve(PROTOCOL, room.answer)
        if idle_s is not None:
            two.nursery.start_soon(lambda: room.evict_idle(idle_s=idle_s))
        yield Desk(two, host, room, begun)


async def refusal(asking: Awaitable[object]) -> str:
    """The reason of the refusal that this must meet."""
    with pytest.raises(RequestRefusedError) as no:
        await asking
    return no.value.reason


async def failure(asking: Awaitable[object]) -> str:
    with pytest.raises(RequestFailedError) as failed:
        await asking
    return str(failed.value)


# --- sessions -----------------------------------------------------------------------------------


async def test_cells_of_one_task_and_language_share_a_session(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(asked("keep x 41"))
        await desk.run(asked("keep x 5", task="another"))
        await desk.run(asked("keep x 6", language="bash"))
        done = await desk.run(asked("show x", cell=1, after=(0,)))
        assert (done.status, done.stdout) == ("ok", "x is 41\n")
        assert (done.task, done.cell, done.exit_code) == ("task", 1, 0)
        assert done.hot == HOT
        assert len(done.variables_digest) == 64
        assert desk.host.slots_free == 1


async def test_a_cell_below_the_highest_term_heard_is_refused_and_not_run(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(asked("say first", term=3))
        with pytest.raises(RequestRefusedError, match="stale: term 2, 3 was heard"):
            await desk.run(asked("say second", cell=1, after=(0,), term=2))
        assert desk.begun == ["say first"]
        done = await desk.run(asked("say third", cell=1, after=(0,), term=4))
        assert done.stdout == "third\n"


@pytest.mark.parametrize("after", [(0,), (1,), (0, 1)])
async def test_a_session_that_is_not_here_is_said_to_be_lost(
    virtual_time: JumpingClock, tmp_path: Path, after: tuple[int, ...]
) -> None:
    async with open_desk(tmp_path) as desk:
        assert await refusal(desk.run(asked("say x", cell=2, after=after))) == "session_lost"
        await desk.run(asked("keep x 1", task="another"))
        assert await refusal(desk.run(asked("say x", cell=2, after=after))) == "session_lost"
        assert desk.begun == ["keep x 1"]


async def test_a_session_that_ran_other_cells_than_the_asker_thinks_is_lost(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(asked("keep x 1"))
        await desk.run(asked("keep x 2", cell=1, after=(0,)))
        assert await refusal(desk.run(asked("show x", cell=3, after=(0, 2)))) == "session_lost"
        assert (await desk.run(asked("show x", cell=2, after=(0, 1)))).stdout == "x is 2\n"


async def test_a_first_cell_begins_anew_where_a_session_is_left_over(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(asked("keep x 1"))
        done = await desk.run(asked("show x", cell=1))
        assert (done.status, done.error) == ("error", "NameError: x")
        assert desk.host.slots_free == 3


async def test_the_same_cell_asked_again_is_answered_and_not_run_again(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        first = await desk.run(asked("wait 1\nsay once"))
        before = trio.current_time()
        again = await desk.run(asked("wait 1\nsay once"))
        assert again.stdout == first.stdout == "once\n"
        assert trio.current_time() - before < 1
        assert len(desk.begun) == 1


async def test_the_same_cell_asked_twice_at_once_runs_once_and_answers_both(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        both = [desk.begin(nursery, asked("wait 5\nsay once")) for _ in range(2)]
        await until(lambda: desk.room.occupancy.running == 1)
        await trio.sleep(1)
        assert (desk.room.occupancy.running, desk.room.occupancy.queued) == (1, 0)
        for one in both:
            await one.ended.wait()
            assert one.done is not None
            assert one.done.stdout == "once\n"
        assert len(desk.begun) == 1


async def test_a_cell_cut_off_in_the_middle_takes_its_session_along(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        await desk.run(asked("keep x 1"))
        pending = desk.begin(nursery, asked("wait 50", cell=1, after=(0,)))
        await until(lambda: len(desk.begun) == 2)
        pending.scope.cancel()
        await until(lambda: desk.host.slots_free == desk.host.slots)
        assert desk.room.occupancy.running == 0
        cell = asked("show x", cell=2, after=(0, 1))
        assert await refusal(desk.run(cell)) == "session_lost"
        cell = asked("show x", cell=1, after=(0,))
        assert await refusal(desk.run(cell)) == "session_lost"


async def test_who_asked_again_gets_the_cell_that_runs_when_the_first_asker_goes(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, idle_s=100) as desk, trio.open_nursery() as nursery:
        first = desk.begin(nursery, asked("wait 5\nkeep x 1"))
        await until(lambda: desk.room.occupancy.running == 1)
        again = desk.begin(nursery, asked("wait 5\nkeep x 1"))
        await trio.sleep(1)
        first.scope.cancel()
        third = desk.begin(nursery, asked("wait 5\nkeep x 1"))
        for one in (again, third):
            await one.ended.wait()
            assert one.error is None
        assert len(desk.begun) == 1
        await trio.sleep(200)
        assert desk.host.slots_free == desk.host.slots, "the broom has come by"


async def test_another_cell_of_that_number_is_not_joined_and_ends_the_one_that_runs(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        first = desk.begin(nursery, asked("wait 50\nsay one"))
        await until(lambda: desk.room.occupancy.running == 1)
        other = desk.begin(nursery, asked("say other", term=2))
        await other.ended.wait()
        assert other.done is not None
        assert other.done.stdout == "other\n"
        await first.ended.wait()
        assert "cancelled" in str(first.error)


async def test_cells_of_one_session_wait_for_each_other(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        first = desk.begin(nursery, asked("wait 5\nkeep x 1"))
        await until(lambda: desk.room.occupancy.running == 1)
        second = desk.begin(nursery, asked("show x", cell=1, after=(0,)))
        await until(lambda: desk.room.occupancy.queued == 1)
        for one in (first, second):
            await one.ended.wait()
        assert second.done is not None
        assert second.done.stdout == "x is 1\n"


async def test_a_session_that_dies_is_not_gone_on_with(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(asked("keep x 1"))
        done = await desk.run(asked("die", cell=1, after=(0,)))
        assert (done.status, done.is_session_alive) == ("died", False)
        assert await refusal(desk.run(asked("show x", cell=2, after=(0, 1)))) == "session_lost"
        await until(lambda: desk.host.slots_free == desk.host.slots)


async def test_closing_ends_all_sessions_of_that_task_and_no_other(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(asked("keep x 1", term=2))
        await desk.run(asked("keep x 1", term=2, language="bash", cell=1))
        await desk.run(asked("keep x 1", task="another"))
        assert await refusal(desk.close("task", term=1)) == "stale"
        assert desk.host.slots_free == 1
        await desk.close("task", term=2)
        assert desk.host.slots_free == 3
        assert (await desk.run(asked("show x", task="another", cell=1, after=(0,)))).exit_code == 0
        straggler = asked("say late", term=1)
        assert await refusal(desk.run(straggler)) == "stale", "the fence outlives the sessions"


async def test_a_stranger_to_the_term_closes_nothing_until_it_leads_a_later_one(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        closed = wire.SessionClosed(task=TaskId("task"), term=2)
        await desk.run(asked("keep x 1", term=2))
        running = desk.begin(nursery, asked("wait 5\nshow x", term=2, cell=1, after=(0,)))
        await until(lambda: len(desk.begun) == 2)

        async def say(message: wire.SessionClosed) -> Message:
            asking = converse_with_ourselves(desk.two.room.peer, desk.room.answer, message, nursery)
            async with asking as asked_itself:
                return await asked_itself.receive()

        assert await refusal(say(closed)) == "stale"
        await running.ended.wait()
        assert running.done is not None
        assert running.done.stdout == "x is 1\n"
        await say(closed.model_copy(update={"term": 3}))
        assert desk.host.slots_free == desk.host.slots


async def a_cell_that_waits(desk: Desk, nursery: trio.Nursery, **more: object) -> Pending:
    """Cell 1, asked for in term 2, behind cell 0, which was asked for in term 1."""
    desk.begin(nursery, asked("wait 5\nkeep x 1", term=1))
    await until(lambda: len(desk.begun) == 1)
    waiting = desk.begin(nursery, asked("show x", cell=1, after=(0,), term=2, **more))
    await until(lambda: desk.room.occupancy.queued == 1)
    return waiting


async def test_a_cell_that_waits_is_begun_in_the_term_of_who_joined_it_last(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    """Not refused as stale to the new leader, for the term in which the one before asked for it."""
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        waiting = await a_cell_that_waits(desk, nursery)
        joined = desk.begin(nursery, asked("show x", cell=1, after=(0,), term=3))
        for one in (waiting, joined):
            await one.ended.wait()
        assert joined.error is None
        assert joined.done is not None
        assert joined.done.stdout == "x is 1\n"


async def test_a_cell_that_waits_has_its_inputs_from_where_its_last_asker_says_that_they_are(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    """Who led before held them, and is gone."""
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        there = await desk.two.asking.store.put(b"some context")
        gone = there.model_copy(update={"holders": ()})
        inputs = [(wire.Input(name="context.txt", content=one),) for one in (gone, there)]
        await a_cell_that_waits(desk, nursery, inputs=inputs[0])
        again = asked("show x", cell=1, after=(0,), term=3, inputs=inputs[1])
        joined = desk.begin(nursery, again)
        await joined.ended.wait()
        assert joined.error is None


async def test_a_cell_that_waits_and_that_nobody_joins_is_stale_once_another_leads(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        waiting = await a_cell_that_waits(desk, nursery)
        desk.begin(nursery, asked("say hi", cell=1, term=3, language="bash"))
        await waiting.ended.wait()
        assert "stale" in str(waiting.error)


async def test_who_asks_again_for_what_runs_in_a_later_term_leads_in_that(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        closed = wire.SessionClosed(task=TaskId("task"), term=2)

        async def say(message: wire.SessionClosed) -> Message:
            asking = converse_with_ourselves(desk.two.room.peer, desk.room.answer, message, nursery)
            async with asking as asked_itself:
                return await asked_itself.receive()

        desk.begin(nursery, asked("wait 5\nsay done", term=1))
        await until(lambda: len(desk.begun) == 1)
        joined = desk.begin(nursery, asked("wait 5\nsay done", term=2))
        await trio.sleep(1)
        assert await refusal(say(closed)) == "stale"
        await joined.ended.wait()
        assert joined.done is not None
        assert joined.done.stdout == "done\n"
        assert await refusal(say(closed)) == "stale", "it leads after the cell as well"
        await desk.close("task", term=2)
        assert desk.host.slots_free == desk.host.slots


async def test_a_cell_whose_session_is_closed_meanwhile_has_not_ended(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    """Whoever asked for it has it run elsewhere, and does not take it for dead by itself."""
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        running = desk.begin(nursery, asked("wait 5\nsay done", term=2))
        await until(lambda: len(desk.begun) == 1)
        await desk.close("task", term=2)
        await running.ended.wait()
        assert isinstance(running.error, RequestRefusedError)
        assert running.error.reason == "session_lost"
        assert desk.host.slots_free == desk.host.slots
        done = await desk.run(asked("wait 1\nsay done", term=2))
        assert done.stdout == "done\n"


async def test_programs_run_alone_leave_no_session(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, slots=2) as desk, trio.open_nursery() as nursery:
        alone = [
            desk.begin(nursery, asked(f"wait 1\nsay {n}", cell=n, keeps_session=False))
            for n in range(2)
        ]
        await until(lambda: desk.room.occupancy.running == 2)
        for number, one in enumerate(alone):
            await one.ended.wait()
            assert one.done is not None
            assert one.done.stdout == f"{number}\n"
        await until(lambda: desk.host.slots_free == 2)
        assert await refusal(desk.run(asked("say x", cell=2, after=(0,)))) == "session_lost"
        assert desk.room._locks == {}


# --- slots --------------------------------------------------------------------------------------


async def test_when_slots_are_full_the_session_idle_longest_makes_room(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, slots=2) as desk:
        await desk.run(asked("keep x 1", task="a"))
        await trio.sleep(1)
        await desk.run(asked("keep x 1", task="b"))
        await trio.sleep(1)
        await desk.run(asked("say used", task="a", cell=1, after=(0,)))
        assert await refusal(desk.run(asked("keep x 1", task="c"))) == "busy", "used just now"
        await trio.sleep(repl.SPARED_S)
        await desk.run(asked("keep x 1", task="c"))
        assert (await desk.run(asked("show x", task="a", cell=2, after=(0, 1)))).exit_code == 0
        lost = asked("show x", task="b", cell=1, after=(0,))
        assert await refusal(desk.run(lost)) == "session_lost"


async def test_when_every_session_is_at_work_the_room_is_busy_and_says_when_to_come_back(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, slots=2) as desk, trio.open_nursery() as nursery:
        at_work = [
            desk.begin(nursery, asked("wait 50\nkeep x 1", task=name, timeout_s=60.0))
            for name in ("a", "b")
        ]
        await until(lambda: desk.room.occupancy.running == 2)
        assert desk.room.occupancy.slots == 2
        with pytest.raises(RequestRefusedError) as busy:
            await desk.run(asked("say x", task="c"))
        assert (busy.value.reason, busy.value.retry_after_s) == ("busy", repl.RETRY_AFTER_S)
        assert desk.room.occupancy.queued == 0
        for one in at_work:
            await one.ended.wait()
            assert one.done is not None
            assert one.done.status == "ok", "nobody who works is thrown out"
        await trio.sleep(repl.SPARED_S)
        assert (await desk.run(asked("say x", task="c"))).status == "ok"


async def test_sessions_that_nobody_uses_are_closed_after_a_while(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, idle_s=100) as desk:
        await desk.run(asked("keep x 1", task="idle"))
        await desk.run(asked("keep x 1", task="used"))
        await trio.sleep(80)
        await desk.run(asked("keep x 1", task="used", cell=1, after=(0,)))
        assert desk.host.slots_free == 2
        await trio.sleep(40)
        assert desk.host.slots_free == 3
        used = asked("show x", task="used", cell=2, after=(0, 1))
        assert (await desk.run(used)).status == "ok"
        idle = asked("show x", task="idle", cell=1, after=(0,))
        assert await refusal(desk.run(idle)) == "session_lost"


async def test_a_session_is_idle_from_the_end_of_its_last_cell_on(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, idle_s=100) as desk:
        long = asked("wait 150\nkeep x 1", timeout_s=500.0, remaining_s=500.0)
        assert (await desk.run(long)).status == "ok", "nobody is idle who works"
        await trio.sleep(60)
        assert (await desk.run(asked("show x", cell=1, after=(0,)))).stdout == "x is 1\n"


async def test_an_unknown_language_is_refused_with_those_that_are_known(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        with pytest.raises(RequestRefusedError, match="unsupported: no perl here, only bash, pyth"):
            await desk.run(asked("say x", language="perl"))


# --- how a cell ends ----------------------------------------------------------------------------


def always(outcome: CellOutcome) -> Script:
    return lambda _code, _state: ScriptedCell(outcome)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("ok", "ok"),
        ("error", "error"),
        ("timeout", "timeout"),
        ("cancelled", "error"),
        ("died", "died"),
        ("memory", "memory"),
        ("inodes", "inodes"),
        ("output_flood", "output_flood"),
    ],
)
async def test_how_the_cell_ended_is_told(
    virtual_time: JumpingClock, tmp_path: Path, status: CellStatus, told: str
) -> None:
    outcome = CellOutcome(status, error="words", exit_code=7)
    async with open_desk(tmp_path, script=always(outcome)) as desk:
        done = await desk.run(asked("anything"))
        assert (done.status, done.error, done.exit_code) == (told, "words", 7)


async def test_a_cell_gets_no_more_time_than_its_asker_has(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        before = trio.current_time()
        done = await desk.run(asked("wait 50", timeout_s=30.0, remaining_s=5.0))
        assert done.status == "timeout"
        assert 5 <= trio.current_time() - before < 6
        before = trio.current_time()
        done = await desk.run(asked("wait 50", cell=1, timeout_s=7.0, remaining_s=90.0))
        assert done.status == "timeout"
        assert 7 <= trio.current_time() - before < 8
        assert done.held_s == pytest.approx(7, abs=0.1)


async def test_long_output_is_shown_head_and_tail_and_kept_whole_by_its_hash(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        done = await desk.run(asked("say begin\nflood 100000\nsay end"))
        assert len(done.stdout) <= OUTPUT_CHARS_SHOWN
        assert done.stdout.startswith("begin\n")
        assert done.stdout.endswith("end\n")
        assert done.stdout_bytes == 100_000 + 11
        assert done.full is not None
        path = await desk.two.asking.store.fetch(done.full, desk.two.asking.requester)
        assert path.stat().st_size == done.stdout_bytes
        short = await desk.run(asked("say short", cell=1, after=(0,)))
        assert short.full is None


async def test_what_no_text_can_carry_does_not_cost_the_cell(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    outcome = CellOutcome(
        "error",
        stdout=b"\xff\xfe caf\xc3\xa9",
        stderr=b"\x80",
        value="\ud800 lone",
        error="\udfff lone",
        answer=Answer("\ud83d half", ready=False),
    )
    async with open_desk(tmp_path, script=always(outcome)) as desk:
        done = await desk.run(asked("anything"))
        assert done.stdout == "\ufffd\ufffd caf\u00e9"
        assert (done.stderr, done.value, done.error) == ("\ufffd", "\ufffd lone", "\ufffd lone")
        assert done.answer == wire.AnswerVariable(content="\ufffd half", is_ready=False)


async def test_an_answer_too_heavy_for_a_message_is_cut_between_characters(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    letter = "\N{CJK UNIFIED IDEOGRAPH-6F22}"
    async with open_desk(tmp_path) as desk:
        done = await desk.run(asked(f"answer-big 200000 {letter}"))
        assert done.answer is not None
        assert done.answer.content == letter * (TEXT_BYTES_MAX // 3)
        assert done.answer.is_ready


# --- output on its way --------------------------------------------------------------------------


async def test_output_is_forwarded_in_order_in_pieces_before_the_end(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    outcome = CellOutcome("ok", stdout=bytes(range(250)) * 400, stderr=b"and this")
    async with open_desk(tmp_path, script=always(outcome)) as desk:
        await desk.run(asked("anything"))
        streams = [piece.stream for piece in desk.pieces]
        assert streams == ["stdout"] * 4 + ["stderr"]
        assert max(len(piece.data) for piece in desk.pieces) == running_cell.OUTPUT_PIECE_BYTES
        assert b"".join(piece.data for piece in desk.pieces) == outcome.stdout + outcome.stderr


async def test_of_a_flood_nothing_is_lost_on_its_way(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    flood = 12 * 1024 * 1024
    async with open_desk(tmp_path) as desk:
        done = await desk.run(asked(f"flood {flood}"))
        assert sum(len(piece.data) for piece in desk.pieces) == flood + 1
        assert done.stdout_bytes == flood + 1


# --- sub-calls ----------------------------------------------------------------------------------


async def test_sub_calls_are_answered_in_their_order_whatever_order_they_came_back_in(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    def script(_code: str, _state: ScriptedState) -> ScriptedCell:
        return ScriptedCell(
            sub_calls=tuple(SubCall(f"{n}{'x' * 200_000}") for n in range(5)),
            outcome_of=lambda told: CellOutcome("ok", " ".join(str(r.text) for r in told).encode()),
        )

    def heads(batch: wire.SubCallsAsked) -> tuple[wire.SubCallResult, ...]:
        return tuple(wire.SubCallResult(text=call.prompt[:1]) for call in batch.calls)

    async with open_desk(tmp_path, script=script) as desk:
        cell = asked("anything")
        async with desk.two.asking.asker.converse(desk.two.room.peer, PROTOCOL, cell) as talk:
            batches = [await talk.receive() for _ in range(3)]
            for batch in reversed(batches):
                assert isinstance(batch, wire.SubCallsAsked)
                for at, result in enumerate(told := heads(batch)):
                    left = len(told) - at - 1
                    await talk.send(
                        wire.SubCallsAnswered(batch=batch.batch, left=left, results=(result,))
                    )
            while not isinstance(done := await talk.receive(), wire.CellDone):
                pass
        assert done.stdout == "0 1 2 3 4"


async def test_a_sub_call_keeps_its_kind_and_model_and_may_end_in_an_error(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    def script(_code: str, _state: ScriptedState) -> ScriptedCell:
        return ScriptedCell(
            sub_calls=(SubCall("p", "m", "rlm"), SubCall("handle", None, "unfold")),
            outcome_of=lambda results: CellOutcome("ok", stdout=repr(results).encode()),
        )

    def answers(batch: wire.SubCallsAsked) -> wire.SubCallsAnswered:
        results = (wire.SubCallResult(text="fine"), wire.SubCallResult(error="no such handle"))
        return wire.SubCallsAnswered(batch=batch.batch, results=results)

    async with open_desk(tmp_path, script=script) as desk:
        done = await desk.run(asked("anything"), answers)
        (batch,) = desk.batches
        assert batch.calls == (
            wire.SubCall(kind="rlm", prompt="p", model="m"),
            wire.SubCall(kind="unfold", prompt="handle"),
        )
        wanted = (SubCallResult(text="fine"), SubCallResult(error="no such handle"))
        assert done.stdout == repr(wanted)


async def test_the_time_that_sub_calls_take_is_not_the_cells(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        cell = asked("ask q\nwait 4", timeout_s=5.0)
        async with desk.two.asking.asker.converse(desk.two.room.peer, PROTOCOL, cell) as talk:
            batch = await talk.receive()
            assert isinstance(batch, wire.SubCallsAsked)
            await trio.sleep(20)
            await talk.send(echoed(batch))
            while not isinstance(done := await talk.receive(), wire.CellDone):
                pass
        assert done.status == "ok"


@pytest.mark.parametrize(("count", "size"), [(21, 50_000), (5, TEXT_BYTES_MAX)])
async def test_a_batch_larger_than_a_frame_goes_in_several_messages(
    virtual_time: JumpingClock, tmp_path: Path, count: int, size: int
) -> None:
    def answers(batch: wire.SubCallsAsked) -> wire.SubCallsAnswered:
        results = tuple(wire.SubCallResult(text=call.prompt) for call in batch.calls)
        return wire.SubCallsAnswered(batch=batch.batch, results=results)

    async with open_desk(tmp_path) as desk:
        done = await desk.run(asked(f"ask-big {count} {size}"), answers)
        assert done.status == "ok"
        assert done.stdout_bytes == count * (size + 1), "a line each"
        assert sum(len(batch.calls) for batch in desk.batches) == count
        assert len({batch.batch for batch in desk.batches}) == len(desk.batches)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (SubCall("x" * (TEXT_BYTES_MAX + 1)), "more than 393216 bytes"),
        (SubCall("\N{CJK UNIFIED IDEOGRAPH-6F22}" * 200_000), "more than 393216 bytes"),
        (SubCall("p", model="m" * 257), "model"),
        (SubCall("p", model=""), "model"),
    ],
)
async def test_a_sub_call_that_no_message_can_carry_is_an_error_in_its_slot_alone(
    virtual_time: JumpingClock, tmp_path: Path, call: SubCall, words: str
) -> None:
    told: list[SubCallResult] = []

    def script(_code: str, _state: ScriptedState) -> ScriptedCell:
        def outcome_of(results: tuple[SubCallResult, ...]) -> CellOutcome:
            told.extend(results)
            return CellOutcome("ok")

        calls = (SubCall("before"), call, SubCall("after"))
        return ScriptedCell(sub_calls=calls, outcome_of=outcome_of)

    async with open_desk(tmp_path, script=script) as desk:
        done = await desk.run(asked("anything"))
        assert (done.status, done.is_session_alive) == ("ok", True)
        assert [result.text for result in told] == ["<before>", None, "<after>"]
        assert told[1].error is not None
        assert words in told[1].error
        assert len(told[1].error) < 200, "without the text that was too long"


def too_few(batch: wire.SubCallsAsked) -> Message:
    return wire.SubCallsAnswered(batch=batch.batch, results=(wire.SubCallResult(text="1"),))


def too_many(batch: wire.SubCallsAsked) -> Message:
    return wire.SubCallsAnswered(batch=batch.batch, results=(wire.SubCallResult(text="x"),) * 3)


def something_else(_batch: wire.SubCallsAsked) -> Message:
    return RoundTrip()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (too_few, "1 results for 2 sub-calls"),
        (too_many, "3 results for 2 sub-calls"),
        (something_else, "membership/round-trip while a cell runs"),
    ],
)
async def test_an_asker_that_breaks_the_rules_is_told_so_and_loses_the_session(
    virtual_time: JumpingClock, tmp_path: Path, answers: Answers, words: str
) -> None:
    async with open_desk(tmp_path) as desk:
        told = await failure(desk.run(asked("ask-many 2 q"), answers))
        assert told == f"bad_request: {words}"
        assert desk.host.slots_free == desk.host.slots
        assert (await desk.run(asked("ask-many 2 q"))).status == "ok", "and may begin anew"


async def test_answers_that_nobody_waits_for_are_ignored(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        cell = asked("ask q\nwait 1\nsay on")
        async with desk.two.asking.asker.converse(desk.two.room.peer, PROTOCOL, cell) as talk:
            batch = await talk.receive()
            assert isinstance(batch, wire.SubCallsAsked)
            await talk.send(wire.SubCallsAnswered(batch=batch.batch + 7, results=()))
            await talk.send(echoed(batch))
            await trio.sleep(0.5)
            await talk.send(echoed(batch))
            while not isinstance(done := await talk.receive(), wire.CellDone):
                pass
        assert done.stdout == "<q>\non\n"


# --- inputs -------------------------------------------------------------------------------------


async def test_an_input_is_fetched_once_and_seen_by_its_name(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    def script(_code: str, state: ScriptedState) -> ScriptedCell:
        seen = {name: path.read_bytes() for name, path in state.inputs.items()}
        return ScriptedCell(CellOutcome("ok", value=repr(seen)))

    async with open_desk(tmp_path, script=script) as desk:
        content = await desk.two.asking.store.put(b"some context")
        inputs = (
            wire.Input(name="context.txt", content=content),
            wire.Input(name="again.txt", content=content),
        )
        for cell, after in ((0, ()), (1, (0,))):
            done = await desk.run(asked("read", cell=cell, after=after, inputs=inputs))
            assert done.value == repr(
                {"context.txt": b"some context", "again.txt": b"some context"}
            )
        await desk.run(asked("read", task="another", inputs=inputs))
        assert len(desk.two.asking.content_asked) == 1


async def test_an_input_that_nobody_holds_fails_the_cell_and_leaves_nothing(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        gone = ContentRef(
            hash=ContentHash("0" * 64), bytes_total=10, holders=(desk.two.asking.peer,)
        )
        inputs = (wire.Input(name="context.txt", content=gone),)
        told = await failure(desk.run(asked("say x", inputs=inputs)))
        assert told.startswith("content: input context.txt: content 000000000000: ")
        assert desk.begun == []
        assert desk.room.occupancy.queued == 0
        assert desk.room._locks == {}


async def test_what_is_no_request_to_a_repl_room_is_a_bad_request(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:

        async def ask() -> None:
            await desk.two.asking.asker.request(
                desk.two.room.peer, PROTOCOL, RoundTrip(), RoundTrip, timeout_s=5
            )

        assert (await failure(ask())).startswith("bad_request: ")


async def test_the_asker_is_told_before_a_used_up_session_is_swept_away(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    """Killing processes and removing files takes a moment that nobody need wait for."""
    async with open_desk(tmp_path) as desk:
        await desk.run(asked("say x", keeps_session=False))
        assert desk.host.slots_free == desk.host.slots, "its place is free at once"
