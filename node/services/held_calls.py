"""Where a task's model calls are under way or known, though their coordinator never heard the end.

A coordinator that follows another, or lost a cell whose calls were under way, asks those who run
models before it asks for a call again. What nobody has is asked as if for the first time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from kowalski.mesh.core.blame import Weather
from kowalski.mesh.mesh import Mesh
from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.services import inference
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages.calls import CallName, CallsHeld, CallsSought

log = structlog.get_logger(__name__)

SEEK_S = 1.0
"""For all peers together: one that is silent now will not be asked for the call, either."""

PEERS_MAX = 64

FIRST_TERM = 1


class HeldCalls:
    """Of one session. `until_lease_held` returns before anything is sent to a peer."""

    def __init__(
        self,
        mesh: Mesh,
        task: TaskId,
        submitter: PeerId | None,
        *,
        term: Callable[[], int],
        until_lease_held: Callable[[], Awaitable[None]],
    ) -> None:
        self._mesh = mesh
        self._task = task
        self._submitter = submitter
        self._term = term
        self._until_lease_held = until_lease_held
        self._holders: dict[CallName, PeerId] = {}
        self._is_known = False
        self._is_interrupted = False
        self._seeking = trio.Lock()

    def interrupted(self) -> None:
        """Calls of ours were given up that will be asked for again."""
        self._is_known, self._is_interrupted = False, True

    async def take(self, call: CallName) -> PeerId | None:
        """Who has this call, told once: if it fails there, it is anybody's."""
        if not self._is_known or self._seeking.locked():
            async with self._seeking:
                if not self._is_known:
                    await self._seek()
        return self._holders.pop(call, None)

    async def _seek(self) -> None:
        self._is_known = True
        if self._submitter is None or not (self._is_interrupted or self._term() > FIRST_TERM):
            return
        await self._until_lease_held()
        sought = CallsSought(task=self._task, term=self._term(), submitter=self._submitter)
        with trio.move_on_after(SEEK_S):
            async with open_plain_nursery() as nursery:
                for peer in self._with_models()[:PEERS_MAX]:
                    nursery.start_soon(self._seek_at, peer, sought)
        if self._holders:
            log.info("calls-found", task=self._task, calls=len(self._holders))

    def _with_models(self) -> list[PeerId]:
        return [
            one.peer
            for one in self._mesh.candidates()
            if one.is_routable and "infer" in one.roles and one.models
        ]

    async def _seek_at(self, peer: PeerId, sought: CallsSought) -> None:
        try:
            told = await self._mesh.request(
                peer, inference.PROTOCOL, sought, CallsHeld, timeout_s=SEEK_S
            )
        except Weather as error:
            log.debug("calls-not-told", task=self._task, peer=peer, why=str(error))
            return
        self._holders.update(dict.fromkeys(told.calls, peer))
