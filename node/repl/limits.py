"""What a session and a cell may use, as data.

Enforced by prlimit inside the sandbox, by sized tmpfs, and by the watchdog of the host where
neither can: sums over processes, and inodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of one session, all its processes together unless said otherwise."""

    memory_bytes: int = 1024 * MIB
    """Resident memory of all processes; the watchdog kills above it."""

    process_memory_bytes: int = 768 * MIB
    """Private memory of one process (RLIMIT_DATA). RLIMIT_AS would break node and java."""

    processes: int = 64
    """Processes and threads."""

    cpu_s: int | None = None
    """CPU seconds of one process; None: unbounded, because a session lives over many cells and each
    of them has a wall clock."""

    file_bytes: int = 64 * MIB
    """One file."""

    folder_bytes: int = 64 * MIB
    """Each of /job, /tmp and /dev/shm."""

    open_files: int = 256
    """File descriptors of one process."""

    inodes: int = 20_000
    """Files in each of /job, /tmp and /dev/shm: each costs kernel memory."""

    def rlimits(self) -> dict[str, tuple[int, int]]:
        """Soft and hard bounds by the names of `kernels/limiting.py`, for each process."""
        bounds = {
            "data": self.process_memory_bytes,
            "fsize": self.file_bytes,
            "nofile": self.open_files,
            "nproc": self.processes,
            "core": 0,
            "memlock": 65536,
            "msgqueue": 65536,
            "sigpending": 256,
        }
        pairs = {name: (bound, bound) for name, bound in bounds.items()}
        if self.cpu_s is not None:
            pairs["cpu"] = (self.cpu_s, self.cpu_s + 2)
        return pairs


@dataclass(frozen=True, slots=True)
class CellLimits:
    """Bounds of one cell."""

    wall_s: float = math.inf
    """However much the asker grants, without the time that its sub-calls take."""

    output_bytes_kept: int = MIB
    """Of each stream, head and tail."""

    output_bytes_max: int = 4 * MIB
    """Of each stream; more kills the session."""

    sub_call_batches: int = 64
    """Batches of sub-calls that wait at the same time; more are answered with an error."""

    interrupt_grace_s: float = 0.5
    """Between asking a cell to stop and killing its session."""

    watch_interval_s: float = 0.1
    """Between two looks of the watchdog."""


# Compilers and virtual machines are larger than what they work on.
_ROOMY = SessionLimits(
    memory_bytes=2048 * MIB,
    process_memory_bytes=2048 * MIB,
    processes=128,
    folder_bytes=256 * MIB,
    open_files=1024,
)
BY_LANGUAGE: Mapping[str, SessionLimits] = MappingProxyType(
    {
        "java": _ROOMY,
        "rust": _ROOMY,
        "go": _ROOMY,
        "js": SessionLimits(process_memory_bytes=1024 * MIB),
        "typescript": SessionLimits(process_memory_bytes=1024 * MIB),
    }
)
"""What a language needs more of than `SessionLimits` gives."""


def _per_language() -> Mapping[str, SessionLimits]:
    return BY_LANGUAGE


def _none_of_their_own() -> Mapping[str, CellLimits]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Limits:
    """Everything that bounds the sessions of one host.

    A language without its own has `session` and `cell`.
    """

    cell: CellLimits = field(default_factory=CellLimits)
    session: SessionLimits = field(default_factory=SessionLimits)
    by_language: Mapping[str, SessionLimits] = field(default_factory=_per_language)
    cell_by_language: Mapping[str, CellLimits] = field(default_factory=_none_of_their_own)

    def of(self, language: str) -> SessionLimits:
        return self.by_language.get(language, self.session)

    def cell_of(self, language: str) -> CellLimits:
        return self.cell_by_language.get(language, self.cell)
