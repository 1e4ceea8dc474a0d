"""Sockets read and written without a turn of the scheduler where the system is ready.

trio's own give way to other tasks after each call that did not block, which is a third of what a
model call costs (`docs/benchmarks.md`, the hot path). Here a read gives way before it, always, and
a write only where the system takes no more. What is no plain socket, such as TLS, is as it was.
"""

from __future__ import annotations

import os
import sys

import trio
from trio.abc import Stream

READ_BYTES = 64 * 1024


class ReadyStream:
    """One task may read and one write at a time. `stream` is whoever opened it's to close."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._socket: trio.socket.SocketType | None = None
        if isinstance(stream, trio.SocketStream) and sys.platform != "win32":
            self._socket = stream.socket

    async def receive(self) -> bytes:
        """What has come, once something has; `b""` at the end.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: as a stream of trio's.
        """
        if self._socket is None:
            return bytes(await self._stream.receive_some(READ_BYTES))
        while True:
            try:
                await trio.lowlevel.wait_readable(self._open_file())
                return os.read(self._open_file(), READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def send_all(self, data: bytes) -> None:
        """Raises as `receive`."""
        if self._socket is None:
            await self._stream.send_all(data)
            return
        sent = self.send_now(data)
        while sent < len(data):
            try:
                await trio.lowlevel.wait_writable(self._open_file())
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error
            sent += self.send_now(memoryview(data)[sent:])

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes of it the system has taken at once; 0 of what is no plain socket.

        Raises as `receive`.
        """
        if self._socket is None:
            return 0
        try:
            return os.write(self._open_file(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def _open_file(self) -> int:
        assert self._socket is not None
        file: int = self._socket.fileno()
        if file < 0:
            raise trio.ClosedResourceError("socket was already closed")
        return file
