"""Events from where nobody may wait."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.emitting import EVENTS_MAX, emitting

pytestmark = pytest.mark.trio


async def test_events_come_in_order_and_all_before_the_end() -> None:
    heard: list[dict[str, object]] = []

    async def emit(event: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(event)

    async with emitting(emit) as tell:
        for number in range(10):
            tell({"n": number})
    assert [event["n"] for event in heard] == list(range(10))


async def test_more_than_a_bound_are_left_out_where_nobody_reads() -> None:
    reading, heard = trio.Event(), 0

    async def emit(_event: dict[str, object]) -> None:
        nonlocal heard
        await reading.wait()
        heard += 1

    async with emitting(emit) as tell:
        for number in range(2 * EVENTS_MAX):
            tell({"n": number})
        reading.set()
    assert EVENTS_MAX <= heard <= EVENTS_MAX + 1
