"""A stream on which whole envelopes go out, those of many requests."""

from __future__ import annotations

import trio

from kowalski.mesh.transport import Stream
from kowalski.protocol import codec
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.messages.base import Message, Trace

NOTE = 0
"""In place of a request's number: what comes with it is about the next request."""

HELD_BYTES_MAX = 16 * 1024
"""Of one stream. A write costs more than what is in it: it asks the system and wakes a peer."""


class EnvelopeLine:
    """A stream with a lock: whole envelopes go out, one at a time.

    Who is cancelled while one is on its way leaves when it is out, at the latest after the
    transport's write timeout: half an envelope would be the end of all requests on the stream.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._lock = trio.Lock()
        self._held = b""
        """Whole envelopes that go out with the next one, whoever sends it."""

    async def send(
        self,
        request: int,
        message: Message,
        *,
        is_last: bool = False,
        trace: str = "",
        more_follows: bool = False,
    ) -> None:
        data = codec.seal(codec.Envelope(request, codec.encode(message), is_last))
        if trace:
            note = codec.encode(Trace(context=trace))
            data = codec.seal(codec.Envelope(NOTE, note)) + data
        if more_follows and len(self._held) + len(data) <= HELD_BYTES_MAX:
            self._held += data
            await trio.lowlevel.checkpoint()
            return
        if self._lock.locked():
            await self._lock.acquire()
        else:  # without waiting for a turn: the stream does that
            await trio.lowlevel.checkpoint_if_cancelled()
            self._lock.acquire_nowait()
        try:
            data, self._held = self._held + data, b""
            with trio.CancelScope(shield=True):
                try:
                    await self.stream.send(data)
                except PeerUnreachableError:
                    await self.stream.reset()  # half of it may be out
                    raise
        finally:
            self._lock.release()
