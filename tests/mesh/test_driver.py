from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import pytest
import trio
import trio.testing

from kowalski.mesh.driver import RECORDED_STEPS, Driver


@dataclass(frozen=True)
class Clockwork:
    """Says what it is told, and ticks."""

    heard: tuple[str, ...] = ()
    due: float = inf
    interval_s: float = inf


def step(state: Clockwork, event: str, now: float) -> tuple[Clockwork, tuple[str, ...]]:
    if event == "bug":
        raise ZeroDivisionError
    if event == "tick":
        if now < state.due:
            return state, ()
        return replace(state, due=state.due + state.interval_s), (f"tock {now:g}",)
    if event.startswith("every "):
        interval_s = float(event.split()[1])
        return replace(state, interval_s=interval_s, due=now + interval_s), ()
    return replace(state, heard=(*state.heard, event)), tuple(event.split())


Machine = Driver[Clockwork, str, str]


def driver_of(perform: Callable[[str], None], clock: Callable[[], float] | None = None) -> Machine:
    return Driver(
        Clockwork(),
        step=step,
        wake_at=lambda state: state.due,
        time_passed="tick",
        perform=perform,
        clock=clock or trio.current_time,
    )


def still() -> float:
    return 7.0


def test_effects_are_performed_in_their_order_before_the_call_returns() -> None:
    performed: list[str] = []
    driver = driver_of(performed.append, still)
    driver.handle("first second")
    assert performed == ["first", "second"]
    assert driver.state.heard == ("first second",)


def test_an_event_from_within_an_effect_waits_for_the_effects_before_it() -> None:
    performed: list[str] = []

    def perform(effect: str) -> None:
        performed.append(effect)
        if effect == "ask":
            driver.handle("answered")
            driver.handle("thanked")

    driver = driver_of(perform, still)
    driver.handle("ask then")
    assert performed == ["ask", "then", "answered", "thanked"]
    assert driver.state.heard == ("ask then", "answered", "thanked")


def test_a_failing_effect_takes_its_event_back_and_the_caller_hears_of_it() -> None:
    performed: list[str] = []

    def perform(effect: str) -> None:
        if effect == "fails":
            driver.handle("never")
            raise OSError("disk full")
        performed.append(effect)

    driver = driver_of(perform, still)
    driver.handle("before")
    with pytest.raises(OSError, match="disk full"):
        driver.handle("written fails unsaid")
    assert driver.state.heard == ("before",)
    assert [event for _, event, _ in driver.recorder] == ["before"]
    driver.handle("after")
    assert driver.state.heard == ("before", "after")
    assert performed == ["before", "written", "after"]


def test_a_failing_event_takes_no_other_with_it() -> None:
    def perform(effect: str) -> None:
        if effect == "ask":
            driver.handle("fails")
            driver.handle("answered")
        if effect == "fails":
            raise OSError("disk full")

    driver = driver_of(perform, still)
    with pytest.raises(OSError, match="disk full"):
        driver.handle("ask")
    assert driver.state.heard == ("ask", "answered")


def test_a_bug_in_the_machine_leaves_it_as_it_was_and_usable() -> None:
    performed: list[str] = []
    driver = driver_of(performed.append, still)
    with pytest.raises(ZeroDivisionError):
        driver.handle("bug")
    driver.handle("fine")
    assert driver.state.heard == ("fine",)


def test_the_recording_replays_to_the_same_effects_and_is_bounded() -> None:
    driver = driver_of(lambda _effect: None, still)
    for number in range(RECORDED_STEPS + 5):
        driver.handle(f"number {number}")
    assert len(driver.recorder) == RECORDED_STEPS
    for now, event, effects in driver.recorder:
        assert step(driver.state, event, now)[1] == effects


@pytest.mark.trio
async def test_the_timer_rings_when_due_and_follows_what_events_change(
    autojump_clock: trio.testing.MockClock,
) -> None:
    performed: list[str] = []
    driver = driver_of(performed.append)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(100)
        assert performed == []
        driver.handle("every 10")
        await trio.sleep(25)
        driver.handle("every 1")
        await trio.sleep(2.5)
        nursery.cancel_scope.cancel()
    assert performed == [f"tock {started + at:g}" for at in (110, 120, 126, 127)]


@pytest.mark.trio
async def test_a_timer_due_in_the_past_rings_at_once_and_lets_others_live(
    autojump_clock: trio.testing.MockClock,
) -> None:
    performed: list[str] = []
    driver = driver_of(performed.append)
    driver.state = Clockwork(due=trio.current_time() - 3, interval_s=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        assert len(performed) == 4
        nursery.cancel_scope.cancel()


class Steps(trio.abc.Instrument):
    """Counts the turns of one task."""

    def __init__(self, task: str) -> None:
        self.count = 0
        self._task = task

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name.endswith(self._task)


@pytest.mark.trio
async def test_events_that_make_nothing_due_wake_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    performed: list[str] = []
    driver = driver_of(performed.append)
    steps, began = Steps("Driver.run"), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(steps)
        for word in ("one", "two", "three"):
            driver.handle(word)
            await trio.testing.wait_all_tasks_blocked()
        assert steps.count == 0
        driver.handle("every 5")
        await trio.sleep(6)
        trio.lowlevel.remove_instrument(steps)
        nursery.cancel_scope.cancel()
    assert performed == ["one", "two", "three", f"tock {began + 5:g}"]
    assert steps.count > 0


@pytest.mark.trio
async def test_what_was_put_off_is_not_stepped_at_its_old_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    performed: list[str] = []
    driver = driver_of(performed.append)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        driver.handle("every 10")
        await trio.sleep(5)
        driver.handle("every 20")
        await trio.sleep(14)
        assert [event for _, event, _ in driver.recorder] == ["every 10", "every 20"]
        await trio.sleep(7)
        driver.handle("every 2")
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert performed == [f"tock {started + at:g}" for at in (25, 28, 30)]


@pytest.mark.trio
async def test_a_state_is_asked_once_when_it_wants_to_wake(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked: list[Clockwork] = []

    def wake_at(state: Clockwork) -> float:
        asked.append(state)
        return state.due

    driver: Machine = Driver(
        Clockwork(), step=step, wake_at=wake_at, time_passed="tick", perform=lambda _effect: None
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        driver.handle("tick")
        driver.handle("tick")
        assert [state.due for state in asked] == [inf]
        driver.handle("every 5")
        assert [state.due for state in asked] == [inf, trio.current_time() + 5]
        nursery.cancel_scope.cancel()
