"""A conversation of a node with itself: both sides in one process, no bytes, same manners."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from math import inf

import trio

from kowalski.mesh.conversation import Answer, Conversation, outcome_of, unless_no
from kowalski.mesh.core.deadlines import MARGIN_S_MAX
from kowalski.mesh.inbox import Inbox
from kowalski.mesh.interruption import is_interrupted
from kowalski.mesh.watching import watcher
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message


class _Ear:
    """One side's half of a conversation with ourselves; messages are handed over as they are."""

    def __init__(self, peer: PeerId, *, is_asker: bool) -> None:
        self._peer = peer
        self._is_asker = is_asker
        self._watcher = watcher.get()
        self.inbox = Inbox()
        self.other: _Ear
        self.is_taken_back = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, message: Message, *, more_follows: bool = False) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        self.say(message)

    def say(self, message: Message, *, is_last: bool = False) -> None:
        self.tell_watcher(message, is_last=is_last)
        self.other.inbox.put(message, is_last=is_last)

    def tell_watcher(self, message: Message, *, is_last: bool = False) -> None:
        if self._watcher is not None:
            is_asker = self._is_asker
            asking = self if is_asker else self.other
            self._watcher.said_to_itself(
                self._peer, asking, message, by_asker=is_asker, is_last=is_last
            )

    async def receive(self) -> Message:
        message = await self.inbox.get()
        return unless_no(message) if self._is_asker else message


@asynccontextmanager
async def converse_with_ourselves(
    me: PeerId, answer: Answer, request: Message, nursery: trio.Nursery
) -> AsyncIterator[Conversation]:
    """Like `Asker.converse`, with the answering side in this process. No bytes, same manners.

    The answering task lives in `nursery`, so that errors in the block stay plain.
    """
    asking, answering = _Ear(me, is_asker=True), _Ear(me, is_asker=False)
    asking.other, answering.other = answering, asking
    scope = trio.CancelScope()

    async def run() -> None:
        gone = PeerUnreachableError("the other side has left")
        try:
            with scope:
                last = await outcome_of(answer, answering, lambda: request)
                answering.say(last, is_last=True)
        finally:
            answering.inbox.end(gone)
            asking.inbox.end(gone)

    asking.tell_watcher(request)
    nursery.start_soon(run)
    try:
        yield asking
    finally:
        answering.is_taken_back = not is_interrupted()
        scope.cancel()


class _Teller:
    """The answering side where the asker only listens: each message is heard as it is said."""

    def __init__(self, peer: PeerId, hear: Callable[[Message], None], until: float) -> None:
        self._peer = peer
        self._hear = hear
        self.until = until
        """When the asker gives up, and this with it."""
        self._watcher = watcher.get()
        self.failure: Exception | None = None
        """What the asker came to grief with; it has left since."""

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def is_taken_back(self) -> bool:
        """An asker of this process is never lost: who is cancelled, was by the asker."""
        is_cancelled = trio.current_effective_deadline() == -inf
        return self.failure is not None or (is_cancelled and not is_interrupted())

    async def send(self, message: Message, *, more_follows: bool = False) -> None:  # noqa: ARG002
        if self.failure is None:
            self.tell_watcher(message)
            try:
                self._hear(message)
            except Exception as error:  # noqa: BLE001 raised where it was asked
                self.failure = error
        if self.failure is not None:
            raise PeerUnreachableError("the other side has left") from self.failure

    async def receive(self) -> Message:
        """Who only listens says nothing more."""
        await trio.sleep_forever()

    def tell_watcher(
        self, message: Message, *, by_asker: bool = False, is_last: bool = False
    ) -> None:
        if self._watcher is not None:
            self._watcher.said_to_itself(
                self._peer, self, message, by_asker=by_asker, is_last=is_last
            )


async def hear_ourselves_out(
    me: PeerId,
    answer: Answer,
    request: Message,
    hear: Callable[[Message], None],
    *,
    until: float = inf,
) -> Message:
    """The last message in answer to `request`; all before it go to `hear`, which must not block.

    Answered in the task of whoever asks. To raise in `hear` is to leave: the work ends, and the
    error comes out here. `until`: the deadline of a scope in which it is asked, if there is one.

    Raises:
        RequestRefusedError, RequestFailedError: that was the answer.
    """
    teller = _Teller(me, hear, until)
    teller.tell_watcher(request, by_asker=True)
    last = await outcome_of(answer, teller, lambda: request)
    if teller.failure is not None:
        raise teller.failure
    teller.tell_watcher(last, is_last=True)
    return unless_no(last)


_NO_SCOPE = nullcontext()


def no_longer_than(conversation: Conversation, deadline: float) -> AbstractContextManager[object]:
    """Ends the work in the block at `deadline`; what follows the block then says so.

    Who hears itself out does the work in the task that asks for it. Where that has said when it
    gives up, at the same time but for the margin that is left for a no to come back, its scope ends
    the work, and no second one is set.
    """
    if isinstance(conversation, _Teller) and conversation.until - deadline <= MARGIN_S_MAX:
        return _NO_SCOPE
    return trio.move_on_at(deadline)
