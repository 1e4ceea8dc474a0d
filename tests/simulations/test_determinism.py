"""What a seed decides, and that nothing of it stays behind."""

from __future__ import annotations

import random
import secrets
import threading

import pytest
import trio

from simulations.determinism import decided_by, work_of_threads
from simulations.virtual_time import JumpingClock


def drawn(seed: int) -> list[object]:
    """Turns of tasks, dice and secrets."""
    seen: list[object] = []

    async def write(letter: str) -> None:
        for _ in range(8):
            await trio.lowlevel.checkpoint()
            seen.append(letter)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for letter in "abcd":
                nursery.start_soon(write, letter)
        seen.append(random.random())
        seen.append(secrets.token_hex(4))
        seen.append(secrets.token_bytes(4))
        seen.append(secrets.randbelow(1 << 30))
        seen.append(secrets.choice("abcdefgh"))

    with decided_by(seed):
        trio.run(main, clock=JumpingClock())
    return seen


def test_one_seed_draws_the_same_always_and_another_something_else() -> None:
    assert drawn(1) == drawn(1)
    for place in (slice(0, 32), 32, 33, 34, 35):
        assert drawn(1)[place] != drawn(2)[place]


def test_afterwards_secrets_are_secret_and_threads_are_threads() -> None:
    before = random.getstate()
    with decided_by(1):
        inside = secrets.token_hex
        run_sync = trio.to_thread.run_sync
    assert secrets.token_hex is not inside
    assert trio.to_thread.run_sync is not run_sync
    assert random.getstate() == before


def test_the_work_of_a_thread_is_done_in_its_turn_and_keeps_to_its_limiter() -> None:
    done: list[tuple[str, threading.Thread]] = []
    limiter = trio.CapacityLimiter(1)

    def work(name: str) -> str:
        done.append((name, threading.current_thread()))
        return name

    async def one(name: str) -> None:
        assert await trio.to_thread.run_sync(work, name, limiter=limiter) == name

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "a")
            nursery.start_soon(one, "b")
        assert limiter.borrowed_tokens == 0
        with trio.move_on_after(1) as patience:
            async with limiter:
                await one("never")
        assert patience.cancelled_caught

    with decided_by(1):
        trio.run(main, clock=JumpingClock())
    assert {name for name, _ in done} == {"a", "b"}
    assert {thread for _, thread in done} == {threading.main_thread()}


def test_an_obstacle_meets_the_threads_of_its_own_context_alone() -> None:
    def full(_function: object) -> None:
        raise OSError("no space")

    async def obstructed() -> None:
        work_of_threads.set(full)
        with pytest.raises(OSError, match="no space"):
            await trio.to_thread.run_sync(lambda: None)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obstructed)
        assert await trio.to_thread.run_sync(lambda: "done") == "done"

    with decided_by(1):
        trio.run(main, clock=JumpingClock())
