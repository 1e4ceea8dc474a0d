"""Virtual time that waits for threads, and nodes whose clocks differ or stand still in it.

trio's own `MockClock` takes a task that waits for a thread for an idle one, and jumps: a fetch
from disk would time out for no reason. This clock, an ordinary `trio.abc.Clock`, jumps only while
no thread is at work.

A `NodeTime` is the clock of one device: a little fast or slow, started at its own moment, and at
times frozen with its process. Whatever runs in a context where one is set, `trio.current_time()`
and every deadline included, goes by it; the simulator itself goes by the time of the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from heapq import heappop, heappush
from importlib import import_module
from itertools import count
from math import inf, nextafter
from typing import Any

import trio
from trio.testing import active_thread_count

THREAD_WAIT_S = 60.0
"""Real seconds; the end of a thread wakes the loop at once, this only bounds the wait."""

STALE_DEADLINES_MAX = 1000


@dataclass(slots=True, eq=False)
class NodeTime:
    """One device's clock: `rate` of its seconds pass in one of the world's."""

    rate: float = 1.0
    offset_s: float = 0.0
    frozen_since: float = inf
    """World time. What was under way at that moment is done; nothing runs after it, until:"""
    frozen_until: float = -inf
    _asleep: tuple[float, float] | None = None
    """World time, from and until: the clock stands still."""

    def read(self, world: float) -> float:
        """What it shows at a time of the world."""
        if self._asleep is not None:
            since, until = self._asleep
            world = max(min(world, since), world - (until - since))
        return self.offset_s + world * self.rate

    def freeze(self, world: float, until: float) -> None:
        """Let nothing run from a time of the world until another; the clock goes on."""
        if world >= self.frozen_until:
            self.frozen_since = world
        self.frozen_until = max(self.frozen_until, until)

    def thaw(self, world: float) -> None:
        """Who has stood still does so no longer: its process has ended, or its device wakes."""
        self.frozen_until = min(self.frozen_until, world)
        if self._asleep is not None:
            since, until = self._asleep
            self._asleep = (since, min(until, max(world, since)))

    def sleep(self, world: float, until: float) -> None:
        """Like a device that is suspended: CLOCK_MONOTONIC stands still as well."""
        self.freeze(world, until)
        if self._asleep is not None:  # that sleep is over, or this one is part of it
            since, until_then = self._asleep
            if world < until_then:
                self._asleep = (since, max(until, until_then))
                return
            self.offset_s -= (until_then - since) * self.rate
        self._asleep = (world, until)

    def is_steady(self, world: float) -> bool:
        """Whether it does not stand still then, and has never slept: what `when` said holds."""
        return self._asleep is None and self.frozen_until <= world

    def when(self, shown: float) -> float:
        """The earliest time of the world at which it shows at least `shown`."""
        if shown in {inf, -inf}:
            return shown
        world = (shown - self.offset_s) / self.rate
        if self._asleep is not None and world > self._asleep[0]:
            world += self._asleep[1] - self._asleep[0]
        while self.read(world) < shown:  # rounding; a timer must not fire before its time
            world = nextafter(world, inf)
        return world


WORLD = NodeTime()
"""The time of whatever belongs to no node."""

node_time: ContextVar[NodeTime] = ContextVar("node_time", default=WORLD)


class JumpingClock(trio.abc.Clock):
    """Stands still while any task or thread is at work, else jumps to the next deadline."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._order = count()
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []

    def start_clock(self) -> None:
        """Nothing to start: time passes in jumps."""

    def current_time(self) -> float:
        """What the clock of the node shows that asks; the world's to everybody else."""
        time = node_time.get()
        return self._now if time is WORLD else time.read(self._now)

    @property
    def world_time(self) -> float:
        """The same for whoever asks."""
        return self._now

    def alarm(self, at: float, call: Callable[[], None]) -> None:
        """Call something at a time of the world, as soon as no task can go on.

        It is no task, and takes no turn of one: where very much arrives, that is much of the work.
        """
        heappush(self._alarms, (at, next(self._order), call))

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Real seconds to wait for what comes from outside; asked when no task can go on."""
        if active_thread_count():
            return THREAD_WAIT_S
        alarms = self._alarms
        if alarms and alarms[0][0] <= deadline:
            self._now = max(self._now, alarms[0][0])
            while alarms and alarms[0][0] <= self._now:
                heappop(alarms)[2]()
            return 0.0
        if deadline == inf:
            return THREAD_WAIT_S
        self._now = max(self._now, deadline)
        return 0.0


# --- deadlines by the clocks of nodes -----------------------------------------------------------

_run: Any = import_module("trio._core._run")
assert hasattr(_run, "Deadlines"), "trio has changed how it keeps deadlines"


class _NodeDeadlines(_run.Deadlines):  # type: ignore[misc, no-any-unimported]
    """trio's deadlines, each in the time of the node that set it, in the order of the world's."""

    def __init__(self) -> None:
        super().__init__()
        self._order = count()
        self._due: list[tuple[float, int, float, Any, NodeTime]] = []

    def add(self, deadline: float, cancel_scope: Any) -> None:  # noqa: ANN401 trio's own type
        time = node_time.get()
        entry = (time.when(deadline), next(self._order), deadline, cancel_scope, time)
        heappush(self._due, entry)
        self._active += 1

    def next_deadline(self) -> float:
        all_due = self._due
        while all_due:
            due, order, deadline, scope, time = all_due[0]
            if deadline != scope._registered_deadline:  # noqa: SLF001 as trio does
                heappop(all_due)
                continue
            if time.is_steady(due):
                return due
            later = max(time.when(deadline), time.frozen_until)
            if due >= later:
                return due
            heappop(all_due)  # its node stands still, or its clock has been
            heappush(all_due, (later, order, deadline, scope, time))
        return inf

    def expire(self, now: float) -> bool:
        if not self._due or self._due[0][0] > now:
            return False  # what is put off gets later, never earlier
        did_something = False
        while self.next_deadline() <= now:
            scope = heappop(self._due)[3]
            scope._cancel(_run.CancelReason(source="deadline"))  # noqa: SLF001 as trio does
            did_something = True
        if len(self._due) > 2 * self._active + STALE_DEADLINES_MAX:
            self._forget_stale()
        return did_something

    def left(self) -> list[tuple[float, Any, NodeTime]]:
        """Those that are still to come, in the order in which they were set."""
        self._forget_stale()
        return [due[2:] for due in sorted(self._due, key=lambda due: due[1])]

    def _forget_stale(self) -> None:
        fresh = {
            due[3]: due
            for due in self._due
            if due[2] == due[3]._registered_deadline  # noqa: SLF001 as trio does
        }
        self._due = sorted(fresh.values(), key=lambda due: due[:2])


@contextmanager
def deadlines_by_node() -> Iterator[None]:
    """Within the block, in a running trio: deadlines are in the time of the node that sets them.

    trio has no public way to this; the version is pinned below the next minor, and what is relied
    on is asserted.
    """
    runner = _run.GLOBAL_RUN_CONTEXT.runner
    before = runner.deadlines
    assert isinstance(before, _run.Deadlines), "trio has changed how it keeps deadlines"
    mine = _NodeDeadlines()
    for deadline, _, scope in before._heap:  # noqa: SLF001 as above
        if deadline == scope._registered_deadline:  # noqa: SLF001 as above
            mine.add(deadline, scope)
    runner.deadlines = mine
    try:
        yield
    finally:
        runner.deadlines = before
        for deadline, scope, time in mine.left():
            before.add(time.when(deadline), scope)
