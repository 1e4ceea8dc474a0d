"""Requests between peers: many at a time on one long-lived stream for each peer and protocol.

The asker opens the stream and numbers its requests. A request is answered by any number of messages
and ends with one that is marked as the last: a result, `Refused` or `Failed`. Leaving early tells
the other side to stop. Streams are kept: opening one costs four to six times a message on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog
import trio

from kowalski.mesh.envelope_line import NOTE, EnvelopeLine
from kowalski.mesh.inbox import UNREAD_BYTES_MAX, Inbox
from kowalski.mesh.interruption import is_interrupted
from kowalski.mesh.tracing import trace_context
from kowalski.mesh.transport import Stream, Transport
from kowalski.protocol import codec
from kowalski.protocol.errors import (
    LocalProtocolError,
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import PeerId
from kowalski.protocol.limits import IN_FLIGHT_MAX
from kowalski.protocol.messages.base import Cancel, Failed, Message, Refused, Trace, line

log = structlog.get_logger(__name__)

LAST_WORDS_S = 2.0
"""How long a cancelled side tries to say so before it leaves."""

M = TypeVar("M", bound=Message)

Request = Message | Callable[[], Awaitable[Message]]
"""What is asked, or what makes it: called when there is a stream on which it can go out at once.

For what must be true when it is sent: to open a stream may take seconds.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one stream may cost the side that answers."""

    in_flight: int = IN_FLIGHT_MAX
    unread_bytes: int = UNREAD_BYTES_MAX


FOR_STRANGERS = Limits(in_flight=8, unread_bytes=64 * 1024)
"""For conversations that are open to those who have proven nothing."""


class Conversation(Protocol):
    """One request, from either side."""

    @property
    def peer(self) -> PeerId: ...

    @property
    def is_taken_back(self) -> bool:
        """Whether the asker wants no reply any more; one that was lost has not said so."""
        ...

    async def send(self, message: Message, *, more_follows: bool = False) -> None:
        """Say one more thing.

        `more_follows` by whoever says the next thing at once, without waiting for anybody: both
        then go out in one piece.

        Raises:
            PeerUnreachableError: the stream is gone.
        """
        ...

    async def receive(self) -> Message:
        """The next thing said by the other side.

        Raises:
            PeerUnreachableError: the stream is gone, or the other side had said its last.
            RequestRefusedError, RequestFailedError: that was the answer (asker's side only).
            RemoteProtocolError: what came is no message.
        """
        ...


# --- the asker's side ---------------------------------------------------------------------------


class _Asked:
    def __init__(self, channel: _Channel, number: int) -> None:
        self.channel = channel
        self.number = number
        self.inbox = Inbox()

    @property
    def peer(self) -> PeerId:
        return self.channel.line.stream.peer

    @property
    def is_taken_back(self) -> bool:
        return self.number not in self.channel.asked

    async def send(self, message: Message, *, more_follows: bool = False) -> None:
        await self.channel.line.send(self.number, message, more_follows=more_follows)

    async def receive(self) -> Message:
        return unless_no(await self.inbox.get())


def unless_no(message: Message) -> Message:
    if isinstance(message, Refused):
        raise RequestRefusedError(message.reason, message.detail, message.retry_after_s)
    if isinstance(message, Failed):
        raise RequestFailedError(message.code, message.detail)
    return message


class _Channel:
    """Our stream to one peer for one protocol, and the requests in flight on it."""

    def __init__(self, stream: Stream) -> None:
        self.line = EnvelopeLine(stream)
        self.asked: dict[int, _Asked] = {}
        self.is_gone = False
        self._next = 0

    def begin(self) -> _Asked:
        if len(self.asked) >= IN_FLIGHT_MAX:
            raise RequestRefusedError("busy", f"{IN_FLIGHT_MAX} requests in flight to this peer")
        self._next = self._next % codec.REQUEST_MAX + 1
        asked = _Asked(self, self._next)
        self.asked[asked.number] = asked
        return asked

    async def read(self) -> None:
        reader = codec.EnvelopeReader()
        why: Exception = PeerUnreachableError("the peer closed the stream")
        try:
            while data := await self.line.stream.receive():
                for envelope in reader.feed(data):
                    if asked := self.asked.get(envelope.request):
                        asked.inbox.put(envelope.frame, is_last=envelope.is_last)
        except (PeerUnreachableError, RemoteProtocolError) as error:
            why = error
        finally:
            self.is_gone = True
            for asked in self.asked.values():
                asked.inbox.end(why)


class Asker:
    """Asks peers. Made by `open_asker`."""

    def __init__(self, transport: Transport, nursery: trio.Nursery) -> None:
        self._transport = transport
        self._nursery = nursery
        self._channels: dict[tuple[PeerId, str], _Channel] = {}
        self._opening: dict[tuple[PeerId, str], trio.Lock] = {}

    def converse(
        self, peer: PeerId, protocol: str, request: Request, *, open_timeout_s: float = 5.0
    ) -> AbstractAsyncContextManager[Conversation]:
        """Ask, and stay for the answers. Leaving before the last one cancels the work over there.

        Raises:
            PeerUnreachableError: no stream within `open_timeout_s` seconds.
            RequestRefusedError: too many requests are in flight to this peer already.
        """
        return _Asking(self, peer, protocol, request, open_timeout_s)

    async def request(
        self, peer: PeerId, protocol: str, request: Message, reply: type[M], *, timeout_s: float
    ) -> M:
        """Ask one peer and await its one reply.

        Raises:
            PeerUnreachableError: nothing came back within `timeout_s` seconds.
            RequestRefusedError, RequestFailedError: that was the answer.
            RemoteProtocolError: something came back that is not a `reply`.
        """
        asking = self.converse(peer, protocol, request, open_timeout_s=timeout_s)
        return await one_reply(asking, request, reply, timeout_s)

    async def channel(self, peer: PeerId, protocol: str, timeout_s: float) -> _Channel:
        """That of a peer and a protocol; opened, where there is none yet."""
        key = (peer, protocol)
        if channel := self._channels.get(key):
            return channel  # without a turn of the scheduler: whoever sends on it waits for one
        opening = self._opening.setdefault(key, trio.Lock())
        try:
            async with opening:
                channel = self._channels.get(key)
                if channel is None:
                    stream = await self._transport.open_stream(peer, protocol, timeout_s=timeout_s)
                    channel = self._channels[key] = _Channel(stream)
                    self._nursery.start_soon(self._read, key, channel)
                return channel
        finally:
            if not opening.locked() and self._opening.get(key) is opening:
                del self._opening[key]

    async def _read(self, key: tuple[PeerId, str], channel: _Channel) -> None:
        try:
            await channel.read()
        finally:
            del self._channels[key]
            with trio.CancelScope(shield=True), trio.move_on_after(LAST_WORDS_S):
                await channel.line.stream.reset()


class _Asking:
    """`Asker.converse`. No generator: this is entered and left for each request there is."""

    def __init__(
        self, asker: Asker, peer: PeerId, protocol: str, request: Request, open_timeout_s: float
    ) -> None:
        self._asker = asker
        self._peer = peer
        self._protocol = protocol
        self._request = request
        self._open_timeout_s = open_timeout_s
        self._asked: _Asked

    async def __aenter__(self) -> Conversation:
        channel = await self._asker.channel(self._peer, self._protocol, self._open_timeout_s)
        request = self._request
        if not isinstance(request, Message):
            request = await request()
            if channel.is_gone:
                raise PeerUnreachableError("the peer closed the stream")
        self._asked = channel.begin()
        try:
            await channel.line.send(self._asked.number, request, trace=trace_context.get())
        except BaseException:
            await self._leave()
            raise
        return self._asked

    async def __aexit__(self, *_how: object) -> None:
        await self._leave()

    async def _leave(self) -> None:
        asked, channel = self._asked, self._asked.channel
        del channel.asked[asked.number]
        if not asked.inbox.is_over and not channel.is_gone:
            with trio.CancelScope(shield=True), trio.move_on_after(LAST_WORDS_S):
                await _say_cancel(channel, asked.number)


async def _say_cancel(channel: _Channel, number: int) -> None:
    try:
        cancel = Cancel(is_interrupted=is_interrupted())
        await channel.line.send(number, cancel, is_last=True)
    except PeerUnreachableError:
        return  # then it has stopped by itself


async def one_reply(
    asking: AbstractAsyncContextManager[Conversation],
    request: Message,
    reply: type[M],
    timeout_s: float,
) -> M:
    """The one answer of a conversation that has just been asked for; raises as `Asker.request`."""
    with trio.move_on_after(timeout_s):
        async with asking as asked:
            answer = await asked.receive()
        if not isinstance(answer, reply):
            raise RemoteProtocolError(f"{answer.KIND} in answer to {request.KIND}")
        return answer
    raise PeerUnreachableError(f"no answer to {request.KIND} within {timeout_s:.3g} s")


@asynccontextmanager
async def open_asker(transport: Transport) -> AsyncIterator[Asker]:
    async with trio.open_nursery() as nursery:
        yield Asker(transport, nursery)
        nursery.cancel_scope.cancel()


# --- the answering side -------------------------------------------------------------------------

Answer = Callable[[Conversation, Message], Awaitable[Message]]
"""Serves one request; what it returns is the last message.

RequestRefusedError, RequestFailedError and RemoteProtocolError that it raises become the answer. It
is cancelled when the asker cancels or is lost.
"""


def _everybody(_peer: PeerId) -> bool:
    return True


async def outcome_of(
    answer: Answer,
    conversation: Conversation,
    first: Callable[[], Message],
    admits: Callable[[PeerId], bool] = _everybody,
) -> Message:
    """The last message: what `answer` returns, or what its error says."""
    try:
        try:
            if not admits(conversation.peer):
                raise RequestRefusedError("not_member", "prove your membership first")
            return await answer(conversation, first())
        except RequestRefusedError as no:
            return Refused(reason=no.reason, detail=line(no.detail), retry_after_s=no.retry_after_s)
        except RequestFailedError as failure:
            return Failed(code=failure.code, detail=line(failure.detail))
        except RemoteProtocolError as broken:
            log.warning("bad-request", peer=conversation.peer, error=str(broken))
            return Failed(code="bad_request", detail=line(str(broken)))
        except PeerUnreachableError as gone:
            return Failed(code="unreachable", detail=line(str(gone)))
    except Exception as bug:  # one request must not end a node
        log.exception("request-died", peer=conversation.peer)
        return Failed(code="internal", detail=line(f"{type(bug).__name__}: {bug}"))


class _Answering:
    def __init__(
        self,
        line_: EnvelopeLine,
        number: int,
        unread_bytes_max: int,
        note: codec.Envelope | None = None,
    ) -> None:
        self._line = line_
        self._number = number
        self._note = note
        self.inbox = Inbox(unread_bytes_max)
        self.scope = trio.CancelScope()
        self.is_taken_back = False

    @property
    def peer(self) -> PeerId:
        return self._line.stream.peer

    def leave(self, cancel: codec.Envelope) -> None:
        """The asker has left; one that was interrupted is as good as lost."""
        self.is_taken_back = True
        with suppress(RemoteProtocolError):
            said = codec.decode(cancel.frame)
            self.is_taken_back = not (isinstance(said, Cancel) and said.is_interrupted)
        self.scope.cancel()

    async def send(self, message: Message, *, more_follows: bool = False) -> None:
        await self._line.send(self._number, message, more_follows=more_follows)

    async def receive(self) -> Message:
        return await self.inbox.get()

    def _read(self, first: codec.Envelope) -> Message:
        """The request, and what was noted of it; of those only that are admitted."""
        if self._note is not None and isinstance(said := codec.decode(self._note.frame), Trace):
            trace_context.set(said.context)
        return codec.decode(first.frame)

    async def answer_with(
        self, answer: Answer, first: codec.Envelope, admits: Callable[[PeerId], bool]
    ) -> None:
        with self.scope:
            last = await outcome_of(answer, self, lambda: self._read(first), admits)
            try:
                await self._line.send(self._number, last, is_last=True)
            except PeerUnreachableError:
                return  # the asker is gone, and with it the interest
            except LocalProtocolError as bug:
                log.exception("reply-too-large", kind=last.KIND)
                too_large = Failed(code="internal", detail=line(str(bug)))
                with suppress(PeerUnreachableError):
                    await self._line.send(self._number, too_large, is_last=True)


def serve(
    transport: Transport,
    protocol: str,
    answer: Answer,
    *,
    admits: Callable[[PeerId], bool] = _everybody,
    limits: Limits | None = None,
) -> None:
    """Answer `protocol` from now on; to strangers too, where `admits` is left out.

    Peers that are not admitted are refused `not_member`, or as `admits` itself says by raising
    RequestRefusedError. It is asked at each request; what others have sent is not even decoded.
    """
    limits = limits or Limits()

    async def on_stream(stream: Stream) -> None:
        await _serve_stream(stream, answer, admits, limits)

    transport.serve(protocol, on_stream, to_strangers=admits is _everybody)


async def _serve_stream(
    stream: Stream, answer: Answer, admits: Callable[[PeerId], bool], limits: Limits
) -> None:
    line_ = EnvelopeLine(stream)
    running: dict[int, _Answering] = {}
    note: codec.Envelope | None = None
    newest = 0
    reader = codec.EnvelopeReader()

    async def run(number: int, answering: _Answering, first: codec.Envelope) -> None:
        try:
            await answering.answer_with(answer, first, admits)
        finally:
            del running[number]

    async with trio.open_nursery() as nursery:
        try:
            while data := await stream.receive():
                for envelope in reader.feed(data):
                    number = envelope.request
                    if number == NOTE:
                        note = envelope
                        continue
                    if answering := running.get(number):
                        _hear(answering, envelope)
                        continue
                    if envelope.is_last or not _is_newer(number, newest):
                        continue  # it has crossed our last message
                    newest = number
                    if len(running) >= limits.in_flight:
                        busy = Refused(reason="busy", detail=f"{len(running)} requests in flight")
                        await line_.send(number, busy, is_last=True)
                    else:
                        answering = _Answering(line_, number, limits.unread_bytes, note)
                        note, running[number] = None, answering
                        nursery.start_soon(run, number, answering, envelope)
        except (PeerUnreachableError, RemoteProtocolError) as lost:
            log.debug("stream-ended", peer=stream.peer, why=str(lost))
        nursery.cancel_scope.cancel()  # no asker, no work
    await stream.reset()


def _is_newer(number: int, newest: int) -> bool:
    """Whether a request's number comes after `newest`; they go round (RFC 1982)."""
    return 0 < (number - newest) % codec.REQUEST_MAX <= codec.REQUEST_MAX // 2


def _hear(answering: _Answering, envelope: codec.Envelope) -> None:
    if envelope.is_last:
        answering.leave(envelope)
    else:
        answering.inbox.put(envelope.frame, is_last=False)
