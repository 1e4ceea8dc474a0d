"""What goes out on a stream together, and in which order."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.mesh.envelope_line import HELD_BYTES_MAX, NOTE, EnvelopeLine
from kowalski.protocol import codec
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Failed, Message
from kowalski.protocol.messages.content import ContentChunk

pytestmark = pytest.mark.trio
TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


class Kept:
    """A stream that keeps what is written, piece by piece; `breaks` at the next one."""

    peer = PeerId("BBBBBBBB")

    def __init__(self) -> None:
        self.pieces: list[list[tuple[int, Message, bool]]] = []
        self.breaks = self.is_reset = False

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.breaks:
            raise PeerUnreachableError("gone")
        envelopes = codec.EnvelopeReader().feed(data)
        self.pieces.append([(e.request, codec.decode(e.frame), e.is_last) for e in envelopes])

    async def receive(self) -> bytes:
        await trio.sleep_forever()
        return b""

    async def finish(self) -> None: ...

    async def reset(self) -> None:
        self.is_reset = True


def chunk(number: int, size: int = 1) -> ContentChunk:
    return ContentChunk(data=b"x" * size, bytes_total=number)


async def test_what_more_follows_on_goes_out_with_it_in_one_piece() -> None:
    stream = Kept()
    line = EnvelopeLine(stream)
    await line.send(1, chunk(1))
    await line.send(1, chunk(2), more_follows=True)
    await line.send(1, chunk(3), more_follows=True)
    assert stream.pieces == [[(1, chunk(1), False)]]
    await line.send(1, chunk(4), is_last=True)
    assert stream.pieces[1:] == [[(1, chunk(2), False), (1, chunk(3), False), (1, chunk(4), True)]]


async def test_what_waits_goes_out_with_whatever_is_said_next_on_the_stream() -> None:
    stream = Kept()
    line = EnvelopeLine(stream)
    await line.send(1, chunk(1), more_follows=True)
    await line.send(2, chunk(2), trace=TRACE)
    await line.send(1, Failed(code="backend"), is_last=True)
    (first, second) = stream.pieces
    assert [number for number, _, _ in first] == [1, NOTE, 2]
    assert second == [(1, Failed(code="backend"), True)]


async def test_no_more_waits_than_a_bound() -> None:
    stream = Kept()
    line = EnvelopeLine(stream)
    sizes = [HELD_BYTES_MAX // 2 - 100, HELD_BYTES_MAX // 2 - 100, 1000]
    for number, size in enumerate(sizes):
        await line.send(1, chunk(number, size), more_follows=True)
    ((*told,),) = stream.pieces
    assert [message.bytes_total for _, message, _ in told] == [0, 1, 2]  # type: ignore[attr-defined]
    await line.send(1, chunk(9, 2 * HELD_BYTES_MAX), more_follows=True)
    assert len(stream.pieces) == 2


async def test_many_who_write_at_once_lose_nothing_and_keep_their_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream = Kept()
    line = EnvelopeLine(stream)

    async def talk(request: int) -> None:
        for number in range(20):
            more = (number * request) % 3 == 0 and number < 19
            await line.send(request, chunk(number), more_follows=more)

    async with trio.open_nursery() as nursery:
        for request in range(1, 6):
            nursery.start_soon(talk, request)
    said = [one for piece in stream.pieces for one in piece]
    for request in range(1, 6):
        assert [one for one in said if one[0] == request] == [
            (request, chunk(number), False) for number in range(20)
        ]


async def test_a_stream_on_which_a_piece_broke_is_given_up() -> None:
    stream = Kept()
    line = EnvelopeLine(stream)
    await line.send(1, chunk(1), more_follows=True)
    stream.breaks = True
    with pytest.raises(PeerUnreachableError):
        await line.send(1, chunk(2))
    assert stream.is_reset
