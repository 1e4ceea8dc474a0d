"""The line at the asker's side."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.services import turns
from kowalski.node.services.turns import Turns
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.messages.placement import Priority
from simulations.virtual_time import JumpingClock

pytestmark = pytest.mark.trio

PYTHON = "code python"


@pytest.fixture
def virtual_time() -> JumpingClock:
    return JumpingClock()


class Waiting:
    """Requests that take their turn one after the other, and note in which order."""

    def __init__(self, line: Turns, nursery: trio.Nursery) -> None:
        self.line = line
        self.nursery = nursery
        self.order: list[str] = []

    async def come(
        self, name: str, flow: str = "a", priority: Priority = "normal"
    ) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def take_turn() -> None:
            with scope:
                async with self.line.turn(PYTHON, flow, priority):
                    self.order.append(name)
                    await trio.sleep(1)

        self.nursery.start_soon(take_turn)
        await trio.sleep(0.001)
        return scope


async def test_one_at_a_time_in_order(virtual_time: JumpingClock) -> None:
    line = Turns()
    assert not line.is_taken(PYTHON)
    async with trio.open_nursery() as nursery:
        waiting = Waiting(line, nursery)
        for name in "abc":
            await waiting.come(name)
        assert line.is_taken(PYTHON)
        assert not line.is_taken("folding")
    assert waiting.order == ["a", "b", "c"]
    assert trio.current_time() == pytest.approx(3.0)
    assert not line.is_taken(PYTHON)


async def test_the_more_urgent_pass_and_submitters_take_turns(virtual_time: JumpingClock) -> None:
    async with trio.open_nursery() as nursery:
        waiting = Waiting(Turns(), nursery)
        await waiting.come("first")
        await waiting.come("a1", "a")
        await waiting.come("a2", "a")
        await waiting.come("b1", "b")
        await waiting.come("now", "c", "interactive")
        await waiting.come("later", "d", "batch")
    assert waiting.order == ["first", "now", "a1", "b1", "a2", "later"]


async def test_who_goes_away_holds_up_nobody(virtual_time: JumpingClock) -> None:
    async with trio.open_nursery() as nursery:
        waiting = Waiting(Turns(), nursery)
        first = await waiting.come("first")
        second = await waiting.come("second")
        await waiting.come("third")
        second.cancel()
        await trio.sleep(0.001)
        first.cancel()
    assert waiting.order == ["first", "third"]


async def test_who_goes_away_just_as_its_turn_comes_hands_it_on(virtual_time: JumpingClock) -> None:
    async with trio.open_nursery() as nursery:
        waiting = Waiting(Turns(), nursery)
        first = await waiting.come("first")
        second = await waiting.come("second")
        await waiting.come("third")
        first.cancel()
        second.cancel()
    assert waiting.order == ["first", "third"]


async def test_the_head_is_woken_when_one_of_ours_is_done(virtual_time: JumpingClock) -> None:
    line = Turns()
    line.freed(PYTHON)  # nobody waits
    async with trio.open_nursery() as nursery, line.turn(PYTHON, "a", "normal"):
        nursery.start_soon(line.wait_freed, PYTHON, 60.0)
        await trio.sleep(0.001)
        line.freed("folding")
        await trio.sleep(0.001)
        assert len(nursery.child_tasks) == 1
        line.freed(PYTHON)
        await trio.sleep(0.001)
        assert not nursery.child_tasks
    assert trio.current_time() < 1.0


async def test_the_head_waits_no_longer_than_it_says(virtual_time: JumpingClock) -> None:
    line = Turns()
    async with line.turn(PYTHON, "a", "normal"):
        await line.wait_freed(PYTHON, 2.5)
    assert trio.current_time() == 2.5


async def test_a_line_that_is_too_long_takes_nobody(virtual_time: JumpingClock) -> None:
    async with trio.open_nursery() as nursery:
        waiting = Waiting(Turns(), nursery)
        for number in range(turns.LINE_MAX + 1):
            nursery.start_soon(waiting.come, f"{number}")
        await trio.sleep(0.001)
        with pytest.raises(RequestRefusedError, match="busy") as busy:
            async with waiting.line.turn(PYTHON, "z", "normal"):
                pass
        assert busy.value.retry_after_s == turns.RETRY_AFTER_S
        nursery.cancel_scope.cancel()
