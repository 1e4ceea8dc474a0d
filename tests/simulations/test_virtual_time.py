"""Time that jumps when nothing can go on, and never while a thread is at work."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import trio

from simulations.virtual_time import JumpingClock


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


def test_it_starts_where_it_is_told() -> None:
    clock = JumpingClock(start=100.0)
    assert clock.current_time() == 100.0


ORDER = """
import sys, trio
from simulations.virtual_time import JumpingClock, seeded_scheduler
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
