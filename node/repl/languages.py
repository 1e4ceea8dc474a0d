"""The languages that sessions speak, and which of them work here.

A language is advertised only when its hello-world ran inside the sandbox of this node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType

from kowalski.node.repl.canary import PYTHON_KERNEL, run_probe
from kowalski.node.repl.kernel_images import codes_of
from kowalski.node.repl.kernel_source import KernelSource
from kowalski.protocol.errors import RequestFailedError


@dataclass(frozen=True, slots=True)
class Language:
    """`hello` prints `hello` and nothing else."""

    name: str
    kernel: tuple[str, ...]
    hello: str


LANGUAGES: Mapping[str, Language] = {
    language.name: language
    for language in (
        Language("python", PYTHON_KERNEL, "print('hello')"),
        Language(
            "bash", ("channel.py", "limiting.py", "leading.py", "bash_kernel.py"), "echo hello"
        ),
        Language(
            "js",
            ("channel.py", "limiting.py", "leading.py", "js_kernel.py"),
            "console.log('hello')",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class LanguageProbe:
    """`versions` of what works; `failures` in words of what does not."""

    versions: Mapping[str, str]
    failures: Mapping[str, str]


def kernels_of(names: Iterable[str] = LANGUAGES) -> Mapping[str, CodeType]:
    """What a `kernel_source` must know to start these."""
    return codes_of(LANGUAGES[name].kernel for name in names)


async def probe_languages(
    source: KernelSource, names: Sequence[str] = tuple(LANGUAGES)
) -> LanguageProbe:
    """Try each of `names`, one after the other."""
    versions: dict[str, str] = {}
    failures: dict[str, str] = {}
    for name in names:
        language = LANGUAGES[name]
        try:
            version, outcome = await run_probe(source, language.kernel[-1], language.hello)
        except RequestFailedError as error:
            failures[name] = error.detail
            continue
        if outcome.status == "ok" and outcome.stdout == b"hello\n":
            versions[name] = version
        else:
            failures[name] = f"{outcome.status}: {outcome.error or outcome.stdout!r}"
    return LanguageProbe(versions, failures)
