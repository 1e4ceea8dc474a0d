"""A node that pauses and stands by, in a mesh: what others see, and what it still does itself."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from kowalski.mesh.core.placement import Need
from kowalski.node.core.availability import Availability, parse_hours
from kowalski.node.services.availability import Watched, keep_availability, local_minute
from kowalski.node.services.gate import Gate, Resources
from kowalski.protocol.errors import RequestRefusedError
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.node.services.prompts import ASKER, WORKER
from tests.node.services.rooms import PatientClock, until
from tests.node.services.test_placed_work import program

pytestmark = pytest.mark.trio

PYTHON = Need("code", language="python")
SPARE = dataclasses.replace(WORKER, settings={"standby": True})
QUIET = Part(settings={"quiet_hours": "00:00-23:59"})


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


def taking(world: World) -> set[int]:
    return {world.number_of(choice.peer) for choice in world[0].mesh.rank(PYTHON).choices}


async def run(world: World, code: str) -> None:
    await world[0].work.run_alone(
        program(code, remaining_s=600.0, timeout_s=600.0),
        on_output=lambda _stream, _data: None,
        on_restart=lambda _why: None,
    )


async def test_a_standby_wakes_when_the_others_are_full_and_rests_when_they_are_not(
    virtual_time: JumpingClock,
) -> None:
    single = dataclasses.replace(WORKER, slots=1)
    async with open_world([ASKER, single, SPARE]) as world, trio.open_nursery() as nursery:
        assert taking(world) == {1}
        (no,) = [no for no in world[0].mesh.rank(PYTHON).rejections if no.name == "node-2"]
        assert no.why == "takes no work now: standby"
        for number in range(3):
            nursery.start_soon(run, world, f"wait 40\nsay {number}")
        await until(lambda: taking(world) == {1, 2}, within_s=20.0)
        await run(world, "say here")
        assert world.places[2].cells, "it works"
        await until(lambda: taking(world) == {1}, within_s=200.0)


async def test_a_standby_is_needed_where_nobody_else_can(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, SPARE]) as world:
        await until(lambda: taking(world) == {1}, within_s=20.0)


async def test_a_device_in_its_quiet_hours_serves_its_owner_alone(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, QUIET, WORKER]) as world:
        await until(lambda: taking(world) == {2}, within_s=20.0)
        own = world[1].mesh.rank(PYTHON)
        assert world.peer(1) in {choice.peer for choice in own.choices}
        async with world[0].mesh.converse(
            world.peer(1), "/kowalski/repl/1", program("say x")
        ) as asked:
            with pytest.raises(RequestRefusedError, match=r"^paused: quiet hours until 23:59$"):
                await asked.receive()


async def test_a_battery_pauses_and_a_plug_ends_it(virtual_time: JumpingClock) -> None:
    async with open_world([WORKER]) as world, trio.open_nursery() as nursery:
        gate = Gate(world.peer(0), Resources(lambda _job: 1))
        on_battery = True
        watched = Watched(lambda: 0.0, lambda: on_battery)

        async def keep() -> None:
            await keep_availability(gate, world[0].mesh, Availability(), watched)

        nursery.start_soon(keep)
        await until(lambda: gate.paused == "on battery")
        on_battery = False
        await until(lambda: not gate.paused)
        nursery.cancel_scope.cancel()


async def test_minutes_are_of_the_day() -> None:
    assert 0 <= local_minute(1_800_000_000.0) < 24 * 60
    assert (local_minute(1_800_003_600.0) - local_minute(1_800_000_000.0)) % (24 * 60) == 60
    assert parse_hours("00:00-23:59")[0].include(local_minute(1_800_000_000.0))
