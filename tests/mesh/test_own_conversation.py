"""A conversation with ourselves is told to who watches. Its manners: test_conversation.py."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.own_conversation import converse_with_ourselves
from kowalski.mesh.watching import watcher
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.membership import RoundTrip
from tests.mesh.test_watching import Notes

A = PeerId("AAAAAAAA")


@pytest.mark.trio
async def test_every_message_is_told_once_with_its_side() -> None:
    async def answer(conversation: Conversation, request: Message) -> Message:
        await conversation.send(request)
        return await conversation.receive()

    notes = Notes()
    watcher.set(notes)
    async with (
        trio.open_nursery() as nursery,
        converse_with_ourselves(A, answer, RoundTrip(), nursery) as conversation,
    ):
        await conversation.receive()
        await conversation.send(RoundTrip())
        await conversation.receive()
    assert notes.said == [
        (RoundTrip(), True, False),
        (RoundTrip(), False, False),
        (RoundTrip(), True, False),
        (RoundTrip(), False, True),
    ]
