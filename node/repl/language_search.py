"""Tries the slower languages while the node is up already, and remembers what was found.

Quick ones are tried by `detection`, before the node is ready.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256

import structlog
import trio

from kowalski.node.repl.canary import Probe, run_probe
from kowalski.node.repl.compile_cache import LIBRARY, PROGRAM_BYTES_MAX, CompileCache
from kowalski.node.repl.kernel import Kernel
from kowalski.node.repl.kernel_images import text_of
from kowalski.node.repl.kernel_source import KernelSource
from kowalski.node.repl.language_book import LanguageBook
from kowalski.node.repl.languages import LANGUAGES, Language, is_hello
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.toolchains import Toolchains
from kowalski.protocol.errors import RequestFailedError

log = structlog.get_logger(__name__)

_HELLO_S = 30.0
_LIBRARY_S = 300.0

OnFound = Callable[[str, str], None]
"""Hears of a language and its version."""


async def search_languages(
    source: KernelSource,
    toolchains: Toolchains,
    book: LanguageBook,
    on_found: OnFound,
    *,
    limits: Limits,
    cache: CompileCache | None,
) -> None:
    """Every slow language whose programs are here, one after the other, known ones first."""
    known = await trio.to_thread.run_sync(book.read)
    unknown: list[tuple[Language, str]] = []
    for language in LANGUAGES.values():
        if not language.is_slow or language.name not in toolchains.found:
            continue
        condition = await trio.to_thread.run_sync(_condition, language, toolchains, source.tier)
        line = known.get(language.name)
        if line is None or line.condition != condition:
            unknown.append((language, condition))
        elif line.version:
            on_found(language.name, line.version)
    for language, condition in unknown:
        version, why = await _try(source, language, limits, cache)
        if version:
            on_found(language.name, version)
        else:
            log.info("language-does-not-work", language=language.name, why=why)
        await trio.to_thread.run_sync(book.write, language.name, condition, version)


def _condition(language: Language, toolchains: Toolchains, tier: str) -> str:
    try:
        programs = toolchains.found[language.name].fingerprint()
    except OSError as error:
        programs = str(error)
    kernel = sha256(text_of(language.kernel).encode()).hexdigest()[:16]
    return f"{tier} {kernel} {programs}"


async def _try(
    source: KernelSource, language: Language, limits: Limits, cache: CompileCache | None
) -> tuple[str, str]:
    """The version, or why it does not work."""

    def keep(kernel: Kernel, path: str) -> None:
        library = kernel.read(path, bytes_max=PROGRAM_BYTES_MAX)
        if library and cache is not None:
            cache.keep(language.name, kernel.version, LIBRARY, library)

    probe = Probe(language.kernel[-1], language.hello, limits.of(language.name), timeout_s=_HELLO_S)
    if language.library is not None and cache is not None:
        probe = Probe(
            language.kernel[-1],
            language.library,
            limits.of(language.name),
            timeout_s=_LIBRARY_S,
            further={"wants_library": True},
            on_built=lambda kernel, path: trio.to_thread.run_sync(partial(keep, kernel, path)),
        )
    try:
        version, outcome = await run_probe(source, probe)
    except RequestFailedError as error:
        return "", error.detail
    if is_hello(outcome):
        return version, ""
    return "", f"{outcome.status}: {outcome.error or outcome.stdout!r}"
