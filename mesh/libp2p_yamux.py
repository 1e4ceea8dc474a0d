"""Yamux as py-libp2p speaks it, made steady: the frame format and the stream table stay its own.

What is different here: a write is never cut in the middle of a frame, credit is given back in
batches and enforced, a silent peer is noticed, and a stream's end is told apart from the
connection's. Follows https://github.com/hashicorp/yamux/blob/master/spec.md.
"""

# py-libp2p annotates interfaces that lack half of what its classes have, and its objects are
# extended here.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateUsage=false, reportIndexIssue=false

from __future__ import annotations

import struct
from dataclasses import dataclass

import structlog
import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import (
    DEFAULT_WINDOW_SIZE,
    FLAG_SYN,
    PROTOCOL_ID,
    TYPE_DATA,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)

from kowalski.mesh.libp2p_streams import shielded

log = structlog.get_logger(__name__)

READ_BYTES_MAX = 64 * 1024
# One Noise message carries 65519 bytes of plaintext; a yamux header takes 12 of them.
PIECE_BYTES_MAX = 65519 - 12
# Nothing is credited for the first 64 KiB, so that a short exchange costs no frames at all; who
# reads more gets one large window, filled up again a quarter at a time.
CREDIT_BYTES_FIRST = 64 * 1024
WINDOW_BYTES_MAX = 4 * 1024 * 1024
# After our own event loop stood still, bytes that arrived in time may still wait to be read.
OWN_DELAY_S = 0.25
# Acknowledgements and pongs that wait to be sent, 12 bytes each.
REPLIES_MAX = 4096
# A goodbye waits this long behind a frame that does not leave.
GOODBYE_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a connection waits before it gives its peer up."""

    write_s: float = 10.0
    """For a frame to leave, and for a reader to make room."""
    silence_s: float = 2.0
    """Of silence, after which the peer is pinged."""
    ping_s: float = 3.0
    """For any sign of life after a ping."""


class SteadyStream(YamuxStream):  # type: ignore[misc]
    """One stream. Made by py-libp2p, then given this class by `SteadyYamux.adopt`."""

    conn: SteadyYamux
    received: bytearray
    has_finished = False
    """The peer's end had come before the connection was lost."""
    _unreturned = 0
    _has_grown = False
    _room: trio.Event | None = None

    # py-libp2p's frame reader assigns these three. Listening in on it saves polling the window
    # every 10 ms, and is where an overstepped window shows.

    @property
    def send_window(self) -> int:
        return int(self.__dict__["send_window"])

    @send_window.setter
    def send_window(self, value: int) -> None:
        self.__dict__["send_window"] = value
        if value > 0 and self._room is not None:
            self._room.set()

    @property
    def closed(self) -> bool:
        return bool(self.__dict__["closed"])

    @closed.setter
    def closed(self, value: bool) -> None:
        self.__dict__["closed"] = value
        if value:
            if self._room is not None:
                self._room.set()
            if (event := self.conn.stream_events.get(self.stream_id)) is not None:
                event.set()

    @property
    def recv_window(self) -> int:
        return int(self.__dict__["recv_window"])

    @recv_window.setter
    def recv_window(self, value: int) -> None:
        self.__dict__["recv_window"] = value
        if value < 0:
            self.conn.condemn("sent more than its window")

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            size = await self._take_room(min(len(rest), PIECE_BYTES_MAX))
            header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_DATA, 0, self.stream_id, size)
            await self.conn._write_frame(header + rest[:size])  # noqa: SLF001 the mux's own stream
            rest = rest[size:]

    async def _take_room(self, wanted: int) -> int:
        while True:
            if self.reset_received:
                raise MuxedStreamReset("stream was reset")
            if self.closed or self.send_closed:
                raise MuxedStreamError("stream is closed")
            if self.send_window > 0:
                size = min(wanted, self.send_window)
                self.send_window -= size
                return size
            self._room = trio.Event()
            with trio.move_on_after(self.conn.patience.write_s) as waiting:
                await self._room.wait()
            self._room = None
            if waiting.cancelled_caught:
                raise MuxedStreamError(f"peer read nothing for {self.conn.patience.write_s} s")

    async def read(self, n: int | None = None) -> bytes:
        size = READ_BYTES_MAX if n is None or n < 0 else n
        while not self.received:
            if self.has_finished or (self.recv_closed and not self.reset_received):
                raise MuxedStreamEOF("peer has finished")
            event = self.conn.stream_events.get(self.stream_id)
            if self.reset_received or self.closed or event is None:
                raise MuxedStreamReset("stream was reset")
            await event.wait()
            if self.conn.stream_events.get(self.stream_id) is event:
                self.conn.stream_events[self.stream_id] = trio.Event()
        data = bytes(self.received[:size])
        del self.received[:size]
        if self.closed and not self.received:
            await self.conn._finalize_stream(self, fully_closed=True)  # noqa: SLF001 the mux's own
        await self._auto_tune_and_send_window_update(bytes_read=len(data))
        return data

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        self._unreturned += bytes_read
        step = WINDOW_BYTES_MAX // 4 if self._has_grown else CREDIT_BYTES_FIRST
        if self.recv_closed or self.closed or self._unreturned < step:
            return
        credit, self._unreturned = self._unreturned, 0
        if not self._has_grown:
            self._has_grown = True
            credit += WINDOW_BYTES_MAX - DEFAULT_WINDOW_SIZE
        self.recv_window += credit
        frame = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_WINDOW_UPDATE, 0, self.stream_id, credit)
        try:
            await self.conn._write_frame(frame)  # noqa: SLF001 the mux's own stream
        except (RawConnError, ConnectionClosedError):
            log.debug("no-credit-on-a-lost-connection", peer=str(self.conn.peer_id))


class SteadyYamux(Yamux):  # type: ignore[misc]
    """One connection. `patience` and `streams_max` (inbound ones) are its limits."""

    _ping_id: int

    def __init__(
        self, secured_conn: ISecureConn, peer_id: ID, *, patience: Patience, streams_max: int
    ) -> None:
        super().__init__(secured_conn, peer_id, is_initiator=secured_conn.is_initiator)
        self.patience = patience
        self._streams_max = streams_max
        self._heard_at = trio.current_time()
        self._frame_reader: trio.lowlevel.Task | None = None
        self._replies: list[bytes] = []
        self._has_replies = trio.Event()
        self._listen_in(secured_conn)

    def _listen_in(self, secured_conn: ISecureConn) -> None:
        read = secured_conn.read

        async def read_and_note(n: int | None = None) -> bytes:
            data: bytes = await read(n)
            self._heard_at = trio.current_time()
            return data

        secured_conn.read = read_and_note

    def adopt(self, stream: YamuxStream) -> SteadyStream:
        # Yamux makes its streams in the middle of its frame reader, by class name. Until a stream
        # is handed out, the frame reader alone touches it.
        stream.__class__ = SteadyStream
        assert isinstance(stream, SteadyStream)
        # Kept apart from the connection's table, which is emptied when the connection ends: what
        # came before the end may still be read.
        stream.received = self.stream_buffers.get(stream.stream_id, bytearray())
        return stream

    async def open_stream(self) -> SteadyStream:
        return self.adopt(await super().open_stream())

    async def accept_stream(self) -> SteadyStream:
        while True:
            stream = self.adopt(await super().accept_stream())
            inbound = sum(1 for key in self.streams if key % 2 != self.next_stream_id % 2)
            if inbound <= self._streams_max:
                return stream
            await stream.reset()

    async def _write_frame(self, data: bytes) -> None:
        if trio.lowlevel.current_task() is self._frame_reader:
            self._reply(data)
            return
        async with self._write_lock:
            if self.event_shutting_down.is_set():
                raise RawConnError("connection is closed")
            data, self._replies = b"".join((*self._replies, data)), []
            if not data:
                return
            # Noise numbers its messages: half of one on the wire, and the peer can decrypt nothing
            # that comes after it. So a frame leaves whole, or the connection ends.
            with shielded(self.patience.write_s) as writing:
                await self.secured_conn.write(data)
            if writing.cancelled_caught:
                await self._break_off(f"took no frame for {self.patience.write_s} s")
            if self.event_shutting_down.is_set():
                raise RawConnError("connection is closed")

    def _reply(self, frame: bytes) -> None:
        """Let somebody else send what the frame reader answers: it must not stop reading.

        Two ends that each wait for the other to read would wait for ever.
        """
        self._replies.append(frame)
        if len(self._replies) > REPLIES_MAX:
            self.condemn("asks, and does not read the answers")
        self._has_replies.set()

    async def _send_replies(self) -> None:
        while True:
            await self._has_replies.wait()
            self._has_replies = trio.Event()
            try:
                await self._write_frame(b"")
            except (RawConnError, ConnectionClosedError):
                return

    async def _measure_rtt_loop(self) -> None:
        """Ping when it has been silent, and end the connection when nothing comes back."""
        while not self.event_shutting_down.is_set():
            await trio.sleep_until(self._heard_at + self.patience.silence_s)
            pinged_at = trio.current_time()
            if pinged_at - self._heard_at < self.patience.silence_s:
                continue
            self._ping_id = int(self._ping_id + 1) % 2**32
            self._ping_sent_time = pinged_at
            self._ping_event = trio.Event()
            ping = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, self._ping_id)
            try:
                await self._write_frame(ping)
            except (RawConnError, ConnectionClosedError):
                return
            with trio.move_on_after(self.patience.ping_s):
                await self._ping_event.wait()
            if self._heard_at < pinged_at:
                await trio.sleep(OWN_DELAY_S)
            if self._heard_at < pinged_at:
                await self._break_off(f"silent for {trio.current_time() - self._heard_at:.1f} s")
                return

    def condemn(self, reason: str) -> None:
        """End the connection after the frame that is being handled."""
        if not self.event_shutting_down.is_set():
            log.info("connection-broken-off", peer=str(self.peer_id), reason=reason)
            self._note_ends()
            self.event_shutting_down.set()

    async def _break_off(self, reason: str) -> None:
        self.condemn(reason)
        with shielded(1):
            await self.secured_conn.close()

    async def handle_incoming(self) -> None:
        assert self._nursery is not None
        self._frame_reader = trio.lowlevel.current_task()
        self._nursery.start_soon(self._send_replies)
        await super().handle_incoming()
        if not self.event_closed.is_set():
            await self._cleanup_on_error()

    async def _cleanup_on_error(self) -> None:
        self._note_ends()
        await super()._cleanup_on_error()

    async def close(self, error_code: int = 0) -> None:
        with trio.move_on_after(GOODBYE_S) as waiting:
            async with self._write_lock:
                pass
        if waiting.cancelled_caught:
            await self._break_off(f"took no goodbye for {GOODBYE_S} s")
        self._note_ends()
        for stream in self.streams.values():
            # A local close marks every stream as finished by the peer; without this, a reader
            # would take the end of the connection for the end of the message.
            stream.reset_received = True
        await super().close(error_code)

    def _note_ends(self) -> None:
        for stream in self.streams.values():
            if stream.recv_closed and not stream.reset_received:
                stream.has_finished = True


class SteadyMuxing(MuxerMultistream):  # type: ignore[misc]
    """Makes `SteadyYamux` connections; py-libp2p makes its own Yamux whatever `muxer_opt` names."""

    def __init__(self, *, patience: Patience, streams_max: int, negotiate_timeout_s: int) -> None:
        super().__init__({PROTOCOL_ID: Yamux}, negotiate_timeout_s)
        self._patience = patience
        self._streams_max = streams_max

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        await self.select_transport(conn)
        muxed = SteadyYamux(conn, peer_id, patience=self._patience, streams_max=self._streams_max)
        return self._annotate_connection(muxed, conn, PROTOCOL_ID)
