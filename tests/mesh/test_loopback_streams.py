"""The ends of one stream, without a network: what is sent waits for whoever carries it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
import trio
import trio.testing

from kowalski.mesh.loopback_streams import RECEIVE_BYTES_MAX, WINDOW_BYTES, End
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId

pytestmark = pytest.mark.trio


class Pair:
    def __init__(self) -> None:
        self.carried: deque[tuple[bytes, Callable[[], None]]] = deque()
        self.over: list[End] = []
        self.near, self.far = (
            End(
                PeerId(peer),
                "/test/1",
                number=1,
                bring=self._bring,
                on_over=self.over.append,
                is_open_to_strangers=True,
            )
            for peer in ("far", "near")
        )
        self.near.other, self.far.other = self.far, self.near

    def _bring(self, end: End, data: bytes, deliver: Callable[[], None]) -> None:
        self.carried.append((data, deliver))

    def arrive(self) -> None:
        while self.carried:
            self.carried.popleft()[1]()


async def test_nothing_is_there_before_it_has_arrived() -> None:
    pair = Pair()
    await pair.near.send(b"one")
    with trio.move_on_after(0) as patience:
        await pair.far.receive()
    assert patience.cancelled_caught
    pair.arrive()
    assert await pair.far.receive() == b"one"


async def test_large_things_go_in_pieces() -> None:
    pair = Pair()
    await pair.near.send(bytes(2 * RECEIVE_BYTES_MAX + 1))
    assert [len(data) for data, _ in pair.carried] == [RECEIVE_BYTES_MAX, RECEIVE_BYTES_MAX, 1]


async def test_a_full_window_holds_the_writer_until_the_news_of_room_has_arrived(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pair = Pair()
    await pair.near.send(bytes(WINDOW_BYTES))
    sent: list[str] = []

    async def send() -> None:
        await pair.near.send(b"more")
        sent.append("more")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        pair.arrive()
        await pair.far.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert not sent
        pair.arrive()
        await trio.testing.wait_all_tasks_blocked()
        assert sent


async def test_a_reset_is_an_error_here_at_once_and_there_when_it_arrives() -> None:
    pair = Pair()
    await pair.near.send(b"lost")
    pair.arrive()
    pair.near.cut_short()
    pair.near.cut_short()
    with pytest.raises(PeerUnreachableError):
        await pair.near.receive()
    assert await pair.far.receive() == b"lost"
    pair.arrive()
    for end in (pair.near, pair.far):
        with pytest.raises(PeerUnreachableError):
            await end.receive()
        with pytest.raises(PeerUnreachableError):
            await end.send(b"x")
    assert set(pair.over) == {pair.near, pair.far}


async def test_what_arrives_after_a_reset_is_dropped() -> None:
    pair = Pair()
    await pair.near.send(b"late")
    pair.far.break_off()
    pair.arrive()
    with pytest.raises(PeerUnreachableError):
        await pair.far.receive()


async def test_a_stream_is_over_when_both_have_finished_and_all_is_read() -> None:
    pair = Pair()
    await pair.near.send(b"last words")
    await pair.near.finish()
    await pair.far.finish()
    pair.arrive()
    assert pair.over == [pair.near]
    assert await pair.far.receive() == b"last words"
    assert pair.over == [pair.near, pair.far]
    assert await pair.far.receive() == b""
