"""One libp2p stream as the transport's `Stream`, and the protocol negotiation that opens it.

Negotiation is multistream-select 1.0 (https://github.com/multiformats/multistream-select), both
lines of the opener in one frame: half the round trips of asking line by line.
"""

# py-libp2p annotates interfaces that lack half of what its classes have, and its objects are
# extended here.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from contextlib import suppress

import structlog
import trio
from libp2p.abc import IMuxedStream, INetStream
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from kowalski.mesh.transport import Stream, StreamHandler
from kowalski.protocol.errors import KowalskiError, PeerUnreachableError
from kowalski.protocol.ids import PeerId

log = structlog.get_logger(__name__)

WEATHER = (BaseLibp2pError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What py-libp2p raises when a peer or a connection is gone."""

RECEIVE_BYTES_MAX = 64 * 1024
LAST_WORDS_S = 2.0

_MULTISTREAM = b"/multistream/1.0.0\n"
_LINE_BYTES_MAX = 1024


def shielded(seconds: float) -> trio.CancelScope:
    """A scope for last words: not cancelled from outside, and not longer than this."""
    scope = trio.move_on_after(seconds)
    scope.shield = True
    return scope


class Libp2pStream:
    """See `kowalski.mesh.transport.Stream`."""

    def __init__(self, net_stream: INetStream, peer: PeerId) -> None:
        self._net_stream = net_stream
        self._muxed = net_stream.muxed_stream
        self._peer = peer
        self._we_finished = False
        self._they_finished = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, data: bytes) -> None:
        try:
            await self._muxed.write(data)
        except WEATHER as error:
            raise PeerUnreachableError(f"cannot send to {self._peer}: {_words(error)}") from error

    async def receive(self) -> bytes:
        try:
            data: bytes = await self._muxed.read(RECEIVE_BYTES_MAX)
        except MuxedStreamEOF:
            self._they_finished = True
            await self._release_if_over()
            return b""
        except WEATHER as error:
            raise PeerUnreachableError(f"lost ..{self._peer[-8:]}: {_words(error)}") from error
        return data

    async def finish(self) -> None:
        with shielded(LAST_WORDS_S), suppress(*WEATHER):
            await self._muxed.close()
        self._we_finished = True
        await self._release_if_over()

    async def reset(self) -> None:
        with shielded(LAST_WORDS_S), suppress(*WEATHER):
            await self._net_stream.reset()

    async def _release_if_over(self) -> None:
        if self._we_finished and self._they_finished:
            # The connection's list of streams does not forget one that ended by itself.
            with suppress(*WEATHER):
                await self._net_stream.remove()


async def open_negotiated(
    connection: SwarmConn, protocol: str, peer: PeerId, *, timeout_s: float
) -> Stream:
    """A stream of `protocol`, agreed upon with the other end.

    Not to be cancelled: py-libp2p would forget a half-opened stream without closing it.

    Raises:
        PeerUnreachableError: the peer does not speak it, says nothing in time, or is gone.
    """
    net_stream = None
    try:
        with trio.fail_after(timeout_s):
            net_stream = await connection.new_stream()
            muxed = net_stream.muxed_stream
            await muxed.write(_line(_MULTISTREAM) + _line(protocol.encode() + b"\n"))
            for expected in (_MULTISTREAM, protocol.encode() + b"\n"):
                await _expect(muxed, expected)
    except (*WEATHER, PeerUnreachableError, trio.TooSlowError) as error:
        if net_stream is not None:
            await Libp2pStream(net_stream, peer).reset()
        raise PeerUnreachableError(f"no {protocol} from {peer}: {_words(error)}") from error
    net_stream.set_protocol(protocol)
    return Libp2pStream(net_stream, peer)


async def serve_stream(handler: StreamHandler, net_stream: INetStream, peer: PeerId) -> None:
    """Run a handler; its return closes the stream, its exception resets it."""
    stream = Libp2pStream(net_stream, peer)
    try:
        await handler(stream)
    except KowalskiError as error:
        log.debug("stream-handler-gave-up", peer=peer, error=str(error))
        await stream.reset()
    except Exception:
        log.exception("stream-handler-failed", peer=peer)
        await stream.reset()
    else:
        await stream.finish()


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _line(text: bytes) -> bytes:
    size = len(text)
    assert size <= _LINE_BYTES_MAX
    prefix = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
    return prefix + text


async def _expect(muxed: IMuxedStream, expected: bytes) -> None:
    if (line := await _read_line(muxed)) != expected:
        raise PeerUnreachableError(f"answered {line[:80]!r}")


async def _read_line(muxed: IMuxedStream) -> bytes:
    size = shift = 0
    while True:
        byte = (await muxed.read(1))[0]
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
        if shift > 14:
            raise PeerUnreachableError("negotiation line is too long")
    if size > _LINE_BYTES_MAX:
        raise PeerUnreachableError(f"negotiation line of {size} bytes")
    line = b""
    while len(line) < size:
        line += await muxed.read(size - len(line))
    return line
