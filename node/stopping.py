"""How a node stops: at the first signal it hands over, within a bound; the second ends that.

A node that belongs to a program stops in the same way when the program is gone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import structlog
import trio

from kowalski.node.http.server import HttpServer
from kowalski.node.service_notices import ServiceNotices
from kowalski.node.services.draining import Draining

log = structlog.get_logger(__name__)

_READ_BYTES = 4096


class Stopping:
    """Cancels `scope` in the end.

    `draining`, `server` and `say_goodbye` are set once there is something to hand over, somebody
    who waits for answers, and somebody to tell.
    """

    def __init__(
        self, scope: trio.CancelScope, notices: ServiceNotices, *, within_s: float
    ) -> None:
        self._scope = scope
        self._notices = notices
        self._within_s = within_s
        self._is_stopping = False
        self.draining: Draining | None = None
        self.server: HttpServer | None = None
        self.say_goodbye: Callable[[], Awaitable[None]] | None = None

    async def heed_signals(self) -> None:
        """Until cancelled, which is what it does itself."""
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for number in signals:
                    log.info("stopping", signal=signal.Signals(number).name)
                    if self._is_stopping:
                        self._scope.cancel()
                    else:
                        self._is_stopping = True
                        nursery.start_soon(self.stop)

    async def heed_end_of(self, fd: int) -> None:
        """Until nothing more can come from `fd`, a pipe whose other end a program holds."""
        while await trio.to_thread.run_sync(os.read, fd, _READ_BYTES, abandon_on_cancel=True):
            pass
        log.info("stopping", why="the program that this node belongs to is gone")
        if not self._is_stopping:
            self._is_stopping = True
            await self.stop()

    async def stop(self) -> None:
        """Hand over, and end."""
        self._notices.stopping()
        if self.draining is not None:
            with trio.move_on_after(self._within_s):
                await self.draining.begin()
                await self.draining.until_empty()
                if self.server is not None:
                    await self.server.until_answered()
            if not (left := self.draining.left).is_nothing:
                log.warning("left-undone", what=left.words)
        if self.server is not None:
            await self.server.stop()
        if self.say_goodbye is not None:
            await self.say_goodbye()
        self._scope.cancel()
