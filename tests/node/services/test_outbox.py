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
        out.offer(entry(0))
        out.say(progress("one"))
        nursery.start_soon(out.send_all, talk)
        await trio.sleep(1)
        assert talk.heard == [entry(0), progress("one")]
        out.say(progress("two"))
        out.offer(entry(1))
        await trio.sleep(1)
        assert talk.heard[2:] == [progress("two"), entry(1)]
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_new_conversation_hears_again_what_was_not_accepted_and_nothing_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out = Outbox()
    for index in range(4):
        out.offer(entry(index))
    out.say(progress("shown"))
    assert len(await sent(out)) == 5
    out.accepted(1)
    out.start_over(3)  # it had three when it called again
    assert await sent(out) == [entry(3)]
    out.start_over(3)
    out.offer(entry(4))
    assert await sent(out) == [entry(3), entry(4)], "accepted means accepted"
    out.accepted(4)
    out.start_over(5)
    assert await sent(out) == []


@pytest.mark.trio
async def test_a_conversation_that_broke_in_the_middle_loses_no_entry(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out = Outbox()
    for index in range(5):
        out.offer(entry(index))
    talk = Listening(breaks_after=2)
    with pytest.raises(PeerUnreachableError):
        await out.send_all(talk)
    assert talk.heard == [entry(0), entry(1)]
    out.start_over(1)
    assert await sent(out) == [entry(1), entry(2), entry(3), entry(4)]


@pytest.mark.trio
async def test_an_acceptance_that_comes_twice_or_of_old_changes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out = Outbox()
    for index in range(3):
        out.offer(entry(index))
    for index in (1, 1, 0):
        out.accepted(index)
    out.start_over(0)
    assert await sent(out) == [entry(2)]


@pytest.mark.trio
async def test_when_nobody_listens_progress_is_left_out_and_entries_are_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out = Outbox()
    for number in range(outbox.UNSENT_PROGRESS_MAX + 10):
        out.say(progress(str(number)))
    out.offer(entry(0))
    out.say(progress("late"))
    said = await sent(out)
    assert said[-1] == entry(0)
    assert said[:-1] == [progress(str(n)) for n in range(outbox.UNSENT_PROGRESS_MAX)]
    out.say(progress("there is room again"))
    assert await sent(out) == [progress("there is room again")]
