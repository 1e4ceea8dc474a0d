import pytest
import trio
import trio.testing

from kowalski.mesh.plain_nursery import first_error, open_plain_nursery

pytestmark = pytest.mark.trio


async def fail(error: Exception, after_s: float = 0.0) -> None:
    await trio.sleep(after_s)
    raise error


async def test_the_error_of_a_task_comes_out_plain() -> None:
    with pytest.raises(KeyError):
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail, KeyError("mine"))


async def test_the_error_of_the_block_comes_out_plain_and_stops_the_tasks() -> None:
    async def fail_beside_a_task() -> None:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await fail_beside_a_task()


async def test_groups_within_groups_are_opened_and_the_others_stay_the_context() -> None:
    async def fail_twice() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, ValueError("one"))
            nursery.start_soon(fail, ValueError("two"))

    with pytest.raises(ValueError, match=r"one|two") as caught:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail_twice)
    others = caught.value.__context__
    assert isinstance(others, ExceptionGroup)
    assert not caught.value.__suppress_context__


async def test_an_error_keeps_its_own_cause() -> None:
    async def fail_because() -> None:
        raise KeyError("what") from OSError("why")

    with pytest.raises(KeyError) as caught:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail_because)
    assert isinstance(caught.value.__cause__, OSError)


async def test_all_tasks_are_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    started = trio.current_time()
    async with open_plain_nursery() as nursery:
        nursery.start_soon(trio.sleep, 5)
    assert trio.current_time() - started == pytest.approx(5)


async def test_cancelling_from_outside_is_no_error() -> None:
    with trio.CancelScope() as scope:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught


async def test_the_first_error_is_never_a_cancellation_where_there_is_another() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled) as caught:
            await trio.lowlevel.checkpoint()
    cancelled, mine = caught.value, KeyError("mine")
    inner = BaseExceptionGroup("", [cancelled, mine])
    assert first_error(BaseExceptionGroup("", [cancelled, inner])) is mine
    assert first_error(BaseExceptionGroup("", [cancelled])) is cancelled
