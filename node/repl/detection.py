"""Which sandbox works here: each tier is tried by a canary that runs in it, never by its name."""

from __future__ import annotations

import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import trio

from kowalski.node.repl import canary, seatbelt
from kowalski.node.repl.bubblewrap import BubblewrapSandbox, NamespacedSessions, PlainBubblewrap
from kowalski.node.repl.egress import Network
from kowalski.node.repl.file_view import FileView, file_view
from kowalski.node.repl.kernel_source import open_kernel_source
from kowalski.node.repl.landlock import LandlockSandbox
from kowalski.node.repl.languages import kernels_of, probe_languages
from kowalski.node.repl.limits import Limits
from kowalski.node.repl.namespaces import NamespacesSandbox
from kowalski.node.repl.sandbox import (
    SYSTEM_PATH,
    WORKS,
    Sandbox,
    SandboxVerdict,
    interpreter_prefix,
    is_passable,
    is_root,
    reach_of,
)
from kowalski.node.repl.seatbelt import SeatbeltSandbox
from kowalski.node.repl.seccomp import Machine, filter_program
from kowalski.node.repl.toolchains import Toolchains
from kowalski.node.repl.unsandboxed import Unsandboxed
from kowalski.protocol.errors import RequestFailedError

_FIRST_UID = 1_500_000
_UIDS_PER_NODE = 1024
PROGRAMS_PATH = "/usr/bin:/usr/local/bin:/bin"
"""Where a sandbox may come from. Not $PATH: this program is the boundary."""

_WAYS_OUT: Mapping[Network, str] = MappingProxyType(
    {
        "none": "",
        "internet": "; reaches the internet by a proxy",
        "lan": "; reaches the internet and our networks by a proxy",
    }
)

Found = Sandbox | str
"""A sandbox, not tried yet, or why there can be none."""


async def detect_sandbox(
    *,
    allow_none: bool = False,
    scratch_path: Path | None = None,
    languages: Sequence[str] = (),
    toolchains: Toolchains | None = None,
    limits: Limits | None = None,
    network: Network = "none",
    candidates: Iterable[tuple[str, Callable[[], Found]]] | None = None,
) -> SandboxVerdict:
    """Try the tiers, best first, and `languages` in the one that works; takes about 0.2 s.

    `toolchains` are what languages need that is not under /usr, `limits` what they will have.
    `candidates` None: all `tiers`.

    `network` is what sessions may reach, in `bubblewrap` with a fork server and in `namespaces`.
    In other tiers they reach nothing.

    `allow_none`: the owner asked for `--unsafe-repl`, so where no tier contains code the tier
    `none` will do.
    """
    details: dict[str, str] = {}
    for name, find in tiers(toolchains, network=network) if candidates is None else candidates:
        found = await trio.to_thread.run_sync(find)
        if isinstance(found, str):
            details[name] = found
            continue
        verdict = await _try(name, found, scratch_path, languages, limits)
        if verdict.sandbox is not None:
            return replace(verdict, details={**details, name: WORKS})
        details[name] = verdict.reason
    reason = "; ".join(details.values())
    if allow_none:
        _, interpreter = interpreter_prefix()
        sandbox = Unsandboxed(interpreter, _path(interpreter, toolchains))
        async with open_kernel_source(sandbox, kernels_of(languages), scratch_path) as source:
            probe = await probe_languages(source, languages, limits=limits)
        words = f"code is not contained at all: {reason}"
        return SandboxVerdict(sandbox, "none", words, details, probe.versions, probe.failures)
    return SandboxVerdict(None, "none", reason, details)


async def _try(
    name: str,
    sandbox: Sandbox,
    scratch_path: Path | None,
    languages: Sequence[str],
    limits: Limits | None,
) -> SandboxVerdict:
    kernels = kernels_of({"python", *languages})
    try:
        async with open_kernel_source(sandbox, kernels, scratch_path) as source:
            if seen := await canary.escapes(source):
                return SandboxVerdict(None, "none", "code inside " + ", ".join(seen))
            probe = await probe_languages(source, languages, limits=limits)
    except RequestFailedError as error:
        words = f"{name} does not work here: {error.detail}{_hint(error.detail)}"
        return SandboxVerdict(None, "none", words)
    return SandboxVerdict(
        sandbox,
        sandbox.tier,
        f"{name}: contained, by trial{_WAYS_OUT[reach_of(sandbox)]}",
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


def tiers(
    toolchains: Toolchains | None = None,
    *,
    programs_path: str = PROGRAMS_PATH,
    network: Network = "none",
) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Every tier by name, best first, with what looks for it. Inside, `toolchains` are shown."""
    shown = toolchains or Toolchains()
    yield "bubblewrap", partial(bubblewrap_here, shown, programs_path, network)
    yield "bubblewrap for each session", partial(plain_bubblewrap_here, shown, programs_path)
    yield "namespaces", partial(namespaces_here, shown, network)
    yield "landlock", partial(landlock_here, shown)
    yield "seatbelt", partial(seatbelt_here, shown)


def bubblewrap_here(
    toolchains: Toolchains | None = None,
    programs_path: str = PROGRAMS_PATH,
    network: Network = "none",
) -> BubblewrapSandbox | str:
    """The sandbox, not tried yet, or why there can be none."""
    bwrap = shutil.which("bwrap", path=programs_path)
    if bwrap is None:
        return "bubblewrap is not installed: apt install bubblewrap"
    inside = _inside(toolchains, network)
    if isinstance(inside, str):
        return inside
    interpreter, view, sessions = inside
    return BubblewrapSandbox(bwrap, interpreter, view, sessions)


def plain_bubblewrap_here(
    toolchains: Toolchains | None = None, programs_path: str = PROGRAMS_PATH
) -> PlainBubblewrap | str:
    """See `bubblewrap_here`."""
    found = bubblewrap_here(toolchains, programs_path)
    if isinstance(found, str):
        return found
    if found.sessions.as_root and shutil.which("/usr/bin/setpriv") is None:
        return "/usr/bin/setpriv is not installed: apt install util-linux"
    return PlainBubblewrap(found.bwrap, found.interpreter, found.view, found.sessions)


def namespaces_here(
    toolchains: Toolchains | None = None, network: Network = "none"
) -> NamespacesSandbox | str:
    """See `bubblewrap_here`."""
    inside = _inside(toolchains, network)
    return inside if isinstance(inside, str) else NamespacesSandbox(*inside)


def landlock_here(toolchains: Toolchains | None = None) -> LandlockSandbox | str:
    """See `bubblewrap_here`."""
    machine = _machine()
    if machine is None:
        return _no_filter()
    as_root = is_root()
    prefix, interpreter = interpreter_prefix()
    if as_root and not is_passable(Path(interpreter)):
        # Sessions are somebody else then. The system's own python will do if it is the same.
        prefix, interpreter = Path("/usr"), f"/usr/bin/{Path(interpreter).name}"
        if not is_passable(Path(interpreter)):
            return f"no other user may run this python, and there is no {interpreter}"
    return LandlockSandbox(
        interpreter=interpreter,
        path=_path(interpreter, toolchains),
        view=_view(prefix, toolchains),
        as_root=as_root,
        first_uid=_first_uid(),
        system_call_filter=filter_program(machine, in_company=True, as_owner=not as_root),
    )


def seatbelt_here(toolchains: Toolchains | None = None) -> SeatbeltSandbox | str:
    """See `bubblewrap_here`."""
    if shutil.which(seatbelt.PROGRAM) is None:
        return "sandbox-exec is macOS's"
    prefix, interpreter = interpreter_prefix()
    shown = toolchains.shown if toolchains else ()
    return SeatbeltSandbox(interpreter, _path(interpreter, toolchains), prefix, shown)


def _path(interpreter: str, toolchains: Toolchains | None) -> str:
    further = [str(folder) for folder in toolchains.path] if toolchains else []
    return ":".join((str(Path(interpreter).parent), *further, SYSTEM_PATH))


def _view(prefix: Path, toolchains: Toolchains | None) -> FileView:
    return file_view([prefix, *(toolchains.shown if toolchains else ())])


def _inside(
    toolchains: Toolchains | None, network: Network
) -> tuple[str, FileView, NamespacedSessions] | str:
    """What is the same in all tiers with namespaces."""
    machine = _machine()
    if machine is None:
        return _no_filter()
    prefix, interpreter = interpreter_prefix()
    sessions = NamespacedSessions(
        path=_path(interpreter, toolchains),
        as_root=is_root(),
        first_uid=_first_uid(),
        system_call_filter=filter_program(machine, with_network=network != "none"),
        network=network,
    )
    return interpreter, _view(prefix, toolchains), sessions


def _first_uid() -> int:
    # Several nodes on one machine must not meet in a uid: RLIMIT_NPROC counts by it.
    return _FIRST_UID + _UIDS_PER_NODE * secrets.randbelow(1 << 20)


def _machine() -> Machine | None:
    match (platform.system(), platform.machine()):
        case ("Linux", "x86_64" | "amd64"):
            return "x86_64"
        case ("Linux", "aarch64" | "arm64"):
            return "aarch64"
        case _:
            return None


def _no_filter() -> str:
    if platform.system() != "Linux":
        return "namespaces and Landlock are Linux's"
    return f"there is no system call filter for {platform.machine()} yet"
