"""A conversation with ourselves is told to who watches. Its manners: test_conversation.py."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.deadlines import passed_on_s
from kowalski.mesh.own_conversation import (
    converse_with_ourselves,
    hear_ourselves_out,
    no_longer_than,
)
from kowalski.mesh.watching import watcher
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.inference import TokensAsked
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


# --- deadlines ----------------------------------------------------------------------------------


async def long_work(conversation: Conversation, request: Message) -> Message:
    """As a room does it that gives up when its asker does."""
    assert isinstance(request, TokensAsked)
    with no_longer_than(conversation, trio.current_time() + request.remaining_s):
        await trio.sleep(1000)
    raise RequestFailedError("timeout", "no end")


def asking(remaining_s: float) -> Message:
    return TokensAsked(model="m", texts=("x",), remaining_s=remaining_s)


@pytest.mark.trio
async def test_work_that_nobody_else_ends_is_ended_in_time(autojump_clock: MockClock) -> None:
    with pytest.raises(RequestFailedError, match=r"^timeout: no end"):
        await hear_ourselves_out(A, long_work, asking(10.0), lambda _: None)
    assert trio.current_time() == pytest.approx(10.0)


@pytest.mark.trio
async def test_an_asker_that_waits_longer_than_it_says_hears_that_it_was_too_long(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(20), pytest.raises(RequestFailedError, match=r"^timeout: no end"):
        await hear_ourselves_out(A, long_work, asking(10.0), lambda _: None, until=20.0)
    assert trio.current_time() == pytest.approx(10.0)


@pytest.mark.trio
@pytest.mark.parametrize("asks_s", [1.0, 10.0, 600.0])
async def test_the_deadline_of_who_hears_itself_out_ends_its_work(
    autojump_clock: MockClock, asks_s: float
) -> None:
    told_s = passed_on_s(asks_s, 0.0)
    with trio.move_on_after(asks_s) as patience:
        await hear_ourselves_out(A, long_work, asking(told_s), lambda _: None, until=asks_s)
    assert patience.cancelled_caught
    assert trio.current_time() == pytest.approx(asks_s)


@pytest.mark.trio
async def test_in_another_task_than_its_askers_work_has_a_deadline_of_its_own(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(10.2):
        async with (
            trio.open_nursery() as nursery,
            converse_with_ourselves(A, long_work, asking(10.0), nursery) as asked,
        ):
            with pytest.raises(RequestFailedError, match=r"^timeout: no end"):
                await asked.receive()
    assert trio.current_time() == pytest.approx(10.0)
