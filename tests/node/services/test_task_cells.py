"""The cells of one task, on workers that die, fill up and forget."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.node.backends.seam import CompletionRequest
from kowalski.node.services import coordinator
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.journal import (
    CellDiverged,
    CellFailed,
    CellFinished,
    CellStarted,
    Opened,
    SessionEvent,
)
from kowalski.protocol.messages.repl import Variable
from kowalski.protocol.messages.task import (
    Entry,
    EntryOffered,
    Grant,
    Prefix,
    PrefixAsked,
    Progress,
    TaskSpec,
)
from kowalski.rlm.journal import GENESIS, digest, entry_of, event_of
from simulations.checkers.terms import Leases
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks, heard
from tests.node.services.test_grouped_questions import answered_calls

pytestmark = pytest.mark.trio


def events(world: World, task: TaskId) -> list[SessionEvent]:
    return [event_of(entry) for entry in world[0].submitter.entries(task)]


async def answer(world: World, task: TaskId) -> str:
    result = await world.result(0, task)
    assert result.state == "answered"
    assert result.answer is not None
    return result.answer.answer


def worker_of(world: World, task: TaskId) -> int:
    """Who began the latest cell."""
    started = [event for event in events(world, task) if isinstance(event, CellStarted)]
    return world.number_of(started[-1].peer)


# --- a worker that is lost ----------------------------------------------------------------------


async def test_a_cell_whose_worker_dies_is_run_elsewhere_on_the_same_variables(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER, THINKER]) as world:
        prompt = blocks("keep x 41\nask one", "ask-many 3 two", "wait 10\nask three\nshow x")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.until(lambda: len(world.cells) == 3)
        await trio.sleep(2)
        victim = worker_of(world, task)
        await world.kill(victim)
        text = await answer(world, task)
        assert "x is 41" in text
        assert "reply to: three" in text
        assert sorted(world.calls) == ["one", "three", "two 0", "two 1", "two 2"], (
            "the model is not asked again for what the journal knows"
        )
        survivor = 5 - victim
        assert world.places[survivor].cells == [
            "keep x 41\nask one\n",
            "ask-many 3 two\n",
            "wait 10\nask three\nshow x\n",
        ]
        assert (await world.result(0, task)).term == 1


async def test_worker_after_worker_dies_and_the_last_one_finishes(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER, WORKER]) as world:
        task = world.submit(0, blocks("keep x 1", "wait 10\nshow x"), mode="blocks")
        for began in (2, 4):
            await world.until(lambda began=began: len(world.cells) == began)  # type: ignore[misc]
            await trio.sleep(1)
            await world.kill(worker_of(world, task))
        assert "x is 1" in await answer(world, task)
        assert len(world.cells) == 6


async def test_a_cell_waits_for_its_only_worker_to_come_back(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks("keep x 1", "wait 10\nshow x"), mode="blocks")
        await world.until(lambda: len(world.cells) == 2)
        await world.kill(2)
        await trio.sleep(10)
        await world.start(2)
        assert "x is 1" in await answer(world, task)
        assert world.cells == ["keep x 1\n", "wait 10\nshow x\n"] * 2
        assert (await world.result(0, task)).term == 1


async def test_without_any_worker_left_the_cell_fails_and_says_who_failed(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, block("wait 10"), mode="blocks")
        await world.until(lambda: len(world.cells) == 1)
        await world.kill(2)
        result = await world.result(0, task)
        assert result.state == "failed"
        assert result.answer is not None
        assert result.answer.detail.startswith("peers_failed: ")
        assert "node-2: " in result.answer.detail


async def test_the_other_language_stays_where_it_is(virtual_time: JumpingClock) -> None:
    python = dataclasses.replace(WORKER, languages={"python": "3.11"})
    bash = dataclasses.replace(WORKER, languages={"bash": "5.2"})
    async with open_world([ASKER, LEADER, python, python, bash]) as world:
        prompt = (
            block("keep x 1")
            + block("keep y 2", "bash")
            + block("wait 5\nshow x")
            + block("wait 8\nshow y", "bash")
        )
        task = world.submit(0, prompt, mode="blocks")
        await world.until(lambda: len(world.cells) == 4)
        victim = 2 if world.places[2].cells else 3
        await world.kill(victim)
        text = await answer(world, task)
        assert "x is 1" in text
        assert "y is 2" in text
        assert len(world.places[4].cells) == 2, "bash was not run again"


async def test_the_only_peer_with_a_later_cells_language_may_be_silent_for_a_moment(
    virtual_time: JumpingClock,
) -> None:
    def tells(request: CompletionRequest) -> str:
        said = request.messages[-1].content
        return block("answer second", "bash") if "first" in said else block("wait 4\nsay first")

    python = dataclasses.replace(WORKER, languages={"python": "3.11"})
    bash = dataclasses.replace(WORKER, languages={"bash": "5.2"})
    model = dataclasses.replace(THINKER, tells=tells)
    async with open_world([ASKER, LEADER, python, bash, model]) as world:
        silent, leader = world.wires.storm.silent, world.peer(1)
        pairs = [(leader, world.peer(3)), (world.peer(3), leader)]
        task = world.submit(0, "go on", mode="rlm")
        await world.until(lambda: len(world.cells) == 1)
        silent.update(dict.fromkeys(pairs, 1))
        await world.until(lambda: not world[1].mesh.is_routable(world.peer(3)))
        await world.until(lambda: len(world.calls) == 2)
        await trio.sleep(0.5)
        assert len(world.cells) == 1, "it waits"
        for pair in pairs:
            del silent[pair]
            world.network.release(*pair)
        assert await answer(world, task) == "second"
        assert not any(isinstance(event, CellFailed) for event in events(world, task))


async def test_a_move_and_what_is_run_again_for_it_are_told(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER]) as world:
        kinds: list[str] = []
        with world[0].submitter.watch(TaskId("task")) as seen:
            task = world.submit(0, blocks("keep x 41", "wait 10\nshow x"), mode="blocks")
            await world.until(lambda: len(world.cells) == 2)
            await world.kill(worker_of(world, task))
            async for one in seen:
                if one.progress is not None:
                    kinds.append(one.progress.kind)
                if one.task.is_over:
                    break
        assert "moved" in kinds
        assert "replayed" in kinds
        assert "diverged" not in kinds


async def test_variables_that_come_out_otherwise_when_run_again_are_told(
    virtual_time: JumpingClock,
) -> None:
    """A journal whose first cell left something behind that it does not leave this time."""
    clocks: list[tuple[int, ...]] = []
    async with open_world([ASKER, LEADER, WORKER]) as world:
        name, worker = TaskId("by-hand"), world.peer(2)
        world.places[2].on_cell.append(lambda _code, state: clocks.append(state.clock))
        happened: list[SessionEvent] = [
            Opened(mode="blocks"),
            CellStarted(cell=0, language="python", code="keep x 41\n", peer=worker),
            CellFinished(
                cell=0,
                peer=worker,
                status="ok",
                output="",
                variables_digest="of another day",
                variables=(Variable(name="now", digest="0" * 8),),
                clock=(1_500_000, 2_000_000),
            ),
        ]
        prefix: list[Entry] = []
        last = GENESIS
        for event in happened:
            prefix.append(entry_of(1, len(prefix), last, event))
            last = digest(name, prefix[-1])
        spec = TaskSpec(
            prompt=blocks("keep x 41", "show x"), mode="blocks", max_iterations=5, timeout_s=60.0
        )
        grant = Grant(
            task=name,
            term=2,
            spec=spec,
            prefix_entries=len(prefix),
            last_digest=last,
            lease_s=3.0,
            remaining_s=60.0,
        )
        async with world[0].mesh.converse(world.peer(1), coordinator.PROTOCOL, grant) as talk:
            await heard(talk, PrefixAsked)
            await talk.send(Prefix(task=name, start=0, entries=tuple(prefix)))
            while (await heard(talk, Progress)).kind != "replayed":
                pass
            told: list[SessionEvent] = []
            while not told or not isinstance(told[-1], CellFinished):  # the task goes on
                told.append(event_of((await heard(talk, EntryOffered)).entry))
            diverged = CellDiverged(cell=0, language="python", peer=worker, names=("now",))
            assert diverged in told
            assert clocks == [(1_500_000, 2_000_000), ()], "time is told again to what runs again"


# --- workers that are full or forget ------------------------------------------------------------


async def test_two_tasks_share_one_slot_and_both_keep_their_variables(
    virtual_time: JumpingClock,
) -> None:
    single = dataclasses.replace(WORKER, slots=1)
    async with open_world([ASKER, LEADER, single, THINKER]) as world:
        tasks = [
            world.submit(
                0,
                blocks(f"keep x {n}\nask {n}", "wait 2", "wait 2\nshow x"),
                mode="blocks",
                model="none",
                task=f"t{n}",
            )
            for n in range(3)
        ]
        for n, task in enumerate(tasks):
            assert f"x is {n}" in await answer(world, task)
        assert sorted(world.calls) == ["0", "1", "2"]


async def test_a_full_worker_is_asked_again_until_it_has_room(virtual_time: JumpingClock) -> None:
    single = dataclasses.replace(WORKER, slots=1)
    async with open_world([ASKER, LEADER, single]) as world:
        first = world.submit(0, block("wait 60"), mode="blocks", task="a", cell_timeout_s=90.0)
        await world.until(lambda: len(world.cells) == 1)
        second = world.submit(0, block("say in turn"), mode="blocks", task="b")
        await trio.sleep(30)
        assert not world[0].submitter.find(second).is_over
        assert "in turn" in await answer(world, second)
        assert (await world.result(0, first)).state == "answered"
        began = [event for event in events(world, second) if isinstance(event, CellStarted)]
        assert len(began) == 1, "asking again one that was busy starts nothing new"


async def test_a_full_worker_is_passed_over_for_one_with_room(virtual_time: JumpingClock) -> None:
    single = dataclasses.replace(WORKER, slots=1)
    async with open_world([ASKER, LEADER, single, single]) as world:
        tasks = [
            world.submit(0, block("wait 20\nsay done"), mode="blocks", task=f"t{n}")
            for n in range(2)
        ]
        began = trio.current_time()
        for task in tasks:
            await answer(world, task)
        assert trio.current_time() - began < 21
        assert [len(world.places[n].cells) for n in (2, 3)] == [1, 1]


@pytest.mark.parametrize("leaders", [1, 3])
@pytest.mark.parametrize("workers", [3, 4, 8])
async def test_as_many_tasks_at_once_as_there_are_idle_workers_wait_for_nobody(
    virtual_time: JumpingClock, workers: int, leaders: int
) -> None:
    single = dataclasses.replace(WORKER, slots=1)
    async with open_world([ASKER, *[LEADER] * leaders, *[single] * workers]) as world:
        began = trio.current_time()
        tasks = [
            world.submit(0, block("wait 20\nsay done"), mode="blocks", task=f"t{n}")
            for n in range(workers)
        ]
        for task in tasks:
            await answer(world, task)
        assert trio.current_time() - began < 22


async def test_a_session_that_died_begins_anew_and_says_so(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, blocks("keep x 1", "die", "show x", "say on"), mode="blocks")
        text = await answer(world, task)
        assert "the session began anew" in text
        assert "x is 1" in text, "what the dead cell did is gone, what came before it is not"
        assert "```output\non\n```" in text
        finished = [event for event in events(world, task) if isinstance(event, CellFinished)]
        assert [event.status for event in finished] == ["ok", "died", "ok", "ok"]


# --- cells that go wrong by themselves ----------------------------------------------------------


async def test_a_cell_that_fails_is_an_outcome_and_not_moved(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER]) as world:
        task = world.submit(0, blocks("say before\nfail ValueError: no", "say on"), mode="blocks")
        text = await answer(world, task)
        assert "ValueError: no" in text
        assert "ended with an error" in text
        assert len(world.cells) == 2


async def test_a_cell_that_takes_too_long_is_stopped_and_the_next_one_runs(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER]) as world:
        before = trio.current_time()
        prompt = blocks("keep x 1", "wait 500", "show x")
        task = world.submit(0, prompt, mode="blocks", cell_timeout_s=5.0)
        text = await answer(world, task)
        assert "stopped: it took too long" in text
        assert "x is 1" in text
        assert trio.current_time() - before < 7
        assert len(world.cells) == 3


async def test_a_language_that_nobody_has_is_said_and_the_other_blocks_run(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        prompt = block("fn main() {}", "rust") + block("say here")
        task = world.submit(0, prompt, mode="blocks")
        text = await answer(world, task)
        assert "```output\nhere\n```" in text
        assert "not run: no peer runs rust" in text
        failed = [event for event in events(world, task) if isinstance(event, CellFailed)]
        assert [event.code for event in failed] == ["unsupported"]


async def test_long_output_is_cut_in_the_answer_and_whole_by_its_hash(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        task = world.submit(0, block("flood 200000"), mode="blocks")
        text = await answer(world, task)
        assert len(text) < 9000
        assert "characters left out" in text
        (cell,) = (event for event in events(world, task) if isinstance(event, CellFinished))
        assert cell.output_bytes == 200_001
        assert cell.full is not None
        await world[0].store.fetch(cell.full, world[0].mesh)
        assert len(await world[0].store.read(cell.full)) == 200_001


async def test_sub_calls_are_numbered_as_they_came_whatever_order_they_are_answered_in(
    virtual_time: JumpingClock,
) -> None:
    slow = dataclasses.replace(THINKER, delay_per_token_s=0.3)
    async with open_world([ASKER, LEADER, WORKER, slow, THINKER]) as world:
        prompt = block("ask-many 30 q")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await answer(world, task)
        answered = {one.ordinal: one.text for one in answered_calls(world, task)}
        assert answered == {n: f"reply to: q {n}" for n in range(30)}


# --- what the task says of its losses -----------------------------------------------------------


def cell_failures(world: World, task: TaskId) -> list[tuple[int, str]]:
    return [(one.cell, one.code) for one in events(world, task) if isinstance(one, CellFailed)]


async def test_a_task_that_may_not_fail_over_loses_its_cell_with_its_worker(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER]) as world:
        prompt = blocks("say one", "wait 10\nsay two")
        task = world.submit(0, prompt, mode="blocks", failover="fail")
        await world.until(lambda: len(world.cells) == 2)
        await trio.sleep(1)
        await world.kill(worker_of(world, task))
        await world.result(0, task)
        assert cell_failures(world, task) == [(1, "device_failed")]
        assert len(world.cells) == 2


async def test_a_task_that_queues_waits_for_a_worker_and_goes_on_with_it(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        prompt = blocks("keep x 41", "wait 10\nshow x")
        task = world.submit(0, prompt, mode="blocks", failover="queue")
        await world.until(lambda: len(world.cells) == 2)
        await trio.sleep(1)
        await world.kill(2)
        await trio.sleep(30)
        assert not world[0].submitter.find(task).is_over
        await world.start(2)
        assert "x is 41" in await answer(world, task)


async def test_what_may_happen_once_ends_unknown_when_its_worker_is_lost(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER]) as world:
        prompt = blocks("say one", "wait 10\nsay two", "say three")
        task = world.submit(0, prompt, mode="blocks", side_effects="at_most_once")
        await world.until(lambda: len(world.cells) == 2)
        await trio.sleep(1)
        await world.kill(worker_of(world, task))
        result = await world.result(0, task)
        assert cell_failures(world, task)[0] == (1, "unknown")
        assert result.answer is not None
        assert world.cells.count("say one\n") == 1, "nor is what was before it run again"
        assert world.cells.count("wait 10\nsay two\n") == 1


# --- what is joined -----------------------------------------------------------------------------


async def test_a_conversation_that_breaks_while_a_cell_runs_costs_nothing(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER, WORKER, THINKER]) as world:
        prompt = blocks("keep x 41", "wait 10\nask one\nshow x")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.until(lambda: len(world.cells) == 2)
        await trio.sleep(3)
        for stream in world.transport(1).streams(
            world.places[worker_of(world, task)].identity.peer
        ):
            await stream.reset()
        assert "x is 41" in await answer(world, task)
        assert len(world.cells) == 2
        assert world.calls == ["one"]


async def test_a_cell_that_runs_when_its_coordinator_dies_is_joined_by_the_next(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER, WORKER, THINKER]) as world:
        prompt = blocks("keep x 41", "wait 10\nask one\nshow x")
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.until(lambda: len(world.cells) == 2)
        await trio.sleep(3)
        await world.kill(world.number_of(world[0].submitter.find(task).coordinator))
        assert "x is 41" in await answer(world, task)
        assert len(world.cells) == 2, "each cell ran once"
        assert world.calls == ["one"]
        started = [event.cell for event in events(world, task) if isinstance(event, CellStarted)]
        assert started == [0, 1]


# --- a coordinator that is lost -----------------------------------------------------------------


async def test_the_next_coordinator_finds_the_session_where_it_was(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, WORKER, WORKER, THINKER]) as world:
        prompt = blocks("keep x 41", "keep y 2", "ask slowly", "show x\nshow y")
        world.places[5].backend.delay_per_token_s = 2.0
        task = world.submit(0, prompt, mode="blocks", model="none")
        await world.until(lambda: len(world.cells) == 3)
        leader = world.number_of(world[0].submitter.find(task).coordinator)
        before = worker_of(world, task)
        await world.kill(leader)
        assert "x is 41" in await answer(world, task)
        assert worker_of(world, task) == before
        ran = [number for number in (3, 4) if world.places[number].cells]
        assert ran == [before], "no other worker had to begin anew"


# --- a lease that ends --------------------------------------------------------------------------


async def test_a_cell_whose_stream_takes_longer_to_open_than_the_lease_lasts_waits_for_another(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, WORKER]) as world:
        world.witness.engage(Leases(world.witness))
        storm, (asker, leader, worker) = world.wires.storm, map(world.peer, range(3))
        storm.slow_s[(leader, worker)] = storm.slow_s[(worker, leader)] = 2.2
        # Whoever is silent for so long may be taken for lost; then the cell waits for it.
        task = world.submit(0, block("say x"), mode="blocks", failover="queue")
        await world.until(lambda: bool(world[0].submitter.entries(task)))
        storm.silent[(asker, leader)] = storm.silent[(leader, asker)] = 1
        await trio.sleep(6)
        assert not world.cells, "it was sent in a term that nobody vouches for any more"
        assert not world[1].work.placing.dispatch.under_way, "it is not on its way while it waits"
        storm.silent.clear()
        storm.slow_s.clear()
        world.network.release(asker, leader)
        world.network.release(leader, asker)
        assert "x" in await answer(world, task)
        assert not world.witness.violations
        assert world.witness.evaluated["lease_stop"] >= 1
