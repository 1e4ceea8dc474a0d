"""Which sandbox works here: each tier is tried by a canary that runs in it, never by its name."""

from __future__ import annotations

import platform
import secrets
import shutil
from pathlib import Path

from kowalski.node.repl import canary
from kowalski.node.repl.bubblewrap import BubblewrapSandbox
from kowalski.node.repl.sandbox import SandboxVerdict, interpreter_prefix, is_root
from kowalski.node.repl.seccomp import filter_program
from kowalski.node.repl.unsandboxed import Unsandboxed
from kowalski.protocol.errors import RequestFailedError

_FIRST_UID = 1_500_000
_UIDS_PER_NODE = 64
PROGRAMS_PATH = "/usr/bin:/usr/local/bin:/bin"
"""Where a sandbox may come from. Not $PATH: this program is the boundary."""


async def detect_sandbox(
    *,
    allow_none: bool = False,
    scratch_path: Path | None = None,
    programs_path: str = PROGRAMS_PATH,
) -> SandboxVerdict:
    """Try the tiers, best first; takes about 0.1 s.

    `allow_none`: the owner asked for `--unsafe-repl`, so where no tier contains code the tier
    `none` will do.
    """
    details: dict[str, str] = {}
    for tier, found in (("bubblewrap", bubblewrap_here(programs_path)),):
        if isinstance(found, str):
            details[tier] = found
            continue
        try:
            seen = await canary.escapes(found, scratch_path=scratch_path)
        except RequestFailedError as error:
            details[tier] = f"{tier} does not work here: {error.detail}{_hint(error.detail)}"
            continue
        if not seen:
            return SandboxVerdict(found, tier, f"{tier}: contained, by trial", {tier: "works"})
        details[tier] = "code inside " + ", ".join(seen)
    reason = "; ".join(details.values())
    if allow_none:
        _, interpreter = interpreter_prefix()
        sandbox = Unsandboxed(interpreter)
        return SandboxVerdict(sandbox, "none", f"code is not contained at all: {reason}", details)
    return SandboxVerdict(None, "none", reason, details)


def _hint(words: str) -> str:
    """What usually is behind bubblewrap's words, for who has to mend it."""
    if "namespace" in words or "uid map" in words:
        return (
            " (this system forbids user namespaces to ordinary users: see the sysctls"
            " kernel.apparmor_restrict_unprivileged_userns and user.max_user_namespaces)"
        )
    return ""


def bubblewrap_here(programs_path: str = PROGRAMS_PATH) -> BubblewrapSandbox | str:
    """The sandbox, not tried yet, or why there can be none."""
    bwrap = shutil.which("bwrap", path=programs_path)
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
