"""A session's processes as the host sees them: what they weigh, how they end, how to kill them all.

Implemented by `spawned` for a command of its own and by `fork_server` for what it forked.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import trio

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.work_folders import Storage

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# A tree is at most this large: RLIMIT_NPROC is far below.
_TREE_MAX = 4096
_POLL_S = 0.02
# Where there is none, as on macOS, psutil knows another way; it is ten times slower than this one.
_HAS_PROC = Path("/proc/self/statm").exists()


@dataclass(frozen=True, slots=True)
class Weight:
    """What a tree uses now. `resident_bytes` counts shared pages once where it is near a limit.

    `stored_bytes` counts only what no sized file system bounds.
    """

    resident_bytes: int
    processes: int
    inodes: int = 0
    stored_bytes: int = 0


class ProcessTree(Protocol):
    """All processes of one session. `kill` and `close` are the owner's duty."""

    @property
    def exit_code(self) -> int | None:
        """As a shell counts: 128 + n when signal n ended it. None while it runs."""
        ...

    async def wait_dead(self) -> None:
        """Until the first process is gone; for an owner of pids, all that it started too."""
        ...

    def kill(self) -> None:
        """SIGKILL to all of it, now. Does not wait, may be called twice."""
        ...

    def weight(self, limits: SessionLimits) -> Weight:
        """What the tree uses now, as far as `limits` need it known.

        Where the plain sum of resident memory is above them, it is counted again with shared pages
        divided among their users, which is exact and slow; files are counted up to their limit.
        """
        ...

    def root(self) -> Path | None:
        """Where the inside's root folder is seen from here, None when it is not to be had."""
        ...

    def close(self) -> None: ...


def tree_of(pid: int) -> Iterator[int]:
    """`pid` and all that descend from it, as far as the system says."""
    if not _HAS_PROC:
        yield pid
        with contextlib.suppress(psutil.Error):
            yield from (child.pid for child in psutil.Process(pid).children(recursive=True))
        return
    waiting, seen = [pid], 0
    while waiting and seen < _TREE_MAX:
        pid = waiting.pop()
        seen += 1
        yield pid
        waiting.extend(children_of(pid))


def children_of(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split()
                children.extend(int(word) for word in words)
    return children


def weigh(pid: int, limits: SessionLimits, root: Path | None, storage: Storage) -> Weight:
    """See `ProcessTree.weight`; `root` as in `ProcessTree.root`."""
    pids = list(tree_of(pid))
    resident = sum(_resident_bytes(each) for each in pids)
    if resident > limits.memory_bytes:
        resident = sum(_proportional_bytes(each) for each in pids)
    use = storage.use(root, pids, inodes_max=limits.inodes)
    return Weight(resident, len(pids), use.inodes, use.stored_bytes)


def _resident_bytes(pid: int) -> int:
    if not _HAS_PROC:
        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).memory_info().rss
        return 0
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError):
        return _resident_bytes(pid)
    return 0


def kill_pid(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_pidfd(pidfd: int | None) -> None:
    if pidfd is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


async def until_gone(pidfd: int | None) -> None:
    """Until the process is gone, or a moment where nobody can tell us."""
    if pidfd is not None:
        try:
            await trio.lowlevel.wait_readable(pidfd)
        except trio.BusyResourceError:
            # A cell waits for the same death.
            await trio.sleep(_POLL_S)
    else:
        await trio.sleep(_POLL_S)


def pidfd_of(pid: int) -> int | None:
    """None where the system has none, or the process is gone."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
