"""What a coordinator has to say to the submitter, across broken conversations."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import trio

from kowalski.mesh.conversation import Conversation
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message

UNSENT_PROGRESS_MAX = 512


class Outbox:
    """In order, in one conversation at a time. Progress beyond a bound is not kept."""

    def __init__(self) -> None:
        self._unsent: deque[Message] = deque()
        self._changed = trio.Event()

    def say(self, message: Message) -> None:
        if isinstance(message, wire.Progress) and len(self._unsent) >= UNSENT_PROGRESS_MAX:
            return
        self._unsent.append(message)
        self._changed.set()

    def start_over(self, messages: Iterable[Message]) -> None:
        """A new conversation, which begins with these."""
        self._unsent = deque(messages)
        self._changed.set()

    async def send_all(self, conversation: Conversation) -> None:
        while True:
            while self._unsent:
                await conversation.send(self._unsent.popleft())
            self._changed = trio.Event()
            await self._changed.wait()
