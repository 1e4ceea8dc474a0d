"""Sessions on real kernels: who holds a slot, which kernels wait warm, what dies when.

Implements `seam.SessionsHost`. One cell is `cell_run`'s business, one process `kernel`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.repl.compile_cache import CompileCache
from kowalski.node.repl.kernel import Kernel, start_kernel
from kowalski.node.repl.kernel_session import KernelSession
from kowalski.node.repl.kernel_source import KernelSource, open_kernel_source, remove_leftovers
from kowalski.node.repl.language_book import LanguageBook
from kowalski.node.repl.language_search import search_languages
from kowalski.node.repl.languages import LANGUAGES, kernels_of
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.sandbox import Sandbox
from kowalski.node.repl.seam import WAITING_MAX
from kowalski.node.repl.toolchains import Toolchains
from kowalski.node.repl.warmth import Warmth
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)

_IDLE_WATCH_INTERVAL_S = 1.0
_WARM_RETRY_S = 5.0
_REFILL_AFTER_S = 0.004
_RETRY_AFTER_S = 2.0
# Each kernel has a uid of its own where the node is root; `canary.PROBE_SLOT` lies behind them.
SLOTS_MAX = 1000


class KernelHost:
    """A `seam.SessionsHost`; made by `open_sessions_host`."""

    def __init__(
        self,
        source: KernelSource,
        languages: Mapping[str, str],
        *,
        slots: int,
        limits: Limits,
        warmth: Warmth,
        start_timeout_s: float,
        compile_cache: CompileCache | None = None,
    ) -> None:
        assert slots >= 1, "a host has slots"
        assert slots + warmth.kernels_max <= SLOTS_MAX, "one uid per kernel"
        self._source = source
        self._languages = dict(languages)
        self._changed = trio.Event()
        self._slots = slots
        self._limits = limits
        self._compile_cache = compile_cache
        self._start_timeout_s = start_timeout_s
        self._sessions: dict[KernelSession, int] = {}
        self._opening = 0
        self._closing: dict[KernelSession, int] = {}
        """Their place is free for others already; their uid is not yet."""
        kernels = slots + warmth.kernels_max
        self._lent_max = min(WAITING_MAX, max(0, SLOTS_MAX - kernels - slots))
        self._free = list(range(min(kernels + slots + self._lent_max, SLOTS_MAX)))
        self._warmth = warmth
        self._warm: dict[str, list[tuple[Kernel, int]]] = {}
        self._warm_used = trio.Event()
        self._gone = trio.Event()
        """The next session that has ended for good."""
        self._is_closed = False

    @property
    def tier(self) -> str:
        return self._source.tier

    @property
    def languages(self) -> Mapping[str, str]:
        """A live view: slow languages are found while the node is up."""
        return MappingProxyType(self._languages)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def slots_free(self) -> int:
        waiting = sum(session.is_waiting for session in self._sessions)
        lent = min(waiting, self._lent_max)
        return self._slots + lent - len(self._sessions) - self._opening

    @property
    def warm_ready(self) -> int:
        """Kernels that wait for a session."""
        return sum(len(kernels) for kernels in self._warm.values())

    async def open(
        self,
        language: str,
        inputs: Mapping[str, Path],
        seed: int,
        files: Mapping[str, Path] | None = None,
    ) -> KernelSession:
        """See `seam.SessionsHost.open`."""
        if language not in self._languages:
            raise RequestRefusedError("unsupported", f"no {language} here")
        if self._is_closed or self.slots_free <= 0:
            raise RequestRefusedError("busy", "every slot is taken", _RETRY_AFTER_S)
        self._opening += 1
        try:
            kernel, slot = self._take_warm(language) or await self._start(language)
            session = KernelSession(kernel, language, self._limits, self, self._compile_cache)
            self._sessions[session] = slot
        finally:
            self._opening -= 1
        # The next session of this language shall find a kernel.
        self._warmth.used(language, trio.current_time())
        self._warm_used.set()
        try:
            await kernel.open_session(inputs, seed, files)
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
        """See `kernel_session.SessionOwner.let_go`."""
        slot = self._sessions.pop(session, None)
        if slot is not None:
            self._closing[session] = slot

    def forget(self, session: KernelSession) -> None:
        """See `kernel_session.SessionOwner.forget`."""
        slot = self._closing.pop(session, None)
        if slot is not None:
            self._free.append(slot)
            self._warm_used.set()
            self._gone.set()
            self._gone = trio.Event()

    async def wait_changed(self) -> None:
        """See `seam.SessionsHost.wait_changed`."""
        await self._changed.wait()

    def learn(self, language: str, version: str) -> None:
        """One more works here."""
        self._languages[language] = version
        self._changed.set()
        self._changed = trio.Event()

    async def keep_warm(self) -> None:
        """Replace warm kernels as they are used. Runs until cancelled."""
        while True:
            self._warm_used = trio.Event()
            try:
                await self._warm_up()
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

    async def _warm_up(self) -> None:
        """Raises RequestFailedError."""
        for language, count in self._warmth.wanted(trio.current_time()).items():
            kernels = self._warm.setdefault(language, [])
            while len(kernels) < count:
                kernels.append(await self._start(language))

    async def _cool_down(self) -> None:
        """Away with kernels that nobody wants any more, or that died waiting."""
        wanted = self._warmth.wanted(trio.current_time())
        over: list[tuple[Kernel, int]] = []
        for language, kernels in self._warm.items():
            over += [one for one in kernels if language not in wanted or not one[0].is_alive]
            kernels[:] = [one for one in kernels if one not in over]
        for kernel, slot in over:
            await kernel.close()
            self._free.append(slot)
        if over:
            self._warm_used.set()

    async def watch_idle(self) -> None:
        """Runs until cancelled."""
        while True:
            await trio.sleep(_IDLE_WATCH_INTERVAL_S)
            await self._cool_down()
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
    warm_lately_max: int = 0,
    scratch_path: Path | None = None,
    compiled_path: Path | None = None,
    toolchains: Toolchains | None = None,
    book_path: Path | None = None,
    start_timeout_s: float = 20.0,
) -> AsyncIterator[KernelHost]:
    """Sessions of `languages` (as `languages.probe_languages` found them), up to `slots` at a time.

    `warm` kernels per language wait ready, by default two of python, and one of each of up to
    `warm_lately_max` other languages that were used lately. `scratch_path` holds links to
    or copies of inputs: on the file system of the content store they are links. `compiled_path`
    keeps what was compiled (None: nothing is kept). Slow languages of `toolchains` are tried
    meanwhile, and remembered in `book_path`. Leaving the block kills every process and removes
    every file.
    """
    if warm is None:
        warm = {"python": 2} if "python" in languages else {}
    await trio.to_thread.run_sync(remove_leftovers, scratch_path)
    toolchains = toolchains or Toolchains()
    kernels = kernels_of({*languages, *toolchains.found})
    cache = CompileCache(compiled_path) if compiled_path else None
    limits = limits or Limits()
    async with open_kernel_source(sandbox, kernels, scratch_path) as source:
        host = KernelHost(
            source,
            languages,
            slots=slots,
            limits=limits,
            warmth=Warmth(warm, lately_max=warm_lately_max),
            start_timeout_s=start_timeout_s,
            compile_cache=cache,
        )
        search = partial(
            search_languages,
            *(source, toolchains, LanguageBook(book_path), host.learn),
            limits=limits,
            cache=cache,
        )
        try:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(host.keep_warm)
                nursery.start_soon(host.watch_idle)
                nursery.start_soon(search)
                yield host
                nursery.cancel_scope.cancel()
        finally:
            await host.close()
