"""Each fault does something to a world, and when it is over the world is as before."""

from __future__ import annotations

import pytest
import trio

from simulations.checkers.views import disagreements
from simulations.injection import Injection
from simulations.menu import MENU, Fault, Whom
from simulations.virtual_time import JumpingClock
from simulations.wires import Gossiping, Storm
from simulations.world import Part, World, open_world

ABLE = Part(models=("m",))


def fault(kind: str, *, lasts_s: float = 5.0, amount: float | None = None) -> Fault:
    whom = {Whom.ONE: (1,), Whom.PAIR: (1, 2), Whom.SPLIT: (1, 2, 0), Whom.ALL: ()}
    low, high = MENU[kind].amount
    return Fault(kind, 0.0, lasts_s, whom[MENU[kind].whom], amount or (low + high) / 2)


def is_at_peace(world: World) -> bool:
    storm, calm = world.wires.storm, Storm()
    places = world.places
    return (
        not storm.silent
        and not storm.closed
        and not any(storm.slow_s.values())
        and (storm.packet_loss, storm.bytes_per_s) == (calm.packet_loss, calm.bytes_per_s)
        and storm.gossip == Gossiping()
        and all(place.disk.is_full == 0 and place.disk.slow_s == 0 for place in places)
        and not any(place.disk.errors for place in places)
        and all(not place.voice.lies and not place.voice.is_quiet for place in places)
        and all(place.voice.is_plain for place in places)
        and all(place.backend.failure is None for place in places)
        and all(place.backend.delay_per_token_s == 0 for place in places)
        and all((place.slowness, place.unix_offset_s) == (1.0, 0.0) for place in places)
    )


@pytest.mark.trio
@pytest.mark.parametrize("kind", MENU)
async def test_it_fires_and_leaves_no_trace(kind: str, virtual_time: JumpingClock) -> None:
    async with open_world([ABLE] * 3) as world:
        injection = Injection(world)
        if kind == "crash-in-write":
            world.submit(1, "hello", mode="direct", task="before")
        await injection.inject(fault(kind))
        assert injection.fired[kind] >= 1
        assert is_at_peace(world)
        if kind != "lost":
            await world.until(lambda: all(world.is_up(number) for number in range(3)))
            await world.until(lambda: not disagreements(world), within_s=90)
        else:
            assert injection.lost == {1}
            assert not world.is_up(1)


@pytest.mark.trio
@pytest.mark.parametrize(
    "kind", ["silence", "disk-full", "disk-errors", "lies-fast", "crash", "narrow"]
)
async def test_one_that_is_cut_short_is_undone(kind: str, virtual_time: JumpingClock) -> None:
    async with open_world([ABLE] * 3) as world:
        with trio.move_on_after(1):
            await Injection(world).inject(fault(kind, lasts_s=1000.0))
        assert is_at_peace(world)
        assert world.is_up(1)


@pytest.mark.trio
async def test_faults_that_overlap_end_each_for_itself(virtual_time: JumpingClock) -> None:
    async with open_world([ABLE] * 3) as world:
        injection = Injection(world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(injection.inject, fault("silence", lasts_s=2.0))
            nursery.start_soon(injection.inject, fault("isolate", lasts_s=6.0))
            await trio.sleep(4)
            assert world.wires.storm.silent
        assert is_at_peace(world)


@pytest.mark.trio
async def test_errors_of_one_disk_that_overlap_end_each_for_itself(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ABLE] * 3) as world:
        injection = Injection(world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(injection.inject, fault("disk-errors", lasts_s=2.0))
            nursery.start_soon(injection.inject, fault("disk-errors", lasts_s=6.0))
            await trio.sleep(4)
            assert any(place.disk.errors for place in world.places)
        assert is_at_peace(world)


@pytest.mark.trio
async def test_the_last_one_standing_stays_up(virtual_time: JumpingClock) -> None:
    async with open_world([ABLE] * 2) as world:
        injection = Injection(world)
        await world.kill(0)
        await injection.inject(Fault("crash", 0.0, 1.0, (1,), 0.5))
        assert injection.fired == {}
        assert world.is_up(1)


@pytest.mark.trio
async def test_a_bridge_is_heard_by_both_sides_that_do_not_hear_each_other(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ABLE] * 3) as world, trio.open_nursery() as nursery:
        bridge = Fault("bridge", 0.0, 50.0, (1, 2, 0), 1.0)
        nursery.start_soon(Injection(world).inject, bridge)
        await trio.sleep(30)
        silent = world.wires.storm.silent
        assert set(silent) == {
            (world.peer(1), world.peer(2)),
            (world.peer(2), world.peer(1)),
        }
        nursery.cancel_scope.cancel()
