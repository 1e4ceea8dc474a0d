"""What a sandbox is to the rest of the room: it turns a program and its limits into a command line.

Two kinds: one that starts every session by a command of its own, and one that starts a fork server
once, which then makes sessions in milliseconds. Which tier works here is found by `detection`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from kowalski.node.repl.egress import Network
from kowalski.node.repl.limits import SessionLimits
from kowalski.protocol.errors import RequestFailedError


class LostAtStartError(RequestFailedError):
    """A process was gone before it had said that it is ready. Another may do better."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command ready to be spawned.

    `closes_after` are descriptors made for this launch: whoever spawns it closes them afterwards,
    whether or not that worked. `owns_pids`: killing the first inner process kills all of them.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_folder: str
    passes: tuple[int, ...]
    closes_after: tuple[int, ...]
    owns_pids: bool


@dataclass(frozen=True, slots=True)
class Places:
    """Where a session finds things, as it sees them."""

    inputs: str
    job: str


@dataclass(frozen=True, slots=True)
class Folders:
    """Where one session keeps things on this side: what it may read, and where it may work.

    `job` and `temporary` are there for a tier that `works_outside`.
    """

    inputs: Path
    job: Path
    temporary: Path


class Sandbox(Protocol):
    @property
    def tier(self) -> str: ...

    @property
    def interpreter(self) -> str:
        """The python that programs inside can count on."""
        ...

    @property
    def path(self) -> str:
        """`PATH` inside."""
        ...

    @property
    def owns_pids(self) -> bool:
        """Whether sessions have namespaces of their own.

        Killing the first process of a session then kills all of them.
        """
        ...

    @property
    def works_outside(self) -> bool:
        """Whether sessions work in folders of the host, and not on file systems of their own."""
        ...

    @property
    def walks_in(self) -> bool:
        """Whether sessions reach their folders by the host's paths and as somebody else."""
        ...


@runtime_checkable
class SpawningSandbox(Sandbox, Protocol):
    """Every session by a command of its own."""

    def places(self, folders: Folders) -> Places: ...

    def rlimits(self, limits: SessionLimits) -> Mapping[str, tuple[int, int]]:
        """Those of `limits.rlimits` that the program is to set for itself."""
        ...

    def launch(
        self,
        program: Sequence[str],
        *,
        limits: SessionLimits,
        folders: Folders,
        slot: int,
        passed_fds: Sequence[int] = (),
    ) -> Launch:
        """The command that runs `program` with exactly `passed_fds` besides the standard three.

        Two launches that live at the same time need different `slot`s, at least 0.

        Raises:
            OSError: no descriptor to be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """How to start a fork server: its parts of `kernels/`, and what they are told.

    `settings` is marshalled: None, numbers, text, bytes, and lists and dicts of these.
    """

    parts: tuple[str, ...]
    settings: Mapping[str, object]


@runtime_checkable
class ForkingSandbox(Sandbox, Protocol):
    """One fork server for all sessions; `scratch` holds the folders of all of them."""

    @property
    def network(self) -> Network:
        """What sessions reach, by a proxy."""
        ...

    def plan(self, scratch: Path) -> ServerPlan: ...

    def launch_server(
        self, program: Sequence[str], *, scratch: Path, passed_fds: Sequence[int]
    ) -> Launch:
        """The command that runs the fork server. Raises OSError."""
        ...

    def places(self, folders: Folders) -> Places: ...

    def order(
        self, *, limits: SessionLimits, folders: Folders, scratch: Path, slot: int
    ) -> dict[str, object]:
        """What the fork server is told of one session, as JSON, besides which kernel it is.

        Two sessions that live at the same time need different `slot`s, at least 0.
        """
        ...


@dataclass(frozen=True, slots=True)
class SandboxVerdict:
    """What detection found; `sandbox` is None when nothing here contains code.

    `reason` says why in words for the owner; `details` has one line per tier. `languages` are the
    versions of those whose hello-world ran inside, `silent` says of the others why they did not.
    """

    sandbox: Sandbox | None
    tier: str
    reason: str
    details: Mapping[str, str] = field(default_factory=dict[str, str])
    languages: Mapping[str, str] = field(default_factory=dict[str, str])
    silent: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def passed_over(self) -> tuple[str, ...]:
        """Why each better tier will not do, in words."""
        return tuple(why for why in self.details.values() if why != WORKS)


WORKS = "works"
"""In `SandboxVerdict.details`, of the tier that was taken."""


def reach_of(sandbox: Sandbox | None) -> Network:
    """What sessions reach by our proxy."""
    return sandbox.network if isinstance(sandbox, ForkingSandbox) else "none"


def interpreter_prefix() -> tuple[Path, str]:
    """The folder that holds this interpreter with its library, and the program inside it.

    A virtual environment only points at it, and so do the shims of version managers.
    """
    prefix = Path(sys.base_prefix).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = prefix / "bin" / version
    if not program.exists():
        program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    return prefix, str(program)


SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def inside_environment(*, home: str, temporary: str, path: str) -> dict[str, str]:
    """Everything a program inside has in its environment.

    PYTHONHASHSEED is fixed so that a replayed cell walks its sets in the same order.
    """
    return {
        "PATH": path,
        "HOME": home,
        "TMPDIR": temporary,
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "USER": "sandbox",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }


def is_passable(path: Path) -> bool:
    """Whether any user of this machine gets to `path`, and may run it; blocks on disk."""
    try:
        return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))
    except OSError:
        return False


def is_root() -> bool:
    return os.geteuid() == 0
