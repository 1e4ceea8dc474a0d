"""Real sessions for tests, or a skip with the reason why there can be none here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType

import pytest
import trio

from kowalski.node.repl.bubblewrap import BubblewrapSandbox
from kowalski.node.repl.detection import bubblewrap_here
from kowalski.node.repl.kernel_session import KernelSession
from kowalski.node.repl.kernel_source import KernelSource, open_kernel_source
from kowalski.node.repl.languages import LANGUAGES, kernels_of
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.sandbox import Sandbox
from kowalski.node.repl.seam import CellOutcome, Scene, StreamName, SubCall, SubCallResult
from kowalski.node.repl.sessions import KernelHost, open_sessions_host
from kowalski.node.repl.toolchains import find_toolchains

VERSIONS = dict.fromkeys(LANGUAGES, "?")

Reply = Callable[[SubCall], SubCallResult]


def sandbox_here() -> BubblewrapSandbox:
    found = bubblewrap_here()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def sandbox_for(language: str) -> BubblewrapSandbox:
    """One that shows what `language` needs, or a skip where that is not to be had."""
    toolchains = find_toolchains({language: LANGUAGES[language].needs})
    if why := toolchains.missing.get(language):
        pytest.skip(f"no {language} here: {why}")
    found = bubblewrap_here(toolchains)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@asynccontextmanager
async def kernel_source(
    sandbox: Sandbox | None = None,
    *,
    kernels: Mapping[str, CodeType] | None = None,
    scratch_path: Path | None = None,
) -> AsyncIterator[KernelSource]:
    async with open_kernel_source(
        sandbox or sandbox_here(), kernels or kernels_of(), scratch_path
    ) as source:
        yield source


class Talk:
    """One session, with everything that a test does not care about filled in."""

    def __init__(self, session: KernelSession) -> None:
        self.session = session
        self.heard: list[tuple[StreamName, bytes]] = []
        self.batches: list[tuple[SubCall, ...]] = []
        self.reply: Reply = lambda call: SubCallResult(text=call.prompt.upper())
        self.reply_delay_s = 0.0

    async def __call__(
        self,
        code: str,
        *,
        timeout_s: float = 20.0,
        scene: Scene | None = None,
        clock: tuple[int, ...] = (),
    ) -> CellOutcome:
        return await self.session.run_cell(
            code,
            timeout_s=timeout_s,
            on_output=lambda stream, data: self.heard.append((stream, data)),
            on_sub_calls=self._answer,
            scene=scene,
            clock=clock,
        )

    async def _answer(self, calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
        self.batches.append(calls)
        await trio.sleep(self.reply_delay_s)
        return tuple(self.reply(call) for call in calls)


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Something outside this process comes true: a process starts, a kernel is ready."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await trio.sleep(0.01)


def processes_with(word: str) -> list[int]:
    """Of the whole machine, those with `word` in their command lines."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@asynccontextmanager
async def real_host(
    *,
    slots: int = 2,
    warm: Mapping[str, int] | None = None,
    warm_lately_max: int = 0,
    limits: Limits | None = None,
    sandbox: Sandbox | None = None,
    scratch_path: Path | None = None,
    compiled_path: Path | None = None,
) -> AsyncIterator[KernelHost]:
    async with open_sessions_host(
        sandbox or sandbox_here(),
        VERSIONS,
        slots=slots,
        warm=warm or {},
        warm_lately_max=warm_lately_max,
        limits=limits,
        scratch_path=scratch_path,
        compiled_path=compiled_path,
        start_timeout_s=60.0,
    ) as host:
        yield host


@asynccontextmanager
async def talk_to(
    language: str = "python",
    *,
    inputs: Mapping[str, Path] | None = None,
    seed: int = 0,
    limits: Limits | None = None,
    sandbox: Sandbox | None = None,
    files: Mapping[str, Path] | None = None,
    compiled_path: Path | None = None,
) -> AsyncIterator[Talk]:
    sandbox = sandbox or sandbox_for(language)
    async with real_host(limits=limits, sandbox=sandbox, compiled_path=compiled_path) as host:
        session = await host.open(language, inputs or {}, seed, files)
        yield Talk(session)
