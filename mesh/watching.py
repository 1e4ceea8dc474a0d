"""Who watches a node from within its process: the simulator, and nobody in production.

Set in the context in which a node is opened; the node's machines and its conversations with itself
tell it what they do. It hears and never answers: what is watched goes on as if it were not.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Protocol

from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.base import Message


class Recorded(Protocol):
    """The part of a driver that can be looked at."""

    @property
    def state(self) -> object: ...

    @property
    def machine(self) -> str:
        """The module of the machine."""
        ...

    @property
    def recorder(self) -> Iterable[tuple[float, object, tuple[object, ...]]]:
        """Its last steps: when, the event, the effects."""
        ...


class Watcher(Protocol):
    def stepped(
        self, driver: Recorded, event: object, now: float, effects: tuple[object, ...]
    ) -> None:
        """A machine has stepped, and its effects were performed; `now` is its own clock."""
        ...

    def said_to_itself(
        self, me: PeerId, conversation: object, message: Message, *, by_asker: bool, is_last: bool
    ) -> None:
        """A node says something in a conversation with itself, which no wire carries."""
        ...


watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
