"""What a sandbox is to the rest of the room: it turns a program and its limits into a command line.

Tiers, best first, are tried by `detection`. Spawning, watching and killing is `spawned`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kowalski.node.repl.limits import SessionLimits


@dataclass(frozen=True, slots=True)
class Launch:
    """A command ready to be spawned, and where the program will find things.

    `closes_after` are descriptors made for this launch: whoever spawns it closes them afterwards,
    whether or not that worked. `owns_pids`: killing the first inner process kills all of them.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_folder: str
    passes: tuple[int, ...]
    closes_after: tuple[int, ...]
    inputs_at: str
    job_at: str
    owns_pids: bool


@dataclass(frozen=True, slots=True)
class Folders:
    """Where one session keeps things on this side: what it may read, and where it may work.

    A tier with a working folder of its own inside does not use `job`.
    """

    inputs: Path
    job: Path


class Sandbox(Protocol):
    @property
    def tier(self) -> str: ...

    @property
    def interpreter(self) -> str:
        """The python that programs inside can count on."""
        ...

    def launch(
        self,
        program: Sequence[str],
        *,
        limits: SessionLimits,
        folders: Folders,
        slot: int,
        passed_fds: Sequence[int] = (),
        read_only: Sequence[Path] = (),
    ) -> Launch:
        """The command that runs `program` with exactly `passed_fds` besides the standard three.

        `read_only` are further host paths to show at the same place inside. Two launches that live
        at the same time need different `slot`s, at least 0.

        Raises:
            OSError: no descriptor to be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class SandboxVerdict:
    """What detection found; `sandbox` is None when nothing here contains code.

    `reason` says why in words for the owner; `details` has one line per tier.
    """

    sandbox: Sandbox | None
    tier: str
    reason: str
    details: Mapping[str, str] = field(default_factory=dict[str, str])


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


def rlimit_command(limits: SessionLimits) -> list[str]:
    """util-linux prlimit, run inside: there RLIMIT_NPROC counts this sandbox only."""
    cpu = "unlimited" if limits.cpu_s is None else f"{limits.cpu_s}:{limits.cpu_s + 2}"
    return [
        "/usr/bin/prlimit",
        f"--nproc={limits.processes}",
        f"--data={limits.process_memory_bytes}",
        f"--cpu={cpu}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.open_files}",
        "--core=0",
        "--memlock=65536",
        "--msgqueue=65536",
        "--sigpending=256",
        "--",
    ]


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


def is_root() -> bool:
    return os.geteuid() == 0
