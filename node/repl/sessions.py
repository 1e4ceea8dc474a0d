"""Sessions on real kernels: who holds a slot, which kernels wait warm, what dies when.

Implements `seam.SessionsHost`. One cell is `cell_run`'s business, one process `kernel`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.repl.artefacts import collect_artefacts
from kowalski.node.repl.cell_run import CellRun, over_limit
from kowalski.node.repl.kernel import Kernel, start_kernel
from kowalski.node.repl.kernel_source import KernelSource, open_kernel_source, remove_leftovers
from kowalski.node.repl.languages import LANGUAGES, kernels_of
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.sandbox import Sandbox
from kowalski.node.repl.seam import Artefact, CellOutcome, OnOutput, OnSubCalls
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)

_IDLE_WATCH_INTERVAL_S = 1.0
_WARM_RETRY_S = 5.0
_REFILL_AFTER_S = 0.004
_RUN_ENDS_S_MAX = 2.0
_RETRY_AFTER_S = 2.0
_TOO_MUCH = {"memory": "memory", "inodes": "in files"}
# `bubblewrap` has this many uids of its own, and the last is the probes'.
SLOTS_MAX = 60


class KernelSession:
    """A `seam.ReplSession` on a kernel of its own."""

    def __init__(self, kernel: Kernel, language: str, limits: Limits, host: KernelHost) -> None:
        self._kernel = kernel
        self._language = language
        self._limits = limits
        self._host = host
        self._cells = 0
        self._run: CellRun | None = None
        self._run_over = trio.Event()
        self._lost_because = ""
        self._is_closed = False

    @property
    def language(self) -> str:
        return self._language

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and not self._lost_because and self._kernel.is_alive

    async def run_cell(
        self, code: str, *, timeout_s: float, on_output: OnOutput, on_sub_calls: OnSubCalls
    ) -> CellOutcome:
        """See `seam.ReplSession.run_cell`."""
        if self._run is not None:
            raise RequestRefusedError("busy", "another cell of this session is running")
        if not self.is_alive:
            await trio.lowlevel.checkpoint()
            why = self._lost_because or "its process is gone"
            return CellOutcome("died", error=f"the session is lost: {why}", session_alive=False)
        self._cells += 1
        self._run = CellRun(
            self._kernel,
            self._cells,
            code,
            limits=self._limits.cell,
            session_limits=self._limits.of(self._language),
            timeout_s=timeout_s,
            on_output=on_output,
            on_sub_calls=on_sub_calls,
        )
        self._run_over = trio.Event()
        try:
            outcome = await self._run.run()
        finally:
            self._run = None
            self._run_over.set()
        if not outcome.session_alive:
            self._lost_because = outcome.error or outcome.status
        return outcome

    def interrupt(self) -> None:
        """See `seam.ReplSession.interrupt`."""
        if self._run is not None:
            self._run.stop("cancelled")

    async def collect(self, *, files_max: int, bytes_max: int) -> tuple[Artefact, ...]:
        """See `seam.ReplSession.collect`."""
        root = self._kernel.tree.root() if self.is_alive else None
        if root is None:
            await trio.lowlevel.checkpoint()
            return ()
        folder = root / self._kernel.places.job.lstrip("/")
        read = partial(collect_artefacts, folder, files_max=files_max, bytes_max=bytes_max)
        try:
            return await trio.to_thread.run_sync(read)
        except OSError:
            # The session died meanwhile, and its folder with it.
            return ()

    async def close(self) -> None:
        """See `seam.ReplSession.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._host.let_go(self)
        if self._run is not None:
            self._run.stop("died")
            self._kernel.tree.kill()
            with trio.CancelScope(shield=True), trio.move_on_after(_RUN_ENDS_S_MAX):
                await self._run_over.wait()
        await self._kernel.close()
        self._host.forget(self)

    def watch(self) -> None:
        """Between cells: what a thread left behind by one may still do. Bounds as within one."""
        if self._run is None and self.is_alive:
            reason = over_limit(self._kernel, self._limits.of(self._language))
            if reason is not None:
                self._lost_because = f"too much {_TOO_MUCH[reason]} between cells"
                self._kernel.tree.kill()


class KernelHost:
    """A `seam.SessionsHost`; made by `open_sessions_host`."""

    def __init__(
        self,
        source: KernelSource,
        languages: Mapping[str, str],
        *,
        slots: int,
        limits: Limits,
        warm: Mapping[str, int],
        start_timeout_s: float,
    ) -> None:
        assert slots >= 1, "a host has slots"
        assert slots + sum(warm.values()) <= SLOTS_MAX, "one uid per kernel"
        self._source = source
        self._languages = dict(languages)
        self._slots = slots
        self._limits = limits
        self._start_timeout_s = start_timeout_s
        self._sessions: dict[KernelSession, int] = {}
        self._opening = 0
        self._closing: dict[KernelSession, int] = {}
        """Their place is free for others already; their uid is not yet."""
        kernels = slots + sum(warm.values())
        self._free = list(range(min(kernels + slots, SLOTS_MAX)))
        self._warm_wanted = dict(warm)
        self._warm: dict[str, list[tuple[Kernel, int]]] = {name: [] for name in warm}
        self._warm_used = trio.Event()
        self._gone = trio.Event()
        """The next session that has ended for good."""
        self._is_closed = False

    @property
    def tier(self) -> str:
        return self._source.tier

    @property
    def languages(self) -> Mapping[str, str]:
        return dict(self._languages)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def slots_free(self) -> int:
        return self._slots - len(self._sessions) - self._opening

    @property
    def warm_ready(self) -> int:
        """Kernels that wait for a session."""
        return sum(len(kernels) for kernels in self._warm.values())

    async def open(self, language: str, inputs: Mapping[str, Path], seed: int) -> KernelSession:
        """See `seam.SessionsHost.open`."""
        if language not in self._languages:
            raise RequestRefusedError("unsupported", f"no {language} here")
        if self._is_closed or self.slots_free <= 0:
            raise RequestRefusedError("busy", "every slot is taken", _RETRY_AFTER_S)
        self._opening += 1
        try:
            kernel, slot = self._take_warm(language) or await self._start(language)
            session = KernelSession(kernel, language, self._limits, self)
            self._sessions[session] = slot
        finally:
            self._opening -= 1
        try:
            await kernel.open_session(inputs, seed)
            if self._is_closed:
                raise RequestRefusedError("busy", "closing")
        except (PeerUnreachableError, OSError) as error:
            await session.close()
            raise RequestFailedError("sandbox", f"cannot open a session: {error}") from error
        except (trio.Cancelled, RequestRefusedError):
            await session.close()
            raise
        return session

    def let_go(self, session: KernelSession) -> None:
        """Called by a session that begins to close: its place is free for another."""
        slot = self._sessions.pop(session, None)
        if slot is not None:
            self._closing[session] = slot

    def forget(self, session: KernelSession) -> None:
        """Called by a session whose last process is gone: so is the use of its uid."""
        slot = self._closing.pop(session, None)
        if slot is not None:
            self._free.append(slot)
            self._warm_used.set()
            self._gone.set()
            self._gone = trio.Event()

    async def keep_warm(self) -> None:
        """Replace warm kernels as they are used. Runs until cancelled."""
        while True:
            self._warm_used = trio.Event()
            try:
                for language, count in self._warm_wanted.items():
                    while len(self._warm[language]) < count:
                        self._warm[language].append(await self._start(language))
            except RequestFailedError:
                # `open` will meet the same and say so; here it is only tried again, sooner where
                # a session ends meanwhile.
                with trio.move_on_after(_WARM_RETRY_S):
                    await self._warm_used.wait()
                continue
            await self._warm_used.wait()
            if all(self._warm.values()):
                # Not in the way of the session that took it: most are over in this time.
                await trio.sleep(_REFILL_AFTER_S)

    async def watch_idle(self) -> None:
        """Runs until cancelled."""
        while True:
            await trio.sleep(_IDLE_WATCH_INTERVAL_S)
            for session in self._sessions:
                session.watch()

    async def close(self) -> None:
        """Kill everything; no session opens afterwards."""
        self._is_closed = True
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for session in (*self._sessions, *self._closing):
                    nursery.start_soon(session.close)
                for kernels in self._warm.values():
                    for kernel, _ in kernels:
                        nursery.start_soon(kernel.close)

    def _take_warm(self, language: str) -> tuple[Kernel, int] | None:
        kernels = self._warm.get(language, [])
        for index, (kernel, slot) in enumerate(kernels):
            if kernel.is_alive:
                del kernels[index]
                self._warm_used.set()
                return kernel, slot
        return None

    async def _start(self, language: str) -> tuple[Kernel, int]:
        while not self._free:
            if not self._closing:
                raise RequestFailedError("sandbox", "every slot is taken")
            await self._gone.wait()
        slot = self._free.pop()
        is_started = False
        try:
            kernel = await start_kernel(
                self._source,
                LANGUAGES[language].kernel[-1],
                limits=self._limits.of(language),
                slot=slot,
                timeout_s=self._start_timeout_s,
            )
            is_started = True
            return kernel, slot
        finally:
            if not is_started:
                self._free.append(slot)


@asynccontextmanager
async def open_sessions_host(
    sandbox: Sandbox,
    languages: Mapping[str, str],
    *,
    slots: int = 2,
    limits: Limits | None = None,
    warm: Mapping[str, int] | None = None,
    scratch_path: Path | None = None,
    start_timeout_s: float = 10.0,
) -> AsyncIterator[KernelHost]:
    """Sessions of `languages` (as `languages.probe_languages` found them), up to `slots` at a time.

    `warm` kernels per language wait ready, by default two of python. `scratch_path` holds links to
    or copies of inputs: on the file system of the content store they are links. Leaving the block
    kills every process and removes every file.
    """
    if warm is None:
        warm = {"python": 2} if "python" in languages else {}
    await trio.to_thread.run_sync(remove_leftovers, scratch_path)
    async with open_kernel_source(sandbox, kernels_of(languages), scratch_path) as source:
        host = KernelHost(
            source,
            languages,
            slots=slots,
            limits=limits or Limits(),
            warm=warm,
            start_timeout_s=start_timeout_s,
        )
        try:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(host.keep_warm)
                nursery.start_soon(host.watch_idle)
                yield host
                nursery.cancel_scope.cancel()
        finally:
            await host.close()
