from __future__ import annotations

import contextlib
import json
import socket

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from kowalski.node.repl.kernel_frames import (
    FRAME_BYTES_MAX,
    Calls,
    Done,
    KernelChannel,
    Ready,
)
from kowalski.protocol.errors import PeerUnreachableError, RemoteProtocolError


def frame(message: object) -> bytes:
    body = json.dumps(message).encode()
    return len(body).to_bytes(4, "big") + body


async def hear(data: bytes) -> Ready | Calls | Done:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        channel = KernelChannel(ours)
        try:
            with trio.fail_after(5):
                return await channel.receive()
        finally:
            channel.close()


@pytest.mark.trio
async def test_frames_are_told_apart_by_op() -> None:
    assert isinstance(await hear(frame({"op": "ready", "version": "3"})), Ready)
    calls = await hear(frame({"op": "calls", "id": 1, "calls": [{"kind": "llm", "prompt": "p"}]}))
    assert isinstance(calls, Calls)
    assert calls.calls[0].prompt == "p"
    done = await hear(frame({"op": "done", "cell": 3, "status": "ok", "later": "field"}))
    assert isinstance(done, Done)


@pytest.mark.trio
@pytest.mark.parametrize(
    "data",
    [
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x05hello",
        frame([]),
        frame({"op": "obey"}),
        frame({"op": "done", "cell": "1", "status": "ok"}),
        frame({"op": "done", "cell": 1, "status": "great"}),
        frame({"op": "done", "cell": 1, "status": "ok", "value": "x" * 70_000}),
        frame({"op": "calls", "id": 1, "calls": []}),
        frame({"op": "calls", "id": -1, "calls": [{"kind": "llm", "prompt": "p"}]}),
        frame({"op": "calls", "id": 1, "calls": [{"kind": "shell", "prompt": "p"}]}),
        b"\x00\x01\x00\x00" + b"[" * 65536,
    ],
)
async def test_what_is_no_kernels_frame_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        await hear(data)


@pytest.mark.trio
@pytest.mark.parametrize("data", [b"", b"\x00\x00", b"\x00\x00\x00\x09half"])
async def test_an_end_in_the_middle_is_a_gone_kernel(data: bytes) -> None:
    with pytest.raises(PeerUnreachableError):
        await hear(data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_one_of_two_errors(data: bytes) -> None:
    async def attempt() -> None:
        with contextlib.suppress(RemoteProtocolError, PeerUnreachableError):
            await hear(len(data).to_bytes(4, "big") + data)

    trio.run(attempt)


@pytest.mark.trio
async def test_a_cancelled_receive_loses_nothing() -> None:
    ours, theirs = socket.socketpair()
    whole = frame({"op": "ready", "version": "3"})
    with theirs:
        channel = KernelChannel(ours)
        theirs.sendall(whole[:10])
        with trio.move_on_after(0.02) as scope:
            await channel.receive()
        assert scope.cancelled_caught
        theirs.sendall(whole[10:])
        assert (await channel.receive()) == Ready(op="ready", version="3")
        channel.close()


@pytest.mark.trio
async def test_a_cancelled_sender_ends_its_frame_when_somebody_reads() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = KernelChannel(ours)

        scope = trio.CancelScope()
        message = {"code": "x" * 5_000_000}

        async def send() -> None:
            with scope:
                await channel.send(message)

        def read() -> bytes:
            with theirs.makefile("rb") as file:
                return file.read(int.from_bytes(file.read(4), "big"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            assert json.loads(await trio.to_thread.run_sync(read)) == message
        assert scope.cancelled_caught
        assert not channel.is_broken
        channel.close()


@pytest.mark.trio
async def test_a_frame_cut_while_being_sent_breaks_the_channel_for_good() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = KernelChannel(ours)
        with trio.move_on_after(0.05):
            await channel.send({"op": "cell", "code": "x" * 5_000_000})
        assert channel.is_broken
        with pytest.raises(PeerUnreachableError):
            await channel.send({"op": "interrupt"})
        channel.close()
