"""Ready streams on real sockets, and what they make of streams that are none."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kowalski.node.ready_streams import ReadyStream

pytestmark = pytest.mark.trio
PATIENCE_S = 20.0


async def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    ends = trio.socket.socketpair()
    return trio.SocketStream(ends[0]), trio.SocketStream(ends[1])


async def test_what_is_sent_arrives_whole_however_much_it_is() -> None:
    one, other = await pair()
    data = bytes(range(256)) * 20_000
    told = bytearray()

    async def read() -> None:
        stream = ReadyStream(other)
        while piece := await stream.receive():
            told.extend(piece)

    with trio.fail_after(PATIENCE_S):
        async with other, trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with one:
                await ReadyStream(one).send_all(data)
    assert bytes(told) == data


async def test_a_write_that_the_system_takes_lets_nobody_else_in() -> None:
    one, other = await pair()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with one, other, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        for _ in range(10):
            await ReadyStream(one).send_all(b"a")
        assert turns == before
        # Reads do, also where something is there: nobody can keep the others out.
        for _ in range(10):
            assert await ReadyStream(other).receive()
            await ReadyStream(one).send_all(b"a")
        assert turns > before
        nursery.cancel_scope.cancel()


async def test_a_full_socket_is_told_from_a_broken_one() -> None:
    one, other = await pair()
    async with one:
        async with other:
            stream = ReadyStream(one)
            while stream.send_now(bytes(1 << 16)):
                pass
            with trio.move_on_after(0.05) as patience:
                await stream.send_all(b"more")
            assert patience.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"more")


async def test_a_stream_that_was_closed_says_so() -> None:
    one, other = await pair()
    async with other:
        await one.aclose()
        with pytest.raises(trio.ClosedResourceError):
            ReadyStream(one).send_now(b"a")
        with pytest.raises(trio.ClosedResourceError):
            await ReadyStream(one).receive()


async def test_who_waits_while_a_stream_is_closed_is_told() -> None:
    one, other = await pair()
    async with other, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ReadyStream(one).receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await one.aclose()


async def test_what_is_no_socket_is_read_and_written_as_it_is() -> None:
    one, other = trio.testing.memory_stream_pair()
    stream = ReadyStream(one)
    assert stream.send_now(b"a") == 0
    await stream.send_all(b"a")
    assert await other.receive_some(10) == b"a"
    await other.send_all(b"b")
    assert await stream.receive() == b"b"
