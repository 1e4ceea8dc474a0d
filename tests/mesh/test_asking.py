"""Hearing a peer out, this node included. More of asking: test_mesh.py, test_conversation.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.loopback_transport import open_loopback_network
from kowalski.protocol.errors import RemoteProtocolError, RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentChunk
from kowalski.protocol.messages.membership import Ready, RoundTrip
from tests.mesh.members import WORK, Village, asked, members, peer_of, said

pytestmark = pytest.mark.trio
Clock = trio.testing.MockClock
A, B = peer_of("A"), peer_of("B")


@pytest.fixture
async def village(tmp_path: Path) -> AsyncIterator[Village]:
    async with open_loopback_network() as network:
        yield Village(network, tmp_path)


async def counts(conversation: Conversation, _request: Message) -> Message:
    for _ in range(3):
        await conversation.send(RoundTrip())
    return said(3)


@pytest.mark.parametrize("target", [A, B])
async def test_ourselves_and_others_are_heard_out_alike(
    village: Village, target: PeerId, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, b):
        for one in (a, b):
            one.mesh.serve(WORK, counts)
        heard = list[Message]()
        reply = await a.mesh.hear_out(target, WORK, asked(3), ContentChunk, heard.append)
        assert (reply, heard) == (said(3), [RoundTrip()] * 3)


@pytest.mark.parametrize("target", [A, B])
async def test_who_listens_may_leave_in_the_middle(
    village: Village, target: PeerId, autojump_clock: Clock
) -> None:
    ended = trio.Event()

    async def goes_on(conversation: Conversation, _request: Message) -> Message:
        try:
            while True:
                await conversation.send(RoundTrip())
                await trio.sleep(0.1)
        finally:
            ended.set()

    def hear(_message: Message) -> None:
        raise RequestFailedError("too_long", "enough")

    async with members(village, "A", "B") as (a, b):
        for one in (a, b):
            one.mesh.serve(WORK, goes_on)
        with pytest.raises(RequestFailedError, match="enough"):
            await a.mesh.hear_out(target, WORK, asked(3), ContentChunk, hear)
        with trio.fail_after(5):
            await ended.wait()


async def test_another_reply_of_ours_than_was_asked_for_is_no_answer(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, _b):
        a.mesh.serve(WORK, counts)
        with pytest.raises(RemoteProtocolError, match="content/chunk in answer to"):
            await a.mesh.hear_out(A, WORK, asked(3), Ready, lambda _: None)


async def test_what_is_not_served_here_is_refused_to_who_listens(
    village: Village, autojump_clock: Clock
) -> None:
    async with members(village, "A", "B") as (a, _b):
        with pytest.raises(RequestRefusedError, match="not served here"):
            await a.mesh.hear_out(A, WORK, asked(), ContentChunk, lambda _: None)
