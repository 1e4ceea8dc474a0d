"""What is said to a submitter whose conversations come and go."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.node.services import outbox
from kowalski.node.services.outbox import Outbox
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message
from kowalski.rlm.journal import GENESIS

TASK = TaskId("task")


def entry(index: int) -> wire.EntryOffered:
    made = wire.Entry(term=1, index=index, parent=GENESIS, body=b"")
    return wire.EntryOffered(task=TASK, entry=made)


def progress(text: str) -> wire.Progress:
    return wire.Progress(task=TASK, term=1, kind="note", text=text)


class Listening:
    """A conversation whose other side hears everything, until it breaks."""

    peer = PeerId("12D3KooWListening")

    def __init__(self, breaks_after: int | None = None) -> None:
        self.heard: list[Message] = []
        self._breaks_after = breaks_after

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if len(self.heard) == self._breaks_after:
            raise PeerUnreachableError("it broke")
        self.heard.append(message)

    async def receive(self) -> Message:
        raise AssertionError


async def sent(out: Outbox) -> list[Message]:
    """What goes out in one conversation, until there is nothing left to say."""
    talk = Listening()
    with trio.move_on_after(1):
        await out.send_all(talk)
    return talk.heard


@pytest.mark.trio
async def test_what_is_said_goes_out_in_order_as_it_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out, talk = Outbox(), Listening()
    async with trio.open_nursery() as nursery:
        out.say(entry(0))
        out.say(progress("one"))
        nursery.start_soon(out.send_all, talk)
        await trio.sleep(1)
        assert talk.heard == [entry(0), progress("one")]
        out.say(progress("two"))
        out.say(entry(1))
        await trio.sleep(1)
        assert talk.heard[2:] == [progress("two"), entry(1)]
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_new_conversation_begins_with_what_it_is_given_and_nothing_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out = Outbox()
    for index in range(4):
        out.say(entry(index))
    out.say(progress("shown"))
    assert len(await sent(out)) == 5
    out.start_over([entry(3)])
    out.say(entry(4))
    assert await sent(out) == [entry(3), entry(4)]
    out.start_over([])
    assert await sent(out) == []


@pytest.mark.trio
async def test_a_conversation_that_broke_in_the_middle_is_followed_by_one_that_says_it_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out, said = Outbox(), [entry(index) for index in range(5)]
    for one in said:
        out.say(one)
    talk = Listening(breaks_after=2)
    with pytest.raises(PeerUnreachableError):
        await out.send_all(talk)
    assert talk.heard == said[:2]
    out.start_over(said[1:])
    assert await sent(out) == said[1:]


@pytest.mark.trio
async def test_when_nobody_listens_progress_is_left_out_and_entries_are_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out = Outbox()
    for number in range(outbox.UNSENT_PROGRESS_MAX + 10):
        out.say(progress(str(number)))
    out.say(entry(0))
    out.say(progress("late"))
    said = await sent(out)
    assert said[-1] == entry(0)
    assert said[:-1] == [progress(str(n)) for n in range(outbox.UNSENT_PROGRESS_MAX)]
    out.say(progress("there is room again"))
    assert await sent(out) == [progress("there is room again")]
