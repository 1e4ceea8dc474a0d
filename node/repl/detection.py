"""Which sandbox works here: each tier is tried by a canary that runs in it, never by its name."""

from __future__ import annotations

import platform
import secrets
import shutil

from kowalski.node.repl.bubblewrap import BubblewrapSandbox
from kowalski.node.repl.sandbox import Sandbox, SandboxVerdict, interpreter_prefix, is_root
from kowalski.node.repl.seccomp import filter_program
from kowalski.node.repl.unsandboxed import Unsandboxed

_FIRST_UID = 1_500_000
_UIDS_PER_NODE = 64
_PROGRAMS = "/usr/bin:/usr/local/bin:/bin"


async def detect_sandbox(*, allow_none: bool = False) -> SandboxVerdict:
    """Try the tiers, best first. `allow_none`: the owner asked for `--unsafe-repl`."""
    found = bubblewrap_here()
    if not isinstance(found, str):
        return SandboxVerdict(found, found.tier, "contained", {"bubblewrap": "works"})
    if allow_none:
        _, interpreter = interpreter_prefix()
        return SandboxVerdict(
            Unsandboxed(interpreter), "none", "not contained at all: --unsafe-repl", {}
        )
    return SandboxVerdict(None, "none", found, {"bubblewrap": found})


def bubblewrap_here() -> Sandbox | str:
    """The sandbox, not tried yet, or why there can be none."""
    bwrap = shutil.which("bwrap", path=_PROGRAMS)
    if bwrap is None:
        return "bubblewrap is not installed: apt install bubblewrap"
    for program in ("/usr/bin/prlimit", "/usr/bin/setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt install util-linux"
    match platform.machine():
        case "x86_64" | "amd64":
            system_call_filter = filter_program("x86_64")
        case "aarch64" | "arm64":
            system_call_filter = filter_program("aarch64")
        case machine:
            return f"there is no system call filter for {machine} yet"
    prefix, interpreter = interpreter_prefix()
    return BubblewrapSandbox(
        bwrap=bwrap,
        interpreter=interpreter,
        prefix=prefix,
        as_root=is_root(),
        # Several nodes on one machine must not meet in a uid: RLIMIT_NPROC counts by it.
        first_uid=_FIRST_UID + _UIDS_PER_NODE * secrets.randbelow(1 << 20),
        system_call_filter=system_call_filter,
    )
