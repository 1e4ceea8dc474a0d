"""How a node stops: at the first signal it hands over, within a bound; the second ends that."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import structlog
import trio

from kowalski.node.service_notices import ServiceNotices
from kowalski.node.services.draining import Draining

log = structlog.get_logger(__name__)


class Stopping:
    """Cancels `scope` in the end.

    `draining` and `say_goodbye` are set once there is something to hand over, and somebody to tell.
    """

    def __init__(
        self, scope: trio.CancelScope, notices: ServiceNotices, *, within_s: float
    ) -> None:
        self._scope = scope
        self._notices = notices
        self._within_s = within_s
        self._is_stopping = False
        self.draining: Draining | None = None
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

    async def stop(self) -> None:
        """Hand over, and end."""
        self._notices.stopping()
        if self.draining is not None:
            with trio.move_on_after(self._within_s):
                await self.draining.begin()
                await self.draining.until_empty()
            if not (left := self.draining.left).is_nothing:
                log.warning("left-undone", what=left.words)
        if self.say_goodbye is not None:
            await self.say_goodbye()
        self._scope.cancel()
