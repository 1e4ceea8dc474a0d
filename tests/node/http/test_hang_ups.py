"""Which answers are watched, and when."""

from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing

from kowalski.node.http.hang_ups import MOMENT_S, HangUps, Watch

pytestmark = pytest.mark.trio


@pytest.fixture
def hang_ups(nursery: trio.Nursery) -> HangUps:
    found = HangUps(nursery)
    nursery.start_soon(found.run)
    return found


class Watched:
    def __init__(self) -> None:
        self.begun_at: float | None = None
        self.is_watched = False
        self.watch = Watch(self._run)

    async def _run(self) -> None:
        self.begun_at, self.is_watched = trio.current_time(), True
        try:
            await trio.sleep_forever()
        finally:
            self.is_watched = False


async def test_what_takes_a_moment_is_not_watched(
    hang_ups: HangUps, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(10):
        one = Watched()
        hang_ups.add(one.watch)
        await trio.sleep(MOMENT_S / 2)
        await hang_ups.end(one.watch)
        assert one.begun_at is None
    await trio.sleep(1)
    assert one.begun_at is None


async def test_what_takes_longer_is_watched_within_two_moments_until_it_ends(
    hang_ups: HangUps, autojump_clock: trio.testing.MockClock
) -> None:
    many = [Watched() for _ in range(5)]
    for one in many:
        hang_ups.add(one.watch)
        await trio.sleep(MOMENT_S / 3)
    await trio.sleep(2 * MOMENT_S)
    assert all(one.is_watched for one in many)
    for one in many:
        await hang_ups.end(one.watch)
        assert not one.is_watched


async def test_a_watch_that_ended_by_itself_can_be_ended(
    hang_ups: HangUps, autojump_clock: trio.testing.MockClock
) -> None:
    ended = trio.Event()

    async def watch() -> None:
        await trio.lowlevel.checkpoint()
        ended.set()

    one = Watch(watch)
    hang_ups.add(one)
    await ended.wait()
    await hang_ups.end(one)


async def test_while_nothing_is_answered_nothing_wakes(
    hang_ups: HangUps, autojump_clock: trio.testing.MockClock
) -> None:
    one = Watched()
    hang_ups.add(one.watch)
    await trio.sleep(1)
    await hang_ups.end(one.watch)
    await trio.sleep(1)
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == inf
