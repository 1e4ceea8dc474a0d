"""How long a server may keep a request waiting."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.node.backends.silences import Silences

pytestmark = pytest.mark.trio


class Waiting:
    """Somebody who waits for a server, until something comes after `comes_after_s`."""

    def __init__(self, silences: Silences) -> None:
        self._silences = silences
        self._given_up = trio.Event()

    async def give_up(self) -> None:
        await trio.lowlevel.checkpoint()
        self._given_up.set()

    async def waited_s(self, patience_s: float, comes_after_s: float) -> float:
        began = trio.current_time()
        self._silences.begin(self, began + patience_s)
        with trio.move_on_after(comes_after_s):
            await self._given_up.wait()
        self._silences.end(self)
        return trio.current_time() - began


@pytest.fixture
def silences(nursery: trio.Nursery) -> Silences:
    found = Silences()
    nursery.start_soon(found.run)
    return found


async def test_who_is_answered_in_time_is_left_alone(
    silences: Silences, autojump_clock: trio.testing.MockClock
) -> None:
    waiting = Waiting(silences)
    for _ in range(3):
        assert await waiting.waited_s(60, comes_after_s=59) == pytest.approx(59)
        await trio.sleep(100)  # nobody waits meanwhile


async def test_each_waits_as_long_as_it_has_patience_and_no_longer(
    silences: Silences, autojump_clock: trio.testing.MockClock
) -> None:
    waited: list[tuple[float, float]] = []

    async def wait(patience_s: float) -> None:
        waited.append((patience_s, await Waiting(silences).waited_s(patience_s, 1000)))

    async with trio.open_nursery() as nursery:
        for patience_s in (60.0, 2.0, 20.0, 60.0, 5.0):
            nursery.start_soon(wait, patience_s)
            await trio.sleep(1)
    assert [found for _, found in sorted(waited)] == pytest.approx([2, 5, 20, 60, 60])


async def test_who_waits_again_is_not_held_to_its_last_patience(
    silences: Silences, autojump_clock: trio.testing.MockClock
) -> None:
    waiting = Waiting(silences)
    await waiting.waited_s(10, comes_after_s=9)
    assert await waiting.waited_s(10, comes_after_s=9) == pytest.approx(9)
    assert await waiting.waited_s(10, comes_after_s=100) == pytest.approx(10)
