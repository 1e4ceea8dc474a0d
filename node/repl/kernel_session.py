"""One session on one kernel: its cells one after the other, its files, its end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import trio

from kowalski.node.repl.artefacts import NOTHING_KNOWN, Stamp, collect_artefacts, is_bare
from kowalski.node.repl.cell_orders import order_of
from kowalski.node.repl.cell_run import CellRun, over_limit
from kowalski.node.repl.compile_cache import CompileCache
from kowalski.node.repl.kernel import Kernel
from kowalski.node.repl.languages import LANGUAGES
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.seam import CellOutcome, Collected, OnOutput, OnSubCalls, Scene
from kowalski.protocol.errors import RequestRefusedError

_RUN_ENDS_S_MAX = 2.0
_TOO_MUCH = {"memory": "memory", "inodes": "in files"}


class SessionOwner(Protocol):
    def let_go(self, session: KernelSession) -> None:
        """Called by a session that begins to close: its place is free for another."""
        ...

    def forget(self, session: KernelSession) -> None:
        """Called by a session whose last process is gone: so is the use of its uid."""
        ...


class KernelSession:
    """A `seam.ReplSession` on a kernel of its own. `owner` hears when it goes."""

    def __init__(
        self,
        kernel: Kernel,
        language: str,
        limits: Limits,
        owner: SessionOwner,
        compile_cache: CompileCache | None,
    ) -> None:
        self._kernel = kernel
        self._language = language
        self._limits = limits
        self._owner = owner
        self._compile_cache = compile_cache
        self._cells = 0
        self._is_busy = False
        self._is_unwanted = False
        self._run: CellRun | None = None
        self._run_over = trio.Event()
        self._lost_because = ""
        self._stamps: Mapping[str, Stamp] = NOTHING_KNOWN
        self._is_closed = False

    @property
    def language(self) -> str:
        return self._language

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and not self._lost_because and self._kernel.is_alive

    @property
    def is_waiting(self) -> bool:
        """Whether its cell waits for sub-calls."""
        return self._run is not None and self._run.is_waiting

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
        if self._is_busy:
            raise RequestRefusedError("busy", "another cell of this session is running")
        if not self.is_alive:
            await trio.lowlevel.checkpoint()
            why = self._lost_because or "its process is gone"
            return CellOutcome("died", error=f"the session is lost: {why}", session_alive=False)
        self._cells += 1
        self._is_busy, self._is_unwanted, self._run_over = True, False, trio.Event()
        try:
            self._run = CellRun(
                self._kernel,
                self._cells,
                await order_of(
                    code,
                    self._cells,
                    kernel=self._kernel,
                    language=LANGUAGES[self._language],
                    scene=scene,
                    clock=clock,
                    cache=self._compile_cache,
                ),
                limits=self._limits.cell_of(self._language),
                session_limits=self._limits.of(self._language),
                timeout_s=timeout_s,
                on_output=on_output,
                on_sub_calls=on_sub_calls,
            )
            if self._is_unwanted:
                self._run.stop("cancelled")
            outcome = await self._run.run()
        finally:
            self._run, self._is_busy = None, False
            self._run_over.set()
        if not outcome.session_alive:
            self._lost_because = outcome.error or outcome.status
        return outcome

    def interrupt(self) -> None:
        """See `seam.ReplSession.interrupt`."""
        self._is_unwanted = True
        if self._run is not None:
            self._run.stop("cancelled")

    async def collect(self, *, files_max: int, bytes_max: int) -> Collected:
        """See `seam.ReplSession.collect`."""
        root = self._kernel.tree.root() if self.is_alive else None
        folder = root and root / self._kernel.places.job.lstrip("/")
        if folder is None or is_bare(folder):
            await trio.lowlevel.checkpoint()
            return Collected()
        read = partial(
            collect_artefacts,
            folder,
            files_max=files_max,
            bytes_max=bytes_max,
            known=self._stamps,
        )
        try:
            found = await trio.to_thread.run_sync(read)
        except OSError:
            # The session died meanwhile, and its folder with it.
            return Collected()
        self._stamps = found.stamps
        return found.collected

    def retire(self) -> None:
        """See `seam.ReplSession.retire`."""
        self._owner.let_go(self)

    async def close(self) -> None:
        """See `seam.ReplSession.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        self.retire()
        if self._run is not None:
            self._run.stop("died")
            self._kernel.tree.kill()
            with trio.CancelScope(shield=True), trio.move_on_after(_RUN_ENDS_S_MAX):
                await self._run_over.wait()
        await self._kernel.close()
        self._owner.forget(self)

    def watch(self) -> None:
        """Between cells: what a thread left behind by one may still do. Bounds as within one."""
        if not self._is_busy and self.is_alive:
            reason = over_limit(self._kernel, self._limits.of(self._language))
            if reason is not None:
                self._lost_because = f"too much {_TOO_MUCH[reason]} between cells"
                self._kernel.tree.kill()
