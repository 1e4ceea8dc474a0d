from __future__ import annotations

import pytest

from kowalski.mesh.inbox import UNREAD_FRAMES_MAX, Inbox
from kowalski.protocol import codec
from kowalski.protocol.errors import PeerUnreachableError, RemoteProtocolError
from kowalski.protocol.messages.membership import Ready, RoundTrip

pytestmark = pytest.mark.trio

FRAME = codec.encode(Ready())


async def test_frames_and_messages_are_had_in_the_order_in_which_they_came() -> None:
    inbox = Inbox()
    inbox.put(FRAME, is_last=False)
    inbox.put(RoundTrip(), is_last=False)
    assert [await inbox.get(), await inbox.get()] == [Ready(), RoundTrip()]
    assert not inbox.is_over


async def test_after_the_last_word_nothing_comes_and_nothing_is_kept() -> None:
    inbox = Inbox()
    inbox.put(FRAME, is_last=True)
    await inbox.get()
    inbox.put(FRAME, is_last=False)
    assert inbox.is_over
    with pytest.raises(PeerUnreachableError, match="said its last"):
        await inbox.get()


async def test_what_came_before_the_end_can_still_be_had() -> None:
    inbox = Inbox()
    inbox.put(FRAME, is_last=False)
    inbox.end(PeerUnreachableError("gone"))
    assert await inbox.get() == Ready()
    with pytest.raises(PeerUnreachableError, match="gone"):
        await inbox.get()


@pytest.mark.parametrize(
    ("bytes_max", "fit"), [(3 * len(FRAME), 3), (10**6, UNREAD_FRAMES_MAX)], ids=["bytes", "frames"]
)
async def test_more_than_is_bearable_ends_the_request_and_not_what_was_kept(
    bytes_max: int, fit: int
) -> None:
    inbox = Inbox(bytes_max)
    for _ in range(fit + 1):
        inbox.put(FRAME, is_last=False)
    assert [await inbox.get() for _ in range(fit)] == [Ready()] * fit
    with pytest.raises(RemoteProtocolError, match=f"more than {fit} unread frames"):
        await inbox.get()
