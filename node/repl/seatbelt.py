"""The tier `seatbelt`: macOS's own sandbox, by sandbox-exec(1), one for each session.

Written to its manual page and to the profiles that macOS itself comes with, and never run: there
was no such machine. The canary decides, as everywhere, whether it is offered. What macOS cannot do:
bound the memory of a process (the watchdog does), or count processes other than by user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders, Launch, Places, inside_environment

PROGRAM = "/usr/bin/sandbox-exec"

_READABLE = (
    *("/usr/bin", "/usr/lib", "/usr/libexec", "/usr/share", "/bin", "/sbin", "/System"),
    *("/Library/Apple", "/Library/Developer", "/Applications/Xcode.app/Contents/Developer"),
    *("/private/etc/ssl", "/private/var/db/timezone", "/opt/homebrew", "/usr/local"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

# Names of the parameters that sandbox-exec(1) fills in by -D.
_PROFILE = """\
(version 1)
(deny default)
(allow process-fork)
(allow process-exec)
(allow signal (target same-sandbox))
(allow sysctl-read)
(allow file-read-metadata)
(allow file-read* file-map-executable {readable}
  (subpath (param "PREFIX")) (subpath (param "INPUTS")))
(allow file-read* file-write* file-map-executable
  (subpath (param "JOB")) (subpath (param "TEMPORARY")))
(allow file-read* file-write-data {devices})
(allow file-read* (literal "/") (subpath "/dev/fd"))
"""


@dataclass(frozen=True, slots=True)
class SeatbeltSandbox:
    """A `sandbox.SpawningSandbox`. `shown` are further paths to read."""

    interpreter: str
    path: str
    prefix: Path
    shown: tuple[Path, ...] = ()
    tier: str = "seatbelt"
    owns_pids: bool = False
    works_outside: bool = True
    walks_in: bool = False

    def places(self, folders: Folders) -> Places:
        """See `sandbox.SpawningSandbox.places`."""
        return Places(inputs=str(folders.inputs), job=str(folders.job))

    def rlimits(self, limits: SessionLimits) -> Mapping[str, tuple[int, int]]:
        """See `sandbox.SpawningSandbox.rlimits`."""
        # RLIMIT_NPROC would count every process of this user, not only ours.
        return {name: bound for name, bound in limits.rlimits().items() if name != "nproc"}

    def profile(self) -> str:
        """In the language of sandbox-exec: what is not allowed is denied, the network for one."""
        readable = [_subpath(place) for place in (*_READABLE, *map(str, self.shown))]
        devices = [f'(literal "{place}")' for place in _DEVICES]
        return _PROFILE.format(readable=" ".join(readable), devices=" ".join(devices))

    def launch(
        self,
        program: Sequence[str],
        *,
        limits: SessionLimits,  # noqa: ARG002 - kept by the program
        folders: Folders,
        slot: int,  # noqa: ARG002 - nothing here is counted by slot
        passed_fds: Sequence[int] = (),
    ) -> Launch:
        """See `sandbox.SpawningSandbox.launch`."""
        # Rules are about real paths: /tmp, for one, is a link on macOS.
        places = {
            "PREFIX": self.prefix,
            "INPUTS": folders.inputs,
            "JOB": folders.job,
            "TEMPORARY": folders.temporary,
        }
        parameters = [
            word for name, place in places.items() for word in ("-D", f"{name}={place.resolve()}")
        ]
        job = str(folders.job)
        return Launch(
            argv=(PROGRAM, "-p", self.profile(), *parameters, *program),
            environment=inside_environment(
                home=job, temporary=str(folders.temporary), path=self.path
            ),
            working_folder=job,
            passes=tuple(passed_fds),
            closes_after=(),
            owns_pids=False,
        )


def _subpath(place: str) -> str:
    """A rule's operand. Raises ValueError for a path that could say more than its name."""
    if '"' in place or "\\" in place or "\n" in place:
        raise ValueError(f"{place!r} cannot be named in a profile")
    return f'(subpath "{place}")'
