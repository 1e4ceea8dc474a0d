"""A conversation with ourselves is told to who watches. Its manners: test_conversation.py."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.own_conversation import converse_with_ourselves, hear_ourselves_out
from kowalski.mesh.watching import watcher
from kowalski.protocol.errors import PeerUnreachableError, RequestRefusedError
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


@pytest.mark.trio
async def test_who_only_listens_hears_everything_and_is_given_the_last() -> None:
    async def answer(conversation: Conversation, request: Message) -> Message:
        await conversation.send(request)
        return RoundTrip()

    notes, heard = Notes(), list[Message]()
    watcher.set(notes)
    asked = RoundTrip()
    assert await hear_ourselves_out(A, answer, asked, heard.append) == RoundTrip()
    assert heard == [asked]
    assert notes.said == [
        (asked, True, False),
        (asked, False, False),
        (RoundTrip(), False, True),
    ]


@pytest.mark.trio
async def test_an_error_of_who_listens_ends_the_work_and_comes_out_as_it_is() -> None:
    seen = list[str]()

    async def answer(conversation: Conversation, request: Message) -> Message:
        for _ in range(2):
            try:
                await conversation.send(request)
            except PeerUnreachableError:
                seen.append("left")
        return request

    def hear(_message: Message) -> None:
        seen.append("heard")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await hear_ourselves_out(A, answer, RoundTrip(), hear)
    assert seen == ["heard", "left", "left"]


@pytest.mark.trio
async def test_a_refusal_of_our_own_is_raised_to_who_listens() -> None:
    async def answer(_conversation: Conversation, _request: Message) -> Message:
        raise RequestRefusedError("busy", "full", 2.0)

    with pytest.raises(RequestRefusedError, match="full") as no:
        await hear_ourselves_out(A, answer, RoundTrip(), lambda _: None)
    assert (no.value.reason, no.value.retry_after_s) == ("busy", 2.0)
