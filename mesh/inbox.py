"""What one request has been told and has not read yet."""

from __future__ import annotations

from collections import deque

import trio

from kowalski.protocol import codec
from kowalski.protocol.errors import PeerUnreachableError, RemoteProtocolError
from kowalski.protocol.messages.base import Message

UNREAD_FRAMES_MAX = 1024
"""Of one request. Streams are always read, so a slow reader is stopped by a bound of our own."""

UNREAD_BYTES_MAX = 8 * 1024 * 1024
"""Of one request."""


class Inbox:
    """The unread messages of one request, and how it ended."""

    def __init__(self, bytes_max: int = UNREAD_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._unread: deque[tuple[bytes | Message, bool]] = deque()
        self._unread_bytes = 0
        self._changed = trio.Event()
        self._ended: Exception | None = None
        self.is_over = False

    def put(self, said: bytes | Message, *, is_last: bool) -> None:
        """Keep a frame, or a message that was never one."""
        if self._ended is not None:
            return
        size = len(said) if isinstance(said, bytes) else 0
        if len(self._unread) >= UNREAD_FRAMES_MAX or self._unread_bytes + size > self._bytes_max:
            self.end(
                RemoteProtocolError(
                    f"more than {len(self._unread)} unread frames of {self._unread_bytes} bytes"
                )
            )
            return
        self._unread.append((said, is_last))
        self._unread_bytes += size
        self._changed.set()

    def end(self, why: Exception) -> None:
        """Nothing comes any more; what is unread can still be had."""
        if self._ended is None:
            self._ended = why
            self._changed.set()

    async def get(self) -> Message:
        while not self._unread:
            if self._ended is not None:
                raise self._ended
            self._changed = trio.Event()
            await self._changed.wait()
        said, is_last = self._unread.popleft()
        if is_last:
            self.is_over = True
            self.end(PeerUnreachableError("the peer has said its last"))
        if isinstance(said, bytes):
            self._unread_bytes -= len(said)
            return codec.decode(said)
        return said
