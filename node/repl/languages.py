"""The languages that sessions speak, and which of them work here.

A language is advertised only when its hello-world ran inside the sandbox of this node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType

from kowalski.node.repl.canary import PYTHON_KERNEL, Probe, run_probe
from kowalski.node.repl.kernel_images import codes_of
from kowalski.node.repl.kernel_source import KernelSource
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.seam import CellOutcome
from kowalski.protocol.errors import RequestFailedError

_LEADING = ("channel.py", "limiting.py", "commands.py", "leading.py")
_NODE = (*_LEADING, "node_session.py")
_COMPILING = (*_LEADING, "compiling.py")


# Since version 1.20, Go comes without its library compiled: half a minute of work.
_GO_PACKAGES = (
    *("bufio", "bytes", "container/heap", "context", "crypto/sha256", "encoding/csv"),
    *("encoding/hex", "encoding/json", "errors", "fmt", "io", "log", "math", "math/big"),
    *("math/rand", "os", "os/exec", "path/filepath", "regexp", "sort", "strconv", "strings"),
    *("sync", "text/template", "time", "unicode"),
)
_GO_LIBRARY = (
    "package main\nimport (\n"
    + "".join(f'_ "{name}"\n' for name in _GO_PACKAGES if name != "fmt")
    + '"fmt"\n)\nfunc main() { fmt.Println("hello") }\n'
)


@dataclass(frozen=True, slots=True)
class Language:
    """`hello` prints `hello` and nothing else. `needs` are programs of the system.

    `is_compiled`: each cell is a program of its own, and what was compiled may be kept. `is_slow`:
    its hello takes longer than a start of the node should. `library` is a longer hello that brings
    in what most programs use: compiled once, it is kept for all of them.
    """

    name: str
    kernel: tuple[str, ...]
    hello: str
    needs: tuple[str, ...] = ()
    is_compiled: bool = False
    is_slow: bool = False
    library: str | None = None


LANGUAGES: Mapping[str, Language] = {
    language.name: language
    for language in (
        Language("python", PYTHON_KERNEL, "print('hello')"),
        Language("bash", (*_LEADING, "bash_kernel.py"), "echo hello", ("bash",)),
        Language("js", (*_NODE, "js_kernel.py"), "console.log('hello')", ("node",)),
        Language(
            "typescript",
            (*_NODE, "typescript_kernel.py"),
            "const word: string = 'hello'; console.log(word)",
            ("node",),
            is_slow=True,
        ),
        Language("ruby", (*_LEADING, "ruby_kernel.py"), "puts 'hello'", ("ruby",), is_slow=True),
        Language("perl", (*_LEADING, "perl_kernel.py"), 'print "hello\n"', ("perl",), is_slow=True),
        Language(
            "rust",
            (*_COMPILING, "rust_kernel.py"),
            'println!("hello");',
            ("rustc", "cc"),
            is_compiled=True,
            is_slow=True,
        ),
        Language(
            "java",
            (*_COMPILING, "java_kernel.py"),
            'System.out.println("hello");',
            ("javac", "java"),
            is_compiled=True,
            is_slow=True,
        ),
        Language(
            "go",
            (*_COMPILING, "go_kernel.py"),
            'import "fmt"\nfmt.Println("hello")',
            ("go",),
            is_compiled=True,
            is_slow=True,
            library=_GO_LIBRARY,
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


def is_hello(outcome: CellOutcome) -> bool:
    return outcome.status == "ok" and outcome.stdout == b"hello\n"


async def probe_languages(
    source: KernelSource,
    names: Sequence[str] = tuple(LANGUAGES),
    *,
    limits: Limits | None = None,
) -> LanguageProbe:
    """Try each of `names`, one after the other, within the `limits` that it will have."""
    limits = limits or Limits()
    versions: dict[str, str] = {}
    failures: dict[str, str] = {}
    for name in names:
        language = LANGUAGES[name]
        probe = Probe(language.kernel[-1], language.hello, limits.of(name))
        try:
            version, outcome = await run_probe(source, probe)
        except RequestFailedError as error:
            failures[name] = error.detail
            continue
        if is_hello(outcome):
            versions[name] = version
        else:
            failures[name] = f"{outcome.status}: {outcome.error or outcome.stdout!r}"
    return LanguageProbe(versions, failures)
