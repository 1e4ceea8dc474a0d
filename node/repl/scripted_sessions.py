"""Sessions without processes, for virtual time: what a cell does is a function of its code.

The second implementation of the seam (`seam.SessionsHost`). Slots, busy refusals, time, sub-calls,
interrupts and lost sessions behave as with real kernels; no code is executed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from kowalski.node.repl.seam import (
    WAITING_MAX,
    Answer,
    Artefact,
    CellOutcome,
    Collected,
    OnOutput,
    OnSubCalls,
    Scene,
    SubCall,
    SubCallResult,
)
from kowalski.protocol.errors import RequestRefusedError


@dataclass(frozen=True, slots=True)
class ScriptedCell:
    """What a cell does: work for `duration_s`, ask `sub_calls`, print, end as `outcome`.

    `outcome_of`, when given, makes the outcome from the answers to the sub-calls instead.
    """

    outcome: CellOutcome = field(default_factory=lambda: CellOutcome("ok", exit_code=0))
    duration_s: float = 0.0
    sub_calls: tuple[SubCall, ...] = ()
    outcome_of: Callable[[tuple[SubCallResult, ...]], CellOutcome] | None = None
    leaves: tuple[Artefact, ...] = ()
    """Files in the working folder, new or changed."""


@dataclass(frozen=True, slots=True)
class ScriptedState:
    """What a script may depend on: nothing else, or runs would differ."""

    language: str
    inputs: Mapping[str, Path]
    seed: int
    codes: tuple[str, ...]
    """Of the cells before this one."""
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    scene: Scene = field(default_factory=Scene)
    clock: tuple[int, ...] = ()


Script = Callable[[str, ScriptedState], ScriptedCell]


class ScriptedSession:
    """A `seam.ReplSession`."""

    def __init__(self, script: Script, state: ScriptedState, on_close: Callable[[], None]) -> None:
        self._script = script
        self._state = state
        self._on_close = on_close
        self._clock: trio.CancelScope | None = None
        self._left: dict[str, Artefact] = {}
        self._is_interrupted = False
        self._is_lost = False
        self._is_closed = False
        self.is_waiting = False
        """Whether its cell waits for sub-calls."""

    @property
    def language(self) -> str:
        return self._state.language

    @property
    def is_alive(self) -> bool:
        return not self._is_lost and not self._is_closed

    async def run_cell(
        self,
        code: str,
        *,
        timeout_s: float,
        on_output: OnOutput,
        on_sub_calls: OnSubCalls,
        scene: Scene | None = None,
        clock: tuple[int, ...] = (),
    ) -> CellOutcome:
        """See `seam.ReplSession.run_cell`."""
        if self._clock is not None:
            raise RequestRefusedError("busy", "another cell of this session is running")
        if not self.is_alive:
            await trio.lowlevel.checkpoint()
            return CellOutcome("died", error="the session is lost", session_alive=False)
        started = trio.current_time()
        self._is_interrupted = False
        self._clock = trio.CancelScope()
        try:
            state = replace(self._state, scene=scene or Scene(), clock=clock)
            cell = self._script(code, state)
            outcome = await self._play(cell, self._clock, timeout_s, on_sub_calls)
            self._left.update((each.name, each) for each in cell.leaves)
        finally:
            self._clock = None
        self._state = replace(self._state, codes=(*self._state.codes, code))
        if outcome.stdout:
            on_output("stdout", outcome.stdout)
        if outcome.stderr:
            on_output("stderr", outcome.stderr)
        self._is_lost = not outcome.session_alive or self._is_closed
        return replace(
            outcome,
            stdout_bytes=len(outcome.stdout),
            stderr_bytes=len(outcome.stderr),
            variables_digest=self._digest(),
            duration_s=trio.current_time() - started,
            session_alive=not self._is_lost,
        )

    async def _play(
        self,
        cell: ScriptedCell,
        clock: trio.CancelScope,
        timeout_s: float,
        on_sub_calls: OnSubCalls,
    ) -> CellOutcome:
        results: tuple[SubCallResult, ...] = ()
        with clock:
            if cell.sub_calls:
                self.is_waiting = True
                try:
                    results = await on_sub_calls(cell.sub_calls)
                finally:
                    self.is_waiting = False
            # The clock of a cell stands while its sub-calls are answered.
            clock.deadline = trio.current_time() + timeout_s
            await trio.sleep(cell.duration_s)
            clock.deadline = math.inf
            return cell.outcome_of(results) if cell.outcome_of is not None else cell.outcome
        if self._is_closed:
            return CellOutcome("died", error="the session was closed", session_alive=False)
        return CellOutcome("cancelled" if self._is_interrupted else "timeout")

    def interrupt(self) -> None:
        """See `seam.ReplSession.interrupt`."""
        if self._clock is not None:
            self._is_interrupted = True
            self._clock.cancel()

    async def collect(self, *, files_max: int, bytes_max: int) -> Collected:
        """See `seam.ReplSession.collect`."""
        await trio.lowlevel.checkpoint()
        left = [self._left[name] for name in sorted(self._left)] if self.is_alive else []
        self._left.clear()
        fit = [each for each in left if len(each.data) <= bytes_max][:files_max]
        return Collected(tuple(fit), len(left) - len(fit))

    def retire(self) -> None:
        """See `seam.ReplSession.retire`."""
        self._on_close()

    async def close(self) -> None:
        """See `seam.ReplSession.close`."""
        if not self._is_closed:
            self._is_closed = True
            if self._clock is not None:
                self._clock.cancel()
            self._on_close()

    def _digest(self) -> str:
        state = (self._state.seed, *self._state.codes)
        return hashlib.sha256(repr(state).encode()).hexdigest()


class ScriptedHost:
    """A `seam.SessionsHost`; made by `open_scripted_host`."""

    def __init__(self, script: Script, languages: Mapping[str, str], slots: int) -> None:
        self._script = script
        self._languages = dict(languages)
        self._slots = slots
        self._sessions: set[ScriptedSession] = set()

    @property
    def tier(self) -> str:
        return "scripted"

    @property
    def languages(self) -> Mapping[str, str]:
        return dict(self._languages)

    async def wait_changed(self) -> None:
        """Never."""
        await trio.sleep_forever()

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def slots_free(self) -> int:
        waiting = sum(session.is_waiting for session in self._sessions)
        return self._slots + min(waiting, WAITING_MAX) - len(self._sessions)

    async def open(
        self,
        language: str,
        inputs: Mapping[str, Path],
        seed: int,
        files: Mapping[str, Path] | None = None,
    ) -> ScriptedSession:
        """See `seam.SessionsHost.open`."""
        await trio.lowlevel.checkpoint()
        if language not in self._languages:
            raise RequestRefusedError("unsupported", f"no {language} here")
        if self.slots_free <= 0:
            raise RequestRefusedError("busy", "every slot is taken", 2.0)
        state = ScriptedState(language, dict(inputs), seed, (), dict(files or {}))
        session = ScriptedSession(self._script, state, lambda: self._sessions.discard(session))
        self._sessions.add(session)
        return session

    async def close(self) -> None:
        """Close every session."""
        for session in list(self._sessions):
            await session.close()


@asynccontextmanager
async def open_scripted_host(
    script: Script, *, languages: Mapping[str, str] | None = None, slots: int = 2
) -> AsyncIterator[ScriptedHost]:
    """Sessions that do what `script` says of each cell's code and the session's state."""
    host = ScriptedHost(script, languages or {"python": "3.11.0"}, slots)
    try:
        yield host
    finally:
        await host.close()


def prints(text: str, *, answer: str | None = None, duration_s: float = 0.0) -> ScriptedCell:
    """The commonest cell: prints, and perhaps answers."""
    found = None if answer is None else Answer(answer, ready=True)
    outcome = CellOutcome("ok", stdout=text.encode(), answer=found, exit_code=0)
    return ScriptedCell(outcome, duration_s=duration_s)
