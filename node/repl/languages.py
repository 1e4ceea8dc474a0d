"""The languages that sessions speak, and which of them work here.

A language is advertised only when its hello-world ran inside the sandbox of this node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from kowalski.node.repl.cell_run import CellRun
from kowalski.node.repl.kernel import kernel_image, start_kernel
from kowalski.node.repl.limits import CellLimits, SessionLimits
from kowalski.node.repl.sandbox import Sandbox
from kowalski.node.repl.seam import SubCall, SubCallResult
from kowalski.protocol.errors import RequestFailedError

_START_S = 10.0
_HELLO_S = 10.0
# Probes use slots that no session will ever have: the host counts from 0.
_PROBE_SLOT = 63


@dataclass(frozen=True, slots=True)
class Language:
    """`hello` prints `hello` and nothing else."""

    name: str
    kernel: str
    hello: str


LANGUAGES: Mapping[str, Language] = {
    language.name: language
    for language in (Language("python", "python_kernel.py", "print('hello')"),)
}


@dataclass(frozen=True, slots=True)
class LanguageProbe:
    """`versions` of what works; `failures` in words of what does not."""

    versions: Mapping[str, str]
    failures: Mapping[str, str]


async def probe_languages(
    sandbox: Sandbox,
    names: Sequence[str] = tuple(LANGUAGES),
    *,
    limits: SessionLimits | None = None,
    scratch_path: Path | None = None,
) -> LanguageProbe:
    versions: dict[str, str] = {}
    failures: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = await _probe(
                sandbox, LANGUAGES[name], limits or SessionLimits(), scratch_path
            )
        except RequestFailedError as error:
            failures[name] = error.detail
    return LanguageProbe(versions, failures)


async def _probe(
    sandbox: Sandbox, language: Language, limits: SessionLimits, scratch_path: Path | None
) -> str:
    kernel = await start_kernel(
        sandbox,
        kernel_image(language.kernel),
        limits=limits,
        slot=_PROBE_SLOT,
        scratch=scratch_path,
        timeout_s=_START_S,
    )
    try:
        run = CellRun(
            kernel,
            0,
            language.hello,
            limits=CellLimits(),
            session_limits=limits,
            timeout_s=_HELLO_S,
            on_output=lambda _stream, _data: None,
            on_sub_calls=_no_sub_calls,
        )
        outcome = await run.run()
    finally:
        await kernel.close()
    if outcome.status != "ok" or outcome.stdout != b"hello\n":
        raise RequestFailedError(
            "sandbox", f"{outcome.status}: {outcome.error or outcome.stdout!r}"
        )
    return kernel.version


async def _no_sub_calls(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
    await trio.lowlevel.checkpoint()
    return tuple(SubCallResult(error="nobody answers during a probe") for _ in calls)
