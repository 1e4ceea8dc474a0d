"""A lease on the clock: who waits for it, and what is seen as time passes."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.node.core import coordinator_lease
from kowalski.node.core.coordinator_lease import Lease, Phase
from kowalski.node.services.lease_watch import LeaseWatch
from kowalski.node.services.placing import NotYetError
from kowalski.protocol.ids import PeerId

pytestmark = pytest.mark.trio

STANDBY = PeerId("12D3KooWstandby1")


def a_watch(lease_s: float = 3.0) -> LeaseWatch:
    now = trio.current_time()
    return LeaseWatch(Lease(1, now + lease_s, heard_at=now, standbys=(STANDBY,)))


async def test_while_the_lease_is_held_nobody_waits(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    await a_watch().until_may_dispatch()
    assert trio.current_time() == began


async def test_who_waits_goes_on_when_the_lease_is_renewed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch, began = a_watch(), trio.current_time()
    await trio.sleep(4)
    assert watch.is_over
    went_on: list[float] = []

    async def wait() -> None:
        await watch.until_may_dispatch()
        went_on.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.sleep(6)
        assert went_on == []
        watch.change(lambda lease, now: coordinator_lease.renewed(lease, 1, 3.0, now))
    assert went_on == [10.0, 10.0]


async def test_the_phases_are_seen_as_they_come_and_the_patient_go_on_in_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch, began = a_watch(), trio.current_time()
    seen: list[tuple[float, Phase]] = []
    is_here = [True]

    def see(phase: Phase, is_submitter_here: bool) -> None:
        assert is_submitter_here == is_here[0]
        if not seen or seen[-1][1] != phase:
            seen.append((round(trio.current_time() - began, 1), phase))

    async def vouch() -> None:
        while True:
            await trio.sleep(1)
            watch.witnessed(STANDBY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.watch, lambda: is_here[0], see)
        nursery.start_soon(vouch)
        await trio.sleep(1)
        is_here[0] = False
        await trio.sleep(3)
        with trio.fail_after(5):
            await watch.until_may_dispatch()
        nursery.cancel_scope.cancel()
    assert seen == [(0.0, "held"), (3.0, "lapsed"), (8.0, "holding")]


async def test_in_the_end_it_is_abandoned(autojump_clock: trio.testing.MockClock) -> None:
    watch, began = a_watch(), trio.current_time()
    over = trio.Event()

    def see(phase: Phase, _is_here: bool) -> None:
        if phase == "abandoned":
            over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.watch, lambda: True, see)
        await over.wait()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(60.0, abs=1.0)


async def test_who_must_not_wait_where_it_is_asked_hears_what_to_wait_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch, began = a_watch(), trio.current_time()
    watch.require()
    await trio.sleep(4)
    with pytest.raises(NotYetError) as told:
        watch.require()

    async def renew() -> None:
        await trio.sleep(2)
        watch.change(lambda lease, now: coordinator_lease.renewed(lease, 1, 3.0, now))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(renew)
        await told.value.until()
    assert trio.current_time() == began + 6
    watch.require()
