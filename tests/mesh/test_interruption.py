"""Whether cancelled work will be wanted again, as those see it who leave conversations."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.interruption import interrupted_if, is_interrupted
from simulations.virtual_time import JumpingClock

pytestmark = pytest.mark.trio


async def test_work_below_is_interrupted_as_soon_as_any_of_those_above_says_so(
    virtual_time: JumpingClock,
) -> None:
    upper = lower = False
    seen: list[bool] = []

    async def leave() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append(is_interrupted())

    async def run(*, changes_upper: bool, changes_lower: bool) -> None:
        nonlocal upper, lower
        upper = lower = False
        with interrupted_if(lambda: upper), interrupted_if(lambda: lower):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave)
                await trio.sleep(1)
                upper, lower = changes_upper, changes_lower
                nursery.cancel_scope.cancel()

    await run(changes_upper=False, changes_lower=False)
    await run(changes_upper=True, changes_lower=False)
    await run(changes_upper=False, changes_lower=True)
    assert seen == [False, True, True]


async def test_what_is_done_beside_it_is_not(virtual_time: JumpingClock) -> None:
    with interrupted_if(lambda: True):
        assert is_interrupted()
    assert not is_interrupted()
