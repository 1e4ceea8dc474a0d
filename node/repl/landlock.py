"""The tier `landlock`: files by Landlock, everything else by the filter.

For systems that forbid namespaces: containers, Ubuntu without bubblewrap. It contains code as the
other tiers do, and is coarser: metadata of the host's files can be seen,
sessions work in folders of the disk, which the watchdog bounds, and there is no /proc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kowalski.node.repl.bubblewrap import SERVER_PARTS
from kowalski.node.repl.egress import Network
from kowalski.node.repl.file_view import FileView
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders, Launch, Places, ServerPlan, inside_environment

PARTS = tuple("landlocked.py" if part == "namespaced.py" else part for part in SERVER_PARTS)

VERSION_MIN = 6
"""Scopes for signals and abstract sockets (Linux 6.12): before, others of the user are in reach."""

VERSION_MIN_AS_ROOT = 3
"""Truncation (Linux 6.2). Sessions have a uid that nobody else on the machine has."""

# What runtimes of languages look at to learn how large the machine is.
_PROC_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems")


@dataclass(frozen=True, slots=True)
class LandlockSandbox:
    """A `sandbox.ForkingSandbox`. `first_uid` and above, one per slot, are for when we are root."""

    interpreter: str
    path: str
    view: FileView
    as_root: bool
    first_uid: int
    system_call_filter: bytes
    tier: str = "landlock"
    owns_pids: bool = False
    works_outside: bool = True
    network: Network = "none"

    @property
    def walks_in(self) -> bool:
        return self.as_root

    def plan(self, scratch: Path) -> ServerPlan:  # noqa: ARG002 - each order names its folders
        """See `sandbox.ForkingSandbox.plan`."""
        readable = [source for source, _ in self.view.binds]
        settings = {
            "filter": self.system_call_filter,
            "readable": [*readable, *_PROC_FILES],
            "version_min": VERSION_MIN_AS_ROOT if self.as_root else VERSION_MIN,
        }
        return ServerPlan(PARTS, settings)

    def launch_server(
        self,
        program: Sequence[str],
        *,
        scratch: Path,  # noqa: ARG002 - it sees everything, and sessions what they are shown
        passed_fds: Sequence[int],
    ) -> Launch:
        """See `sandbox.ForkingSandbox.launch_server`."""
        return Launch(
            argv=tuple(program),
            environment=inside_environment(home="/", temporary="/", path=self.path),
            working_folder="/",
            passes=tuple(passed_fds),
            closes_after=(),
            owns_pids=False,
        )

    def places(self, folders: Folders) -> Places:
        """See `sandbox.ForkingSandbox.places`."""
        return Places(inputs=str(folders.inputs), job=str(folders.job))

    def order(
        self,
        *,
        limits: SessionLimits,
        folders: Folders,
        scratch: Path,  # noqa: ARG002 - as in `launch_server`
        slot: int,
    ) -> dict[str, object]:
        """See `sandbox.ForkingSandbox.order`."""
        home, temporary = str(folders.job), str(folders.temporary)
        return {
            "uid": self.first_uid + slot if self.as_root else None,
            "inputs": str(folders.inputs),
            "work": [home, temporary],
            "environment": inside_environment(home=home, temporary=temporary, path=self.path),
            "rlimits": limits.rlimits(),
        }
