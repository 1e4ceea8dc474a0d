"""How long a connection may wait for its next request."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.node.http.idling import Idling

pytestmark = pytest.mark.trio

IDLE_S = 75.0


@pytest.fixture
def idling(nursery: trio.Nursery) -> Idling:
    found = Idling(IDLE_S)
    nursery.start_soon(found.run)
    return found


async def waited_s(idling: Idling, seconds: float) -> float:
    """How long somebody could wait who wanted to for so long."""
    began = trio.current_time()
    with trio.CancelScope() as scope:
        idling.begin(scope)
        await trio.sleep(seconds)
        idling.end(scope)
    return trio.current_time() - began


async def test_who_asks_in_time_is_left_alone(
    idling: Idling, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.CancelScope() as scope:
        for _ in range(5):
            idling.begin(scope)
            await trio.sleep(IDLE_S - 1)
            idling.end(scope)
            await trio.sleep(2 * IDLE_S)  # an answer may take long
    assert not scope.cancel_called


async def test_who_asks_for_nothing_is_sent_away_in_time(
    idling: Idling, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(3):
        assert await waited_s(idling, 10 * IDLE_S) == pytest.approx(IDLE_S)


async def test_each_has_its_own_time(
    idling: Idling, autojump_clock: trio.testing.MockClock
) -> None:
    taken_s: list[float] = []

    async def wait(seconds: float) -> None:
        taken_s.append(await waited_s(idling, seconds))

    async with trio.open_nursery() as nursery:
        for seconds in (1000.0, 10.0, 1000.0, 74.0):
            nursery.start_soon(wait, seconds)
            await trio.sleep(20)
    assert sorted(taken_s) == pytest.approx([10.0, 74.0, IDLE_S, IDLE_S])
