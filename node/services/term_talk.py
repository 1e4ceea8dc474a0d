"""The submitter's side of one term: the grant, what is said to the coordinator, what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.core import task_ledger
from kowalski.node.core.task_ledger import Task
from kowalski.node.services.coordinator import PROTOCOL
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import task as wire
from kowalski.protocol.messages.base import Message

UNSAID_MAX = 1024

DECLINES: dict[str, task_ledger.Decline] = {
    "busy": "busy",
    "draining": "leaving",
    "no_peer": "unable",
}
"""What a refusal means for the term; any other is a failure."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A term that the ledger has granted, and to whom else it points."""

    task: Task
    standbys: tuple[PeerId, ...]
    holders: tuple[PeerId, ...]


class TermTalk:
    """The conversation of one term, from one opening of it to its end."""

    def __init__(
        self, granted: Granted, *, lease_s: float, submitter: PeerId | None = None
    ) -> None:
        self.task = granted.task
        self._submitter = submitter
        self._granted = granted
        self._lease_s = lease_s
        self.scope = trio.CancelScope()
        self._unsaid_in, self._unsaid = trio.open_memory_channel[Message](UNSAID_MAX)

    def say(self, message: Message) -> None:
        try:
            self._unsaid_in.send_nowait(message)
        except trio.WouldBlock:
            # It has not read a thousand messages; silence will end this term.
            self.scope.cancel()

    async def hold(
        self, mesh: Mesh, hear: Callable[[TermTalk, Message], None]
    ) -> task_ledger.Event | None:
        """Grant, and hear the coordinator until its term is over; how it ended.

        None: we ended it ourselves.

        Raises:
            StorageError: what it said could not be stored.
        """
        task, coordinator = self.task, self.task.coordinator
        assert coordinator is not None
        try:
            with self.scope:
                await self._converse(mesh, coordinator, hear)
        except RequestRefusedError as no:
            how = DECLINES.get(no.reason, "failed")
            return task_ledger.CoordinatorDeclined(task.id, task.term, str(no), how)
        except Weather as error:
            return task_ledger.CoordinatorLost(task.id, task.term, str(error))
        if self.scope.cancelled_caught:
            return None
        return task_ledger.SettledHeard(task.id, task.term)

    async def _converse(
        self, mesh: Mesh, coordinator: PeerId, hear: Callable[[TermTalk, Message], None]
    ) -> None:
        async with (
            mesh.converse(coordinator, PROTOCOL, self._grant()) as conversation,
            open_plain_nursery() as nursery,
        ):
            nursery.start_soon(self._say_all, conversation)
            while not isinstance(message := await conversation.receive(), wire.Settled):
                hear(self, message)
            nursery.cancel_scope.cancel()

    def _grant(self) -> wire.Grant:
        return wire.Grant(
            task=self.task.id,
            term=self.task.term,
            spec=self.task.spec,
            prefix_entries=self.task.entries,
            last_digest=self.task.last_digest,
            standbys=self._granted.standbys,
            holders=self._granted.holders,
            lease_s=self._lease_s,
            remaining_s=remaining_s(self.task),
            submitter=self._submitter,
        )

    async def _say_all(self, conversation: Conversation) -> None:
        async for message in self._unsaid:
            await conversation.send(message)


def remaining_s(task: Task) -> float:
    return max(0.0, task.deadline_at - trio.current_time())
