"""The one loop between a core and the world: events in, effects out, a single timer.

A core is `step(state, event, now) -> (state, effects)` with `wake_at(state)`. The driver owns the
state, asks `step`, and hands each effect to `perform` in order. `perform` never blocks: slow work
goes into somebody's nursery, and its outcome comes back through `handle` as an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from kowalski.mesh.watching import watcher

State = TypeVar("State")
Event = TypeVar("Event")
Effect = TypeVar("Effect")

RECORDED_STEPS = 1000


class Driver(Generic[State, Event, Effect]):
    """Runs one machine. All its events pass through one thread, in one order."""

    def __init__(
        self,
        state: State,
        *,
        step: Callable[[State, Event, float], tuple[State, tuple[Effect, ...]]],
        wake_at: Callable[[State], float],
        time_passed: Event,
        perform: Callable[[Effect], None],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.state = state
        self.machine = step.__module__
        self.recorder: deque[tuple[float, Event, tuple[Effect, ...]]] = deque(maxlen=RECORDED_STEPS)
        """The last steps that were performed: the same events at the same times lead here again."""
        self._step = step
        self._wake_at = wake_at
        self._time_passed = time_passed
        self._perform = perform
        self._clock = clock
        self._woken_by: tuple[State, float] | None = None
        self._watcher = watcher.get()
        self._pending: deque[Event] = deque()
        self._is_stepping = False
        self._sleep: trio.CancelScope | None = None

    def handle(self, event: Event) -> None:
        """Step the machine with `event` and perform what follows, now.

        Called from within `perform`, the event waits until the effects before it are performed.
        When `perform` raises, the machine is as if the event had never come, nor those that its
        effects led to, and the caller hears of it: effects that must be durable come first for
        that reason.
        """
        self._pending.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        failure: Exception | None = None
        try:
            while self._pending:
                try:
                    self._step_once(self._pending.popleft())
                except Exception as error:  # noqa: BLE001 raised below
                    failure = failure or error
        finally:
            self._is_stepping = False
            if self._sleep is not None:
                self._sleep.deadline = self._wakes_at()
        if failure is not None:
            raise failure

    def _wakes_at(self) -> float:
        """When the state as it is wants to hear of the time. It is asked more than once of most."""
        if self._woken_by is None or self._woken_by[0] is not self.state:
            self._woken_by = self.state, self._wake_at(self.state)
        return self._woken_by[1]

    def _step_once(self, event: Event) -> None:
        now, before, waiting = self._clock(), self.state, len(self._pending)
        self.state, effects = self._step(before, event, now)
        try:
            for effect in effects:
                self._perform(effect)
        except Exception:
            self.state = before
            while len(self._pending) > waiting:
                self._pending.pop()
            raise
        self.recorder.append((now, event, effects))
        if self._watcher is not None:
            self._watcher.stepped(self, event, now, effects)

    async def run(self) -> None:
        """Keep the machine's time until cancelled."""
        while True:
            # Most steps put off what is due: the sleep gets longer then, and nobody is woken.
            with trio.CancelScope(deadline=self._wakes_at()) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None
            if self._clock() >= self._wakes_at():
                self.handle(self._time_passed)
