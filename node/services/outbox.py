"""What a coordinator has to say to the submitter, across broken conversations."""

from __future__ import annotations

from collections import deque

import trio

from kowalski.mesh.conversation import Conversation
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message

UNSENT_PROGRESS_MAX = 512


class Outbox:
    """What is to be said to the submitter. Entries are kept until accepted, progress is not."""

    def __init__(self) -> None:
        self._unaccepted: deque[wire.EntryOffered] = deque()
        self._unsent: deque[Message] = deque()
        self._changed = trio.Event()

    def offer(self, offered: wire.EntryOffered) -> None:
        self._unaccepted.append(offered)
        self.say(offered)

    def say(self, message: Message) -> None:
        if isinstance(message, wire.Progress) and len(self._unsent) >= UNSENT_PROGRESS_MAX:
            return
        self._unsent.append(message)
        self._changed.set()

    def accepted(self, index: int) -> None:
        while self._unaccepted and self._unaccepted[0].entry.index <= index:
            self._unaccepted.popleft()

    def start_over(self, accepted_entries: int) -> None:
        """A new conversation: whatever the submitter has not accepted is said again."""
        self.accepted(accepted_entries - 1)
        self._unsent = deque(self._unaccepted)
        self._changed.set()

    async def send_all(self, conversation: Conversation) -> None:
        while True:
            while self._unsent:
                await conversation.send(self._unsent.popleft())
            self._changed = trio.Event()
            await self._changed.wait()
