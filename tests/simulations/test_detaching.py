"""Tasks that are handed over to three: they end once, and all keepers say how."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from kowalski.protocol.messages.task import TaskSpec
from simulations import plan
from simulations.checkers.keepers import Keepers
from simulations.detaching import Handovers
from simulations.plan import Ask
from simulations.scenarios import load
from simulations.story import tell
from simulations.virtual_time import JumpingClock
from simulations.witness import Witness
from simulations.world import Part, World, open_world, spec_of
from tests.simulations.looking import broken

PARTS = [Part(models=("m",)) for _ in range(4)]
ASK = Ask(
    "submit", 0.0, 0, "task", "hello", "direct", wanted=("reply to: hello",), is_detached=True
)
SPEC = spec_of("hello", mode="direct")
SLOW = spec_of("```python\nwait 30\n```", mode="blocks")


@asynccontextmanager
async def handing_over(parts: list[Part]) -> AsyncIterator[tuple[World, Handovers]]:
    witness = Witness()
    witness.engage(keepers := Keepers(witness))
    async with open_world(parts, witness=witness) as world:
        yield world, Handovers(world, keepers)


@pytest.mark.trio
async def test_a_task_is_taken_ends_and_all_three_say_the_same(virtual_time: JumpingClock) -> None:
    async with handing_over(PARTS) as (world, handovers):
        assert await handovers.submit(ASK, 0, SPEC)
        assert len(handovers.unfinished(set())) == 3
        await world.until(lambda: not handovers.unfinished(set()))
        (known,) = handovers.ended()
        assert known.end is not None
        assert known.end.state == "answered"
        assert handovers.whole() == [ASK]
        assert world.witness.evaluated["keepers_agree"] >= 3
        assert broken(world.witness) == []


@pytest.mark.trio
async def test_a_keeper_that_says_something_else_is_seen(virtual_time: JumpingClock) -> None:
    async with handing_over(PARTS) as (world, handovers):
        await handovers.submit(ASK, 0, SPEC)
        await world.until(lambda: not handovers.unfinished(set()))
        (known,) = handovers.ended()
        assert known.end is not None
        known.end = replace(known.end, state="failed")
        handovers.look()
        assert "keepers_agree" in broken(world.witness)


@pytest.mark.trio
async def test_where_there_are_not_three_it_is_not_handed_over(virtual_time: JumpingClock) -> None:
    async with handing_over(PARTS[:2]) as (_, handovers):
        assert await handovers.submit(ASK, 0, SPEC) is None


@pytest.mark.trio
async def test_whoever_dies_as_it_hands_over_may_have_done_so(virtual_time: JumpingClock) -> None:
    async with handing_over(PARTS) as (world, handovers):
        for number in (1, 2, 3):
            world.wires.storm.silent[world.peer(0), world.peer(number)] += 1
        done: list[bool | None] = []

        async def submit() -> None:
            done.append(await handovers.submit(ASK, 0, SPEC))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            await trio.sleep(1)
            await world.kill(0)
        assert done == [True]
        assert handovers.ended() == []
        assert handovers.unfinished(set()) == []


@pytest.mark.trio
async def test_a_full_disk_takes_nothing(virtual_time: JumpingClock) -> None:
    async with handing_over(PARTS) as (world, handovers):
        world.places[0].disk.is_full += 1
        assert await handovers.submit(ASK, 0, SPEC) is False


@pytest.mark.trio
@pytest.mark.parametrize(("kind", "spec"), [("again", SLOW), ("conflict", SPEC)])
async def test_the_same_again_is_the_same_task_and_something_else_a_conflict(
    kind: plan.AskKind, spec: TaskSpec, virtual_time: JumpingClock
) -> None:
    async with handing_over(PARTS) as (world, handovers):
        await handovers.submit(ASK, 0, SLOW)
        known = handovers.tasks["task"]
        await handovers.think_again(Ask(kind, 0.0, 0, "task"), known, spec)
        assert world.witness.evaluated["id_idempotent"] == 1
        assert broken(world.witness) == []
        wrong: plan.AskKind = "conflict" if kind == "again" else "again"
        await handovers.think_again(Ask(wrong, 0.0, 0, "task"), known, spec)
        assert broken(world.witness) == ["id_idempotent"]


@pytest.mark.trio
async def test_one_that_is_to_end_ends(virtual_time: JumpingClock) -> None:
    async with handing_over(PARTS) as (world, handovers):
        await handovers.submit(ASK, 0, SLOW)
        known = handovers.tasks["task"]
        await handovers.think_again(Ask("cancel", 0.0, 0, "task"), known, SLOW)
        await world.until(lambda: not handovers.unfinished(set()))
        assert known.end is not None
        assert known.end.state == "cancelled"


def test_a_story_of_such_tasks_keeps_its_promises_and_looks_at_them() -> None:
    report = tell(plan.draw(load("detached"), 2))
    assert report.violation is None
    assert report.ends["answered"] > 2
    for promise in ("keepers_agree", "two_hold_what_counts", "vote_is_saved_first"):
        assert report.evaluated[promise] > 0
