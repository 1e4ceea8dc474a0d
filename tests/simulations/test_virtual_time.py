"""Time that jumps when nothing can go on, and never while a thread is at work."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual_time import (
    STALE_DEADLINES_MAX,
    JumpingClock,
    NodeTime,
    deadlines_by_node,
    node_time,
)


@pytest.mark.trio
async def test_a_day_passes_in_no_time(virtual_time: JumpingClock) -> None:
    began = time.perf_counter()
    await trio.sleep(86_400)
    assert trio.current_time() == 86_400
    assert time.perf_counter() - began < 5


@pytest.mark.trio
async def test_sleepers_wake_in_their_order_at_their_time(virtual_time: JumpingClock) -> None:
    woken: list[tuple[float, int]] = []

    async def sleep(seconds: int) -> None:
        await trio.sleep(seconds)
        woken.append((trio.current_time(), seconds))

    async with trio.open_nursery() as nursery:
        for seconds in (30, 10, 20):
            nursery.start_soon(sleep, seconds)
    assert woken == [(10, 10), (20, 20), (30, 30)]


@pytest.mark.trio
async def test_time_stands_still_while_a_thread_is_at_work(virtual_time: JumpingClock) -> None:
    may_end = threading.Event()

    async def let_it_end_soon() -> None:
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        may_end.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_it_end_soon)
        with trio.move_on_after(0.001) as patience:
            assert await trio.to_thread.run_sync(may_end.wait, 30)
        assert not patience.cancelled_caught
    assert trio.current_time() == 0


@pytest.mark.trio
async def test_a_thread_that_is_slow_in_real_time_is_waited_for(virtual_time: JumpingClock) -> None:
    with trio.fail_after(0.001):
        await trio.to_thread.run_sync(time.sleep, 0.2)
    await trio.sleep(1)
    assert trio.current_time() == 1


@pytest.mark.trio
async def test_a_thread_is_waited_for_whatever_limits_their_number(
    virtual_time: JumpingClock,
) -> None:
    """As the content store's, of which one at a time writes."""
    with trio.CancelScope(deadline=0.001):
        await trio.to_thread.run_sync(time.sleep, 0.2, limiter=trio.CapacityLimiter(1))
    assert trio.current_time() == 0


def test_it_starts_where_it_is_told() -> None:
    clock = JumpingClock(start=100.0)
    assert clock.current_time() == 100.0


# --- the clocks of nodes ---


@given(
    rate=st.floats(0.9, 1.1),
    offset_s=st.floats(-1e6, 1e6),
    shown=st.floats(-1e6, 1e9),
)
def test_a_timer_never_fires_before_the_clock_shows_its_time(
    rate: float, offset_s: float, shown: float
) -> None:
    time = NodeTime(rate, offset_s)
    when = time.when(shown)
    assert time.read(when) >= shown
    assert time.read(when - 1e-3) < shown


def test_never_is_never_on_every_clock() -> None:
    assert NodeTime(1.05, 7.0).when(math.inf) == math.inf


Log = list[tuple[float, str]]


async def tick(log: Log, clock: JumpingClock, name: str, time: NodeTime, every_s: float) -> None:
    node_time.set(time)
    for _ in range(3):
        await trio.sleep(every_s)
        log.append((round(clock.world_time, 6), name))


async def ticks(clock: JumpingClock, **times: NodeTime) -> Log:
    log: Log = []
    with deadlines_by_node():
        async with trio.open_nursery() as nursery:
            for name, time in times.items():
                nursery.start_soon(tick, log, clock, name, time, 10.0)
    return log


@pytest.mark.trio
async def test_a_fast_clock_sleeps_shorter_and_a_slow_one_longer(
    virtual_time: JumpingClock,
) -> None:
    log = await ticks(virtual_time, fast=NodeTime(1.25, 99.0), slow=NodeTime(0.8, -5.0))
    assert [at for at, name in log if name == "fast"] == [8.0, 16.0, 24.0]
    assert [at for at, name in log if name == "slow"] == [12.5, 25.0, 37.5]
    assert log == sorted(log)


@pytest.mark.trio
async def test_a_node_sees_its_own_time_and_the_world_another(virtual_time: JumpingClock) -> None:
    async def look() -> None:
        node_time.set(NodeTime(2.0, 100.0))
        assert trio.current_time() == 100.0
        with trio.move_on_at(110.0):
            await trio.sleep_forever()
        assert (trio.current_time(), virtual_time.world_time) == (110.0, 5.0)

    with deadlines_by_node():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
        assert trio.current_time() == 5.0


@pytest.mark.trio
async def test_a_frozen_node_does_nothing_and_then_all_at_once_with_its_clock_gone_on(
    virtual_time: JumpingClock,
) -> None:
    frozen, other = NodeTime(), NodeTime()

    async def freeze() -> None:
        await trio.sleep(5)
        frozen.freeze(5.0, until=22.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(freeze)
        log = await ticks(virtual_time, frozen=frozen, other=other)
    assert [at for at, name in log if name == "other"] == [10.0, 20.0, 30.0]
    assert [at for at, name in log if name == "frozen"] == [22.0, 32.0, 42.0]


def test_the_clock_of_a_sleeper_stands_still_and_never_goes_back() -> None:
    time = NodeTime(rate=2.0, offset_s=5.0)
    time.sleep(10.0, until=25.0)
    assert [time.read(at) for at in (9.0, 10.0, 20.0, 25.0, 26.0)] == [23.0, 25.0, 25.0, 25.0, 27.0]
    assert (time.when(25.0), time.when(27.0)) == (10.0, 26.0)
    time.sleep(20.0, until=30.0)
    assert [time.read(at) for at in (25.0, 30.0, 31.0)] == [25.0, 25.0, 27.0]
    time.sleep(40.0, until=41.0)
    assert [time.read(at) for at in (40.0, 41.0, 42.0)] == [45.0, 45.0, 47.0]


def test_who_is_stopped_twice_at_once_has_stood_still_since_the_first_time() -> None:
    time = NodeTime()
    time.freeze(2.0, until=5.0)
    time.freeze(4.0, until=4.5)
    assert (time.frozen_since, time.frozen_until) == (2.0, 5.0)
    time.freeze(5.0, until=6.0)
    assert (time.frozen_since, time.frozen_until) == (5.0, 6.0)


def test_a_process_that_begins_anew_stands_still_no_longer_nor_does_its_clock() -> None:
    time = NodeTime()
    time.sleep(10.0, until=25.0)
    time.thaw(15.0)
    assert time.frozen_until == 15.0
    assert [time.read(at) for at in (10.0, 15.0, 20.0)] == [10.0, 10.0, 15.0]
    time.thaw(40.0)
    assert time.read(40.0) == 35.0


@pytest.mark.trio
async def test_a_sleeper_wakes_with_the_time_of_when_it_fell_asleep(
    virtual_time: JumpingClock,
) -> None:
    sleeper = NodeTime()

    async def close_the_lid() -> None:
        await trio.sleep(5)
        sleeper.sleep(5.0, until=105.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_the_lid)
        log = await ticks(virtual_time, sleeper=sleeper)
    assert [at for at, _ in log] == [110.0, 120.0, 130.0]


@pytest.mark.trio
async def test_deadlines_set_before_and_after_are_kept(virtual_time: JumpingClock) -> None:
    ended: list[float] = []

    async def wait(until: float) -> None:
        with trio.move_on_at(until):
            await trio.sleep_forever()
        ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 3.0)
        await trio.sleep(1)
        with deadlines_by_node():
            nursery.start_soon(wait, 2.0)
            nursery.start_soon(wait, 8.0)
            await trio.sleep(5)
            assert ended == [2.0, 3.0]
    assert ended == [2.0, 3.0, 8.0]


@pytest.mark.trio
async def test_deadlines_that_were_moved_are_forgotten_in_time(virtual_time: JumpingClock) -> None:
    with deadlines_by_node(), trio.CancelScope() as scope:
        deadlines = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines
        for number in range(3 * STALE_DEADLINES_MAX):
            scope.deadline = 1e6 + number
        await trio.sleep(1)
        assert len(deadlines._due) <= 2 * STALE_DEADLINES_MAX
        scope.deadline = 10.0
        await trio.sleep_forever()
    assert trio.current_time() == 10.0


@pytest.mark.trio
async def test_an_alarm_is_called_at_its_time_between_the_deadlines_of_tasks(
    virtual_time: JumpingClock,
) -> None:
    happened: list[tuple[float, str]] = []

    def ring(name: str) -> None:
        happened.append((trio.current_time(), name))
        if name == "first":
            virtual_time.alarm(2.5, lambda: ring("asked for by the first"))
            woken.set()

    async def hear() -> None:
        await woken.wait()
        happened.append((trio.current_time(), "a task that it woke"))

    woken = trio.Event()
    with deadlines_by_node():
        virtual_time.alarm(4.0, lambda: ring("second"))
        virtual_time.alarm(2.0, lambda: ring("first"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            await trio.sleep(3)
            happened.append((trio.current_time(), "a deadline"))
            await trio.sleep(3)
    assert happened == [
        (2.0, "first"),
        (2.0, "a task that it woke"),
        (2.5, "asked for by the first"),
        (3.0, "a deadline"),
        (4.0, "second"),
    ]


ORDER = """
import sys, trio
from simulations.virtual_time import JumpingClock
from simulations.determinism import seeded_scheduler
seen = []
async def write(letter):
    for _ in range(8):
        await trio.lowlevel.checkpoint()
        seen.append(letter)
async def main():
    async with trio.open_nursery() as nursery:
        for letter in "abcd":
            nursery.start_soon(write, letter)
with seeded_scheduler(int(sys.argv[1])):
    trio.run(main, clock=JumpingClock())
print("".join(seen))
"""


def order(seed: int) -> str:
    command = [sys.executable, "-c", ORDER, str(seed)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_tasks_take_turns_as_the_seed_says_in_every_process() -> None:
    assert order(1) == order(1)
    assert len({order(seed) for seed in range(5)}) > 1
