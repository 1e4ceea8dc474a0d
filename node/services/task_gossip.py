"""Telling every member of the tasks that were submitted here, and hearing of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog
import trio

from kowalski.mesh.gossip_reading import message_of
from kowalski.mesh.transport import Gossip, Transport
from kowalski.node.core import announced_tasks
from kowalski.node.core.announced_tasks import AnnouncedTasks, Elsewhere, Said
from kowalski.protocol import codec
from kowalski.protocol.ids import PeerId, TaskId, Topic
from kowalski.protocol.messages.task import Announced, TaskHeadline

log = structlog.get_logger(__name__)

LOOK_S = 1.0


class TaskGossip:
    """`own` tells the headlines of our tasks: the open ones, and those that ended lately."""

    def __init__(
        self,
        transport: Transport,
        topic: Topic,
        *,
        boot: str,
        admits: Callable[[PeerId], bool],
        own: Callable[[], Iterable[TaskHeadline]],
    ) -> None:
        self._transport = transport
        self._topic = topic
        self._boot = boot
        self._admits = admits
        self._own = own
        self._sequence = 0
        self._said = Said()
        self._view = AnnouncedTasks()

    def listed(self) -> tuple[Elsewhere, ...]:
        """Tasks that others have announced, the latest submitted first."""
        return announced_tasks.listed(self._view, trio.current_time())

    def find(self, task: TaskId) -> tuple[Elsewhere, ...]:
        return announced_tasks.find(self._view, task, trio.current_time())

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Announce and hear until cancelled; ready once the topic is heard."""
        heard = await self._transport.subscribe(self._topic, admits=self._admits)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            task_status.started()
            async for gossip in heard:
                self._hear(gossip)

    def _hear(self, gossip: Gossip) -> None:
        message = message_of(gossip)
        if isinstance(message, Announced):
            now = trio.current_time()
            self._view = announced_tasks.hear(self._view, gossip.origin, message, now)

    async def _announce(self) -> None:
        while True:
            now = trio.current_time()
            self._said, news = announced_tasks.to_say(self._said, self._own(), now)
            if news:
                self._sequence += 1
                announced = Announced(boot=self._boot, sequence=self._sequence, tasks=news)
                await self._transport.publish(self._topic, codec.encode(announced))
            await trio.sleep(LOOK_S)
