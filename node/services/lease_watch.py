"""A coordinator's lease on the clock: those who wait for it, and what is seen when time passes."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from kowalski.node.core import coordinator_lease
from kowalski.node.core.coordinator_lease import Lease, Phase
from kowalski.node.core.invariants import must
from kowalski.node.services.placing import NotYetError
from kowalski.protocol.ids import PeerId

log = structlog.get_logger(__name__)

LOOK_S = 0.5
LOOK_S_MIN = 0.01


class LeaseWatch:
    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._changed = trio.Event()

    @property
    def is_over(self) -> bool:
        return not self._lease.is_held(trio.current_time())

    def change(self, change: Callable[[Lease, float], Lease]) -> None:
        """Something was heard: `change` is given the lease and the time."""
        self._lease = change(self._lease, trio.current_time())
        self._changed.set()
        self._changed = trio.Event()

    def witnessed(self, standby: PeerId) -> None:
        self.change(lambda lease, now: coordinator_lease.witnessed(lease, standby, now))

    def require(self) -> None:
        """Return if the lease allows to dispatch work at this moment.

        Raises:
            NotYetError: it does not; to be waited for where that keeps nobody else from anything.
        """
        if not self._lease.may_dispatch(trio.current_time()):
            raise NotYetError(self.until_may_dispatch)

    async def until_may_dispatch(self) -> None:
        """Return at once while the lease allows to dispatch work, else when it does again."""
        while not self._lease.may_dispatch(trio.current_time()):
            await self._changed.wait()
        now = trio.current_time()
        must(self._lease.may_dispatch(now), "lease_stop", f"term {self._lease.term} at {now}")

    async def watch(
        self, is_submitter_here: Callable[[], bool], see: Callable[[Phase, bool], None]
    ) -> None:
        """Look again and again, until cancelled; `see` hears the phase and who is here."""
        before: Phase = "held"
        while True:
            is_here = is_submitter_here()
            self._lease = coordinator_lease.submitter_seen(self._lease, is_here=is_here)
            self.change(lambda lease, _now: lease)
            now = trio.current_time()
            phase = self._lease.phase(now)
            if phase != before:
                log.info("lease", term=self._lease.term, phase=phase, was=before)
                before = phase
            see(phase, is_here)
            until_s = self._lease.wake_at(now) - now
            await trio.sleep(min(LOOK_S, max(LOOK_S_MIN, until_s)))
