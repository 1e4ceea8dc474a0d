"""Streams of events."""

import pytest
import trio
import trio.testing

from kowalski.node.http.events import KEEP_ALIVE_S, event, open_events
from tests.node.http.exchanges import exchange


@pytest.mark.trio
async def test_events_go_out_by_name_each_in_one_line(autojump_clock: object) -> None:
    asked, told = exchange("GET", "/events")
    async with open_events(asked) as send:
        await send("peers", {"text": "two\nlines"})
        await send("", [1])
    assert told.headers["content-type"].startswith("text/event-stream")
    assert told.events == [("peers", {"text": "two\nlines"}), ("", [1])]
    assert told.is_ended


@pytest.mark.trio
async def test_a_silent_stream_is_kept_alive_and_a_busy_one_left_alone(
    autojump_clock: object,
) -> None:
    asked, told = exchange("GET", "/events")
    async with open_events(asked) as send:
        for _ in range(4):
            await trio.sleep(KEEP_ALIVE_S / 2)
            await send("", 1)
        assert b"still here" not in told.body
        await trio.sleep(2.5 * KEEP_ALIVE_S)
    assert told.body.count(b": still here\n\n") == 2


@pytest.mark.trio
async def test_errors_of_the_block_come_out_plain(autojump_clock: object) -> None:
    asked, _ = exchange("GET", "/events")
    with pytest.raises(ZeroDivisionError):
        async with open_events(asked):
            raise ZeroDivisionError


def test_an_event_without_a_name_has_data_alone() -> None:
    assert event("", {}) == b"data: {}\n\n"
    assert event("a", 1) == b"event: a\ndata: 1\n\n"
