"""How a node stops, with real signals to this very process."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from kowalski.node.service_notices import ServiceNotices
from kowalski.node.services.draining import Left
from kowalski.node.stopping import Stopping
from simulations.virtual_time import JumpingClock
from tests.node.http.houses import connected, open_house, read_all, read_until

pytestmark = pytest.mark.trio


@dataclass
class Work:
    """A node's work, of which something is left for so many seconds."""

    lasts_s: float
    left: Left = field(default_factory=lambda: Left(jobs=1))
    has_begun: bool = False

    async def begin(self) -> None:
        await trio.lowlevel.checkpoint()
        self.has_begun = True

    async def until_empty(self) -> None:
        await trio.sleep(self.lasts_s)
        self.left = Left()


def stopping(scope: trio.CancelScope, work: Work | None, within_s: float = 5.0) -> Stopping:
    made = Stopping(scope, ServiceNotices({}), within_s=within_s)
    made.draining = work  # type: ignore[assignment] for what a node has
    return made


@pytest.mark.parametrize(("lasts_s", "took_s"), [(0.0, 0.0), (3.0, 3.0), (60.0, 5.0)])
async def test_a_node_that_is_told_to_stop_hands_over_within_a_bound(
    virtual_time: JumpingClock, lasts_s: float, took_s: float
) -> None:
    began, work = trio.current_time(), Work(lasts_s)
    with trio.CancelScope() as scope:
        await stopping(scope, work).stop()
        await trio.sleep_forever()
    assert trio.current_time() - began == took_s
    assert work.has_begun
    assert work.left.is_nothing == (lasts_s < 5)


async def test_before_there_is_anything_to_hand_over_it_ends_at_once(
    virtual_time: JumpingClock,
) -> None:
    began = trio.current_time()
    with trio.CancelScope() as scope:
        await stopping(scope, None).stop()
        await trio.sleep_forever()
    assert trio.current_time() == began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_second_signal_ends_the_wait(number: signal.Signals) -> None:
    work = Work(600.0)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stopping(nursery.cancel_scope, work, 600.0).heed_signals)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), number)
            while not work.has_begun:  # noqa: ASYNC110 nothing tells
                await trio.sleep(0.01)
            assert not nursery.cancel_scope.cancel_called
            os.kill(os.getpid(), number)
            await trio.sleep_forever()
    assert not work.left.is_nothing


async def test_clients_are_answered_before_a_node_ends_and_told_so_where_they_cannot_be() -> None:
    async with open_house() as house, connected(house) as short, connected(house) as endless:
        with trio.CancelScope() as scope:
            made = stopping(scope, Work(0.0), within_s=0.5)
            made.server = house.server
            await endless.send_all(b"GET /tell HTTP/1.1\r\nHost: x\r\n\r\n")
            await house.began.wait()
            house.began = trio.Event()
            await short.send_all(b"GET /a-while HTTP/1.1\r\nHost: x\r\n\r\n")
            await house.began.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.stop)
                await trio.lowlevel.checkpoint()
                house.may_go_on.set()
                assert (await read_until(short, b"waited")).startswith(b"HTTP/1.1 200 ")
                assert b"stopping" in await read_all(endless)
        assert scope.cancel_called
