"""Asking a peer, this node included: whoever asks need not know which of them it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import TypeVar

import trio

from kowalski.mesh.conversation import Answer, Asker, Conversation, Request, one_reply
from kowalski.mesh.own_conversation import converse_with_ourselves, hear_ourselves_out
from kowalski.protocol.errors import RemoteProtocolError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message

M = TypeVar("M", bound=Message)


class Asking:
    """`rooms` answers what we ask ourselves; `nursery` is where they do that."""

    def __init__(
        self, me: PeerId, asker: Asker, rooms: Mapping[str, Answer], nursery: trio.Nursery
    ) -> None:
        self._me = me
        self._asker = asker
        self._rooms = rooms
        self._nursery = nursery

    def converse(
        self, peer: PeerId, protocol: str, request: Request, *, open_timeout_s: float = 5.0
    ) -> AbstractAsyncContextManager[Conversation]:
        """See `Asker.converse`."""
        if peer != self._me:
            return self._asker.converse(peer, protocol, request, open_timeout_s=open_timeout_s)
        return self._converse_here(protocol, request)

    @asynccontextmanager
    async def _converse_here(self, protocol: str, request: Request) -> AsyncIterator[Conversation]:
        answer = self._room(protocol)
        message = request if isinstance(request, Message) else await request()
        async with converse_with_ourselves(self._me, answer, message, self._nursery) as asked:
            yield asked

    async def request(
        self, peer: PeerId, protocol: str, request: Message, reply: type[M], *, timeout_s: float
    ) -> M:
        """See `Asker.request`."""
        asking = self.converse(peer, protocol, request, open_timeout_s=timeout_s)
        return await one_reply(asking, request, reply, timeout_s)

    async def hear_out(
        self,
        peer: PeerId,
        protocol: str,
        request: Request,
        reply: type[M],
        hear: Callable[[Message], None],
        *,
        until: float = inf,
    ) -> M:
        """Ask, give all that is said before the `reply` to `hear`, and return the reply.

        For who only listens: our own rooms need no task for it. What `hear` raises ends the work.
        `until` is the deadline of the caller's own scope around this, if it has one: our own rooms
        need none besides.

        Raises:
            PeerUnreachableError, RequestRefusedError, RequestFailedError, RemoteProtocolError: as
                a conversation.
        """
        if peer != self._me:
            async with self._asker.converse(peer, protocol, request) as asked:
                while not isinstance(message := await asked.receive(), reply):
                    hear(message)
                return message
        answer = self._room(protocol)
        asking = request if isinstance(request, Message) else await request()
        last = await hear_ourselves_out(self._me, answer, asking, hear, until=until)
        if not isinstance(last, reply):
            raise RemoteProtocolError(f"{last.KIND} in answer to {asking.KIND}")
        return last

    def _room(self, protocol: str) -> Answer:
        if protocol not in self._rooms:
            raise RequestRefusedError("unsupported", f"{protocol} is not served here")
        return self._rooms[protocol]
