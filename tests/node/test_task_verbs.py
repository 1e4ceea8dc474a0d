"""The verbs about tasks, asked of whole nodes under virtual time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trio

from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from kowalski.protocol.errors import ConfigError, RequestRefusedError
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.task import RetryPolicy
from simulations.toy_cells import toy_script
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER, THINKER, WORKER, block, blocks
from tests.node.test_verbs import ALL, Emitted, Reply, ask, refusal

pytestmark = pytest.mark.trio


async def test_tasks_are_listed_and_one_is_shown_with_what_ran_where(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        for name in ("a", "b", "c"):
            task = world.submit(0, block("say hi"), mode="blocks", task=name)
            await world.result(0, task)
        rows = (await ask(world, "tasks", limit=2))["tasks"]
        assert isinstance(rows, list)
        assert [row["task"] for row in rows] == ["c", "b"]
        shown = await ask(world, "task", task="a")
        assert (shown["state"], shown["exit_code"]) == ("answered", 0)
        ran = shown["ran"]
        assert isinstance(ran, list)
        assert [(row["what"], row["name"]) for row in ran] == [
            ("cell 0 (python)", "node-2"),
            ("call 0 (m)", "node-3"),
        ]


async def test_submit_shows_the_task_as_it_goes_and_returns_its_result(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        emit = Emitted()
        prompt = blocks("say one", "wait 5\nsay two")
        result = await ask(world, "submit", emit, prompt=prompt, mode="blocks", task_id="t")
        assert (result["state"], result["exit_code"], result["term"]) == ("answered", 0, 1)
        assert "two" in str(result["answer"])
        assert emit.events[0] == {"kind": "submitted", "task": "t", "mode": "blocks"}
        assert [event["name"] for event in emit.of("coordinator")] == ["node-1"]
        assert [event["status"] for event in emit.of("cell")] == [
            "started",
            "done",
            "started",
            "done",
        ]
        assert "".join(str(event["text"]) for event in emit.of("output")) == "one\ntwo\n"
        stats = result["stats"]
        assert isinstance(stats, dict)
        assert (stats["cells"], stats["calls"]) == (2, 1)


async def test_submit_without_following_returns_at_once_and_a_later_one_follows(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        request = {"prompt": block("wait 20\nsay hi"), "mode": "blocks", "task_id": "t"}
        before = trio.current_time()
        detached = await ask(world, "submit", follow=False, **request)
        assert detached == {"task": "t", "state": "running"}
        assert trio.current_time() == before
        result = await ask(world, "submit", **request)
        assert result["state"] == "answered"
        assert len(world.cells) == 1
        again = await ask(world, "submit", **request)
        assert again == result, "who asks after the end is told the same"


async def test_hanging_up_leaves_the_task_going(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        with trio.move_on_after(1):
            await ask(world, "submit", prompt=block("wait 5"), mode="blocks", task_id="t")
        assert (await ask(world, "task", task="t"))["state"] == "running"
        await trio.sleep(10)
        assert (await ask(world, "task", task="t"))["state"] == "answered"


async def test_an_asker_that_reads_slower_than_things_happen_is_told_the_end(
    virtual_time: JumpingClock,
) -> None:
    calls = 1100

    class Slow(Emitted):
        """Reads nothing until all calls are made."""

        async def __call__(self, event: Reply) -> None:
            if not self.events:
                await world.until(lambda: len(world.calls) == calls)
                await trio.sleep(1.0)
            await super().__call__(event)

    fast = dataclasses.replace(THINKER, model_slots=64)
    async with open_world([ASKER, LEADER, WORKER, fast]) as world:
        emit = Slow()
        result = await ask(
            world,
            "submit",
            emit,
            prompt=block(f"ask-many {calls} q\nwait 25\nsay done"),
            mode="blocks",
            model="none",
        )
        stats = result["stats"]
        assert isinstance(stats, dict)
        assert (result["state"], stats["calls"]) == ("answered", calls)
        told = sum(int(str(event.get("count", 1))) for event in emit.of("call"))
        assert told == calls, "every entry is told, however late"


async def test_a_task_that_nobody_can_do_ends_with_the_code_for_that(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER]) as world:
        result = await ask(world, "submit", prompt="what is it?", mode="direct")
        assert (result["state"], result["exit_code"]) == ("failed", 5)
        assert str(result["reason"]).startswith("no_model: ")


async def test_context_files_reach_the_cells(virtual_time: JumpingClock, tmp_path: Path) -> None:
    names: list[tuple[str, ...]] = []

    def looks(code: str, state: ScriptedState) -> ScriptedCell:
        names.append(tuple(sorted(state.inputs)))
        return toy_script(code, state)

    path = tmp_path / "notes.txt"
    path.write_bytes(b"n" * 700_000)
    worker = dataclasses.replace(WORKER, script=looks)
    async with open_world([ASKER, LEADER, worker]) as world:
        result = await ask(
            world,
            "submit",
            prompt=block("say hi"),
            mode="blocks",
            context=[{"name": "notes.txt", "path": str(path)}],
        )
        assert result["state"] == "answered"
        assert names == [("notes.txt",)]


async def test_cancel_returns_what_there_is_of_an_answer(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        prompt = blocks("say first", "wait 500")
        world.submit(0, prompt, mode="blocks", task="t")
        await world.until(lambda: len(world.cells) == 2)
        cancelled = await ask(world, "cancel", task="t")
        assert cancelled["state"] == "cancelled"
        assert "first" in str(cancelled["answer"])
        assert (await ask(world, "cancel", task="t")) == cancelled


async def test_a_task_id_stands_for_one_task(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        request: Reply = {"prompt": block("say hi"), "mode": "blocks", "task_id": "t"}
        await ask(world, "submit", **request)
        for other in ({"prompt": "something else"}, {"max_iterations": 9}, {"timeout_s": 5.0}):
            reply = await refusal(world, "submit", **{**request, **other})
            assert reply["code"] == "conflict"
        assert len(world[0].submitter.tasks) == 1
        first = await ask(world, "submit", follow=False, prompt="x", mode="direct")
        second = await ask(world, "submit", follow=False, prompt="x", mode="direct")
        assert first["task"] != second["task"], "who names none gets one each time"


async def test_an_answer_that_goes_by_its_hash_is_shown_whole_or_says_what_is_missing(
    virtual_time: JumpingClock,
) -> None:
    letter = "\N{CJK UNIFIED IDEOGRAPH-6F22}"
    big = dataclasses.replace(THINKER, tells=lambda _asked: block(f"answer-big 90000 {letter}"))
    async with open_world([ASKER, LEADER, WORKER, big]) as world:
        task = world.submit(0, "write much", mode="rlm", task="t")
        await world.result(0, task)
        await world.kill(1)
        lost = await ask(world, "task", task="t")
        assert str(lost["answer"]).startswith(letter * 10)
        assert "[the rest cannot be had: " in str(lost["answer"])
        await world.start(1)
        await world.meet()
        assert (await ask(world, "task", task="t"))["answer"] == letter * 90_000
        await world.kill(1)
        assert (await ask(world, "task", task="t"))["answer"] == letter * 90_000


# --- from any peer ------------------------------------------------------------------------------


async def ask_at(
    world: World, number: int, verb: str, emit: Emitted | None = None, **request: object
) -> Reply:
    return await world.verbs(number)[verb](dict(request), emit or Emitted())


async def test_a_task_is_listed_shown_and_traced_from_a_peer_that_has_nothing_to_do_with_it(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(ALL) as world:
        task = world.submit(0, blocks("say one", "wait 3\nsay two"), mode="blocks")
        await trio.sleep(2)
        reply = await ask_at(world, 2, "tasks")
        (row,) = reply["tasks"]  # type: ignore[misc]
        assert (row["task"], row["state"], row["submitter_name"]) == (task, "running", "node-0")
        await world.result(0, task)
        shown = await ask_at(world, 2, "task", task=task)
        assert shown["state"] == "answered"
        assert shown == await ask_at(world, 0, "task", task=f"{task}@node-0")
        traced = await ask_at(world, 2, "trace", task=task)
        assert traced == await ask_at(world, 0, "trace", task=task)
        kinds = [entry["kind"] for entry in traced["journal"]]  # type: ignore[attr-defined]
        assert kinds[0] == "journal/opened"
        assert kinds[-1] == "journal/closed"
        assert traced["ledger"]


async def test_attach_tells_what_submit_would_have_told(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world, trio.open_nursery() as nursery:
        submitted, attached = Emitted(), Emitted()
        prompt = blocks("say one", "wait 3\nsay two", "ask three")
        results: list[Reply] = []

        async def submit() -> None:
            results.append(
                await ask_at(
                    world, 0, "submit", submitted, prompt=prompt, mode="blocks", task_id="t"
                )
            )

        async def attach() -> None:
            results.append(await ask_at(world, 2, "attach", attached, task="t"))

        nursery.start_soon(submit)
        await trio.sleep(1)
        nursery.start_soon(attach)
        await world.until(lambda: len(results) == 2)
        assert results[0] == results[1]
        for kind in ("cell", "call", "note"):
            assert attached.of(kind) == submitted.of(kind)


async def test_cancel_and_resume_work_from_any_peer(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        world.submit(0, blocks("say one", "wait 25\nsay two"), mode="blocks", task="t")
        await world.until(lambda: len(world.cells) == 2)
        ended = await ask_at(world, 2, "cancel", task="t")
        assert ended["state"] == "cancelled"
        assert "one" in str(ended["answer"])
        resumed = await ask_at(world, 2, "resume", task="t", timeout_s=500.0)
        assert resumed == {"task": "t-r2", "resumes": "t", "is_new": True}
        followed = await ask_at(world, 2, "attach", task="t-r2")
        assert followed["state"] == "answered"
        told = await refusal(world, "resume", task="t-r2")
        assert (told["code"], told["exit_code"]) == ("conflict", 1)


async def test_a_name_that_two_submitters_use_asks_for_whose(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, ASKER, LEADER, WORKER]) as world:
        for number in (0, 1):
            world.submit(number, block(f"say for {number}"), mode="blocks")
        with pytest.raises(RequestRefusedError, match="say task@node-0"):
            await ask_at(world, 3, "task", task="task")
        await world.result(1, TaskId("task"))
        shown = await ask_at(world, 3, "task", task="task@node-1")
        assert "for 1" in str(shown["answer"])
        with pytest.raises(ConfigError, match="no peer is called nobody"):
            await ask_at(world, 3, "task", task="task@nobody")


async def test_what_a_task_says_of_its_losses_is_in_its_spec(virtual_time: JumpingClock) -> None:
    async with open_world(ALL) as world:
        await ask(
            world,
            "submit",
            prompt=block("say one"),
            mode="blocks",
            task_id="t",
            priority="batch",
            failover="queue",
            retries_max=3,
            retry_delay_s=1.5,
            retry_is_exponential=False,
            submitter_gone="abort",
            side_effects="at_most_once",
        )
        spec = world[0].submitter.find(TaskId("t")).spec
        assert (spec.priority, spec.failover, spec.submitter_gone, spec.side_effects) == (
            "batch",
            "queue",
            "abort",
            "at_most_once",
        )
        assert spec.retry == RetryPolicy(retries_max=3, delay_s=1.5, is_exponential=False)
