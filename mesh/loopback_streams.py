"""The two ends of a stream on a loopback network: what `transport.Stream` says, in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId

RECEIVE_BYTES_MAX = 64 * 1024
WINDOW_BYTES = 256 * 1024
"""Sent and not read yet, of one stream and direction."""
WRITE_TIMEOUT_S = 10.0
"""How long a writer waits for its reader to make room."""


class Post(Protocol):
    """What the network does for an end: bring `data` to the other one, in its own time."""

    def __call__(self, end: End, data: bytes, deliver: Callable[[], None]) -> None: ...


class End:
    """One end of a stream; `other` is the other one. `bring` carries from here to there."""

    other: End

    def __init__(
        self,
        peer: PeerId,
        protocol: str,
        *,
        number: int,
        is_ours: bool = True,
        bring: Post,
        on_over: Callable[[End], None],
        is_open_to_strangers: bool,
    ) -> None:
        self.protocol = protocol
        self.number = number
        """Of the stream, the same at both ends."""
        self.is_ours = is_ours
        """Whether this end has opened it."""
        self.is_open_to_strangers = is_open_to_strangers
        """Or one that we opened: whether it outlives the peer's dismissal."""
        self._peer = peer
        self._bring = bring
        self._on_over = on_over
        self._unread: deque[bytes] = deque()
        self._coming_bytes = 0
        """Sent to us and not read: on its way, or here."""
        self._changed = trio.Event()
        self._has_room = trio.Event()
        self._is_broken = False
        self._has_finished = False
        self.is_awaited = False
        """Whether the other end waits for us to read."""

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def is_open(self) -> bool:
        return not self._is_broken and not self._has_finished

    # --- sending --------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for start in range(0, max(len(data), 1), RECEIVE_BYTES_MAX):
            piece = data[start : start + RECEIVE_BYTES_MAX]
            if self.is_open and not self.other.has_room_for(piece):
                await self._wait_for_room(piece)
            if not self.is_open:
                raise PeerUnreachableError(f"the stream to {self._peer} is gone")
            if piece:
                self.put(piece)

    async def _wait_for_room(self, piece: bytes) -> None:
        with trio.move_on_after(WRITE_TIMEOUT_S) as patience:
            while self.is_open and not self.other.has_room_for(piece):
                self._has_room = trio.Event()
                self.other.is_awaited = True
                await self._has_room.wait()
        if patience.cancelled_caught:
            raise PeerUnreachableError(f"{self._peer} read nothing for {WRITE_TIMEOUT_S:g} s")

    def put(self, piece: bytes) -> None:
        """Send a piece, now. `b""` finishes our side."""
        other = self.other
        other.expect(len(piece))
        self._bring(self, piece, lambda: other.take_in(piece))

    def has_room_for(self, piece: bytes) -> bool:
        return self._coming_bytes + len(piece) <= WINDOW_BYTES

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_open:
            self._has_finished = True
            self._has_room.set()
            self.put(b"")
            self._note_if_over()

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()
        self.cut_short()

    def cut_short(self) -> None:
        """Reset the stream, now."""
        if not self._is_broken:
            self._bring(self, b"", self.other.break_off)
            self.break_off()

    # --- receiving ------------------------------------------------------------------------------

    def expect(self, size_bytes: int) -> None:
        self._coming_bytes += size_bytes

    def take_in(self, piece: bytes) -> None:
        if self._is_broken:
            return
        self._unread.append(piece)
        self._changed.set()
        self._note_if_over()

    async def receive(self) -> bytes:
        if self._unread or self._is_broken:
            await trio.lowlevel.checkpoint()
        while not self._is_broken:
            if self._unread:
                return self._take()
            self._changed = trio.Event()
            await self._changed.wait()
        raise PeerUnreachableError(f"{self._peer} reset the stream")

    def _take(self) -> bytes:
        data = self._unread[0]
        if data:
            self._unread.popleft()
            self._coming_bytes -= len(data)
            if self.is_awaited:
                self.is_awaited = False
                self._bring(self, b"", self.other.wake_writer)
            self._note_if_over()
        return data  # the end itself stays, to be read again

    def wake_writer(self) -> None:
        self._has_room.set()

    # --- ends -----------------------------------------------------------------------------------

    def _note_if_over(self) -> None:
        """Whether both sides have finished, and all was read."""
        if self._has_finished and self._unread and not self._unread[0]:
            self._on_over(self)

    def break_off(self) -> None:
        self._is_broken = True
        self._changed.set()
        self._has_room.set()
        self._on_over(self)
