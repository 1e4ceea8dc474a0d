"""What a container leaves of the machine: memory and CPU limits of Linux control groups, v1 and v2.

Every limit is optional and every file may be missing: no cgroup, no limit. The paths are found
once; the values are read each time, for they can be changed from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")

# v1 says "no limit" with a number near 2^63, rounded down to a page.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """`used_bytes` leaves out the page cache, which is given back when needed."""

    limit_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The folders of this process's group, innermost first, by controller."""

    memory_folders: tuple[Path, ...] = ()
    cpu_folders: tuple[Path, ...] = ()
    cpu_time_folder: Path | None = None

    def memory(self) -> MemoryUse | None:
        """The group that has least left; None without a limit."""
        tightest: MemoryUse | None = None
        for folder in self.memory_folders:
            use = _memory_use(folder)
            if use is not None and (tightest is None or _left(use) < _left(tightest)):
                tightest = use
        return tightest

    def cores(self) -> float | None:
        """How many cores' worth of time there is, such as 0.5; None without a limit."""
        quotas = [quota for folder in self.cpu_folders if (quota := _quota(folder)) is not None]
        return min(quotas, default=None)

    def cpu_time_s(self) -> float | None:
        """CPU time that the group has spent."""
        folder = self.cpu_time_folder
        if folder is None:
            return None
        micros = _fields(folder / "cpu.stat").get("usage_usec")
        if micros is not None:
            return micros / 1e6
        nanos = _number(folder / "cpuacct.usage")
        return None if nanos is None else nanos / 1e9


def find_cgroup_limits(*, proc: Path = PROC, cgroup: Path = CGROUP) -> CgroupLimits:
    """Where the limits of this process stand; an empty one outside of Linux."""
    groups = _groups(proc)
    unified = groups.get("")
    if unified is not None and (cgroup / "cgroup.controllers").exists():
        folders = _chain(cgroup, unified)
        return CgroupLimits(folders, folders, folders[0] if folders else None)
    cpu_time = _chain(cgroup / "cpuacct", groups.get("cpuacct"))
    return CgroupLimits(
        _chain(cgroup / "memory", groups.get("memory")),
        _chain(cgroup / "cpu", groups.get("cpu")),
        cpu_time[0] if cpu_time else None,
    )


def _groups(proc: Path) -> dict[str, str]:
    """Path by controller; `""` is the unified hierarchy of v2."""
    groups: dict[str, str] = {}
    for line in _text(proc / "self" / "cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            groups |= dict.fromkeys(parts[1].split(","), parts[2])
    return groups


def _chain(mount: Path, group: str | None) -> tuple[Path, ...]:
    """The folders from the group up to the mount; limits of each of them hold.

    In a container the path may be the host's, which does not exist below our mount: then the mount
    itself is the group.
    """
    if group is None or not mount.is_dir():
        return ()
    inner = mount / group.strip("/")
    if ".." in inner.parts or not inner.is_dir():
        return (mount,)
    return tuple(folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount))


def _memory_use(folder: Path) -> MemoryUse | None:
    # Most groups have no limit: then nothing else is read.
    limit = _number(folder / "memory.max")
    names = ("memory.current", "inactive_file")
    if limit is None:
        limit = _number(folder / "memory.limit_in_bytes")
        names = ("memory.usage_in_bytes", "total_inactive_file")
    if limit is None or not 0 < limit < _NO_LIMIT_BYTES:
        return None
    used = _number(folder / names[0])
    if used is None:
        return None
    cache = _fields(folder / "memory.stat").get(names[1], 0)
    return MemoryUse(limit, max(0, used - cache))


def _left(use: MemoryUse) -> int:
    return use.limit_bytes - use.used_bytes


def _quota(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if not words:
        words = [
            _text(folder / "cpu.cfs_quota_us").strip(),
            _text(folder / "cpu.cfs_period_us").strip(),
        ]
    try:
        quota, period = int(words[0]), int(words[1])
    except (ValueError, IndexError):
        return None  # `max`, or no file.
    return quota / period if quota > 0 and period > 0 else None


def _fields(path: Path) -> dict[str, int]:
    """A file of `name number` lines."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
