"""Which sandbox works here: each tier is tried by a canary that runs in it, never by its name."""

from __future__ import annotations

import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from kowalski.node.repl import canary
from kowalski.node.repl.bubblewrap import BubblewrapSandbox, NamespacedSessions, PlainBubblewrap
from kowalski.node.repl.file_view import FileView, file_view
from kowalski.node.repl.kernel_source import open_kernel_source
from kowalski.node.repl.languages import kernels_of, probe_languages
from kowalski.node.repl.namespaces import NamespacesSandbox
from kowalski.node.repl.sandbox import (
    SYSTEM_PATH,
    Sandbox,
    SandboxVerdict,
    interpreter_prefix,
    is_root,
)
from kowalski.node.repl.seccomp import filter_program
from kowalski.node.repl.unsandboxed import Unsandboxed
from kowalski.protocol.errors import RequestFailedError

_FIRST_UID = 1_500_000
_UIDS_PER_NODE = 64
PROGRAMS_PATH = "/usr/bin:/usr/local/bin:/bin"
"""Where a sandbox may come from. Not $PATH: this program is the boundary."""

Found = Sandbox | str
"""A sandbox, not tried yet, or why there can be none."""


async def detect_sandbox(
    *,
    allow_none: bool = False,
    scratch_path: Path | None = None,
    languages: Sequence[str] = (),
    candidates: Iterable[tuple[str, Callable[[], Found]]] | None = None,
) -> SandboxVerdict:
    """Try the tiers, best first, and `languages` in the one that works; takes about 0.2 s.

    `candidates` None: all `tiers`.

    `allow_none`: the owner asked for `--unsafe-repl`, so where no tier contains code the tier
    `none` will do.
    """
    details: dict[str, str] = {}
    for name, find in tiers() if candidates is None else candidates:
        found = find()
        if isinstance(found, str):
            details[name] = found
            continue
        verdict = await _try(name, found, scratch_path, languages)
        if verdict.sandbox is not None:
            return replace(verdict, details={**details, name: "works"})
        details[name] = verdict.reason
    reason = "; ".join(details.values())
    if allow_none:
        _, interpreter = interpreter_prefix()
        sandbox = Unsandboxed(interpreter)
        async with open_kernel_source(sandbox, kernels_of(languages), scratch_path) as source:
            probe = await probe_languages(source, languages)
        words = f"code is not contained at all: {reason}"
        return SandboxVerdict(sandbox, "none", words, details, probe.versions, probe.failures)
    return SandboxVerdict(None, "none", reason, details)


async def _try(
    name: str, sandbox: Sandbox, scratch_path: Path | None, languages: Sequence[str]
) -> SandboxVerdict:
    kernels = kernels_of({"python", *languages})
    try:
        async with open_kernel_source(sandbox, kernels, scratch_path) as source:
            if seen := await canary.escapes(source):
                return SandboxVerdict(None, "none", "code inside " + ", ".join(seen))
            probe = await probe_languages(source, languages)
    except RequestFailedError as error:
        words = f"{name} does not work here: {error.detail}{_hint(error.detail)}"
        return SandboxVerdict(None, "none", words)
    return SandboxVerdict(
        sandbox,
        sandbox.tier,
        f"{name}: contained, by trial",
        languages=probe.versions,
        silent=probe.failures,
    )


def _hint(words: str) -> str:
    """What usually is behind bubblewrap's words, for who has to mend it."""
    if "namespace" in words or "uid map" in words:
        return (
            " (this system forbids user namespaces to ordinary users: see the sysctls"
            " kernel.apparmor_restrict_unprivileged_userns and user.max_user_namespaces)"
        )
    return ""


def tiers(programs_path: str = PROGRAMS_PATH) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Every tier by name, best first, with what looks for it."""
    yield "bubblewrap", partial(bubblewrap_here, programs_path)
    yield "bubblewrap for each session", partial(plain_bubblewrap_here, programs_path)
    yield "namespaces", namespaces_here


def bubblewrap_here(programs_path: str = PROGRAMS_PATH) -> BubblewrapSandbox | str:
    """The sandbox, not tried yet, or why there can be none."""
    bwrap = shutil.which("bwrap", path=programs_path)
    if bwrap is None:
        return "bubblewrap is not installed: apt install bubblewrap"
    inside = _inside()
    if isinstance(inside, str):
        return inside
    interpreter, view, sessions = inside
    return BubblewrapSandbox(bwrap, interpreter, view, sessions)


def plain_bubblewrap_here(programs_path: str = PROGRAMS_PATH) -> PlainBubblewrap | str:
    """See `bubblewrap_here`."""
    found = bubblewrap_here(programs_path)
    if isinstance(found, str):
        return found
    if found.sessions.as_root and shutil.which("/usr/bin/setpriv") is None:
        return "/usr/bin/setpriv is not installed: apt install util-linux"
    return PlainBubblewrap(found.bwrap, found.interpreter, found.view, found.sessions)


def namespaces_here() -> NamespacesSandbox | str:
    """See `bubblewrap_here`."""
    inside = _inside()
    return inside if isinstance(inside, str) else NamespacesSandbox(*inside)


def _inside() -> tuple[str, FileView, NamespacedSessions] | str:
    """What is the same in all tiers with namespaces."""
    match (platform.system(), platform.machine()):
        case ("Linux", "x86_64" | "amd64"):
            system_call_filter = filter_program("x86_64")
        case ("Linux", "aarch64" | "arm64"):
            system_call_filter = filter_program("aarch64")
        case ("Linux", machine):
            return f"there is no system call filter for {machine} yet"
        case _:
            return "namespaces are Linux's"
    prefix, interpreter = interpreter_prefix()
    sessions = NamespacedSessions(
        path=f"{Path(interpreter).parent}:{SYSTEM_PATH}",
        as_root=is_root(),
        # Several nodes on one machine must not meet in a uid: RLIMIT_NPROC counts by it.
        first_uid=_FIRST_UID + _UIDS_PER_NODE * secrets.randbelow(1 << 20),
        system_call_filter=system_call_filter,
    )
    return interpreter, file_view([prefix]), sessions
