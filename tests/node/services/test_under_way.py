import pytest
import trio

from kowalski.node.services.under_way import UnderWay
from simulations.virtual_time import JumpingClock

pytestmark = pytest.mark.trio


async def test_what_is_begun_goes_on_and_what_would_begin_waits(virtual_time: JumpingClock) -> None:
    under_way, began_at = UnderWay(), list[float]()

    async def work() -> None:
        async with under_way.begun():
            began_at.append(trio.current_time() - start)
            await trio.sleep(2)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.sleep(1)
        under_way.hold()
        nursery.start_soon(work)
        await trio.sleep(0.5)
        assert not under_way.is_idle
        await trio.sleep(1)
        assert under_way.is_idle
        under_way.hold()
        await trio.sleep(7.5)
        under_way.go_on()
    assert began_at == [0, 10]


async def test_work_that_fails_is_not_under_way_any_more() -> None:
    under_way = UnderWay()
    with pytest.raises(ValueError, match="no"):
        async with under_way.begun():
            raise ValueError("no")
    assert under_way.is_idle
