"""The room as the node opens it: look for a sandbox and languages, then open sessions in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import trio

from kowalski.node.repl.detection import detect_sandbox
from kowalski.node.repl.egress import Network
from kowalski.node.repl.languages import LANGUAGES
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.sandbox import SandboxVerdict, reach_of
from kowalski.node.repl.sessions import KernelHost, open_sessions_host
from kowalski.node.repl.toolchains import Toolchains, find_toolchains

log = structlog.get_logger(__name__)

WARM_LATELY_MAX = 2
"""Languages besides Python that a kernel waits for, after their last session."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What works here. `verdict.languages` are the quick ones; slow ones are tried later."""

    verdict: SandboxVerdict
    toolchains: Toolchains = field(default_factory=Toolchains)


async def try_here(
    *,
    scratch_path: Path,
    allow_none: bool,
    offers_repl: bool,
    limits: Limits | None = None,
    network: Network = "none",
) -> Trial:
    """Look around; about 0.3 s. Without `offers_repl` only for which sandbox there would be."""
    if not offers_repl:
        return Trial(await detect_sandbox(allow_none=allow_none, scratch_path=scratch_path))
    needs = {language.name: language.needs for language in LANGUAGES.values()}
    toolchains = await trio.to_thread.run_sync(find_toolchains, needs)
    quick = [name for name in toolchains.found if not LANGUAGES[name].is_slow]
    verdict = await detect_sandbox(
        allow_none=allow_none,
        scratch_path=scratch_path,
        languages=quick,
        toolchains=toolchains,
        limits=limits,
        network=network,
    )
    if verdict.sandbox is None:
        log.warning("no-repl", why=verdict.reason)
    elif verdict.tier == "none":
        log.warning("UNSAFE-REPL", why="code of other peers runs here without a sandbox")
    elif verdict.passed_over:
        log.info("sandbox-degraded", tier=verdict.tier, why="; ".join(verdict.passed_over))
    if network != "none" and reach_of(verdict.sandbox) == "none":
        log.warning("repl-network-unavailable", tier=verdict.tier, why="it has no namespaces")
    for language, why in verdict.silent.items():
        log.info("language-does-not-work", language=language, why=why)
    return Trial(verdict, toolchains)


@asynccontextmanager
async def open_host_here(
    trial: Trial, *, slots: int, data_dir: Path, scratch_path: Path, limits: Limits | None = None
) -> AsyncIterator[KernelHost | None]:
    """Sessions in what was found; None where nothing contains code, or nothing runs in it."""
    verdict = trial.verdict
    if verdict.sandbox is None or not verdict.languages:
        yield None
        return
    async with open_sessions_host(
        verdict.sandbox,
        verdict.languages,
        slots=slots,
        warm_lately_max=WARM_LATELY_MAX,
        limits=limits,
        scratch_path=scratch_path,
        compiled_path=data_dir / "compiled",
        toolchains=trial.toolchains,
        book_path=data_dir / "languages.json",
    ) as host:
        yield host
