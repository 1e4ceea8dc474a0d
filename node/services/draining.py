"""A node that is about to leave: it takes nothing on, gives back what it leads, ends what it began.

Tasks go to whoever their submitters appoint next, once what they have under way is done: nothing is
done twice. Sessions of tasks are made again elsewhere, from the journal. What can go nowhere else
is done here to its end: the sessions of which no cell may run twice, and whatever of a task that is
under way nobody else could do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

from kowalski.mesh.mesh import Mesh
from kowalski.node.core.job import Job
from kowalski.node.services.coordinator import CoordinatorRoom
from kowalski.node.services.gate import Gate
from kowalski.node.services.repl import ReplRoom

log = structlog.get_logger(__name__)

LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Left:
    """What keeps a node from leaving, by number.

    `tasks`: led here. `jobs`: cells, model calls and folds. `sessions`: those that cannot be made
    again elsewhere.
    """

    tasks: int = 0
    jobs: int = 0
    sessions: int = 0

    @property
    def is_nothing(self) -> bool:
        return not (self.tasks or self.jobs or self.sessions)

    @property
    def words(self) -> str:
        kinds = (("task", self.tasks), ("job", self.jobs), ("session", self.sessions))
        parts = [f"{n} {what}{'s' if n > 1 else ''}" for what, n in kinds if n]
        return ", ".join(parts) or "nothing"


class Draining:
    """Made once a node. `coordinator` and `cells` are None where it has no such room."""

    def __init__(
        self,
        gate: Gate,
        *,
        coordinator: CoordinatorRoom | None = None,
        cells: ReplRoom | None = None,
        elsewhere: Callable[[Job], bool],
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._gate = gate
        self._coordinator = coordinator
        self._cells = cells
        self._elsewhere = elsewhere
        self._announce = announce
        self.step_down: Callable[[], None] | None = None
        """Has the others lead what several nodes keep together."""
        self.is_on = False

    @property
    def left(self) -> Left:
        return Left(
            tasks=len(self._coordinator.leading) if self._coordinator else 0,
            jobs=self._gate.jobs,
            sessions=sum(
                is_bound or not self._elsewhere(Job("code", language=language))
                for language, is_bound in (self._cells.sessions if self._cells else ())
            ),
        )

    async def begin(self) -> None:
        """Take nothing on from now on, and tell everybody. Again: nothing changes."""
        await self._turn(is_on=True)

    async def end(self) -> None:
        """Take work again."""
        await self._turn(is_on=False)

    async def _turn(self, *, is_on: bool) -> None:
        if is_on == self.is_on:
            return
        self.is_on = is_on
        log.info("draining" if is_on else "taking-work-again", left=self.left.words)
        self._gate.drain(is_on=is_on)
        if self._coordinator is not None:
            self._coordinator.drain(is_on=is_on)
        await self._announce()

    async def until_empty(self, on_left: Callable[[Left], Awaitable[None]] | None = None) -> None:
        """Give back and wait until nothing is left, or somebody has this node take work again.

        `on_left` hears whenever something has gone.
        """
        told: Left | None = None
        while self.is_on:
            if self._coordinator is not None:
                self._coordinator.hand_over()
            if self.step_down is not None:
                self.step_down()
            left = self.left
            if on_left is not None and left != told:
                await on_left(left)
                told = left
            if left.is_nothing:
                return
            await trio.sleep(LOOK_S)


def is_done_elsewhere(mesh: Mesh, job: Job) -> bool:
    """Whether some other peer does such a job, and stays."""
    others = mesh.rank(job.need, excluding=frozenset({mesh.me})).choices
    return any(not one.candidate.is_draining for one in others)
