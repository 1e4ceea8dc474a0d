"""Sessions of MCP: bounded, and each call of a client by its number."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.http.mcp_sessions import Session, Sessions


def test_the_one_that_was_used_longest_ago_makes_room() -> None:
    sessions = Sessions(2)
    first, second = sessions.open(), sessions.open()
    assert sessions.find(first) is not None
    third = sessions.open()
    assert sessions.find(second) is None
    assert sessions.find(first) is not None
    assert sessions.find(third) is not None


def test_what_was_never_begun_cannot_be_ended() -> None:
    assert not Sessions().end("made up")


@pytest.mark.trio
async def test_a_number_that_is_used_twice_means_the_later_call() -> None:
    session = Session()
    with session.under_way(1) as first, session.under_way(1) as second:
        session.cancel(1)
        session.cancel("1")
        await trio.lowlevel.checkpoint()
    assert (first.cancel_called, second.cancelled_caught) == (False, True)
    session.cancel(1)
