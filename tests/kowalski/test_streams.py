"""News for several readers: nobody holds the speaker up, and who loses something is told."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.streams import READER_ITEMS_MAX, Broadcast

pytestmark = pytest.mark.trio


def broadcast() -> Broadcast[tuple[str, int]]:
    return Broadcast(lambda item, missed: (item[0], missed))


async def test_each_reader_hears_what_is_said_from_when_it_came() -> None:
    news = broadcast()
    first = news.subscribe()
    news.say(("a", 0))
    second = news.subscribe()
    news.say(("b", 0))
    news.close()
    assert [item async for item in first] == [("a", 0), ("b", 0)]
    assert [item async for item in second] == [("b", 0)]


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    news = broadcast()
    reader = news.subscribe()
    for number in range(READER_ITEMS_MAX + 5):
        news.say((str(number), 0))
    assert await anext(reader) == ("5", 5)
    assert await anext(reader) == ("6", 0)


async def test_a_reader_that_waits_wakes_up_and_ends_with_the_speaker() -> None:
    news = broadcast()
    reader = news.subscribe()
    heard: list[tuple[str, int]] = []

    async def read() -> None:
        heard.extend([item async for item in reader])

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            news.say(("late", 0))
            await trio.testing.wait_all_tasks_blocked()
            news.close()
    assert heard == [("late", 0)]


async def test_who_left_hears_nothing_and_who_comes_after_the_end_neither() -> None:
    news = broadcast()
    reader = news.subscribe()
    news.leave(reader)
    news.leave(reader)
    news.say(("a", 0))
    assert [item async for item in reader] == []
    news.close()
    assert [item async for item in news.subscribe()] == []
