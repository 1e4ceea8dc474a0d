"""One spawned launch and everything it starts: spawn, wait for the end, weigh, kill.

Never spawn through trio's functions: they fork on a worker thread that trio retires after ten idle
seconds, and bwrap's `--die-with-parent` (PR_SET_PDEATHSIG) follows the thread. Popen on the thread
that runs trio takes about 3 ms.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from kowalski.node.repl.sandbox import Launch

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# A tree is at most this large: RLIMIT_NPROC is far below.
_TREE_MAX = 4096
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Weight:
    """What a tree uses now. `resident_bytes` counts shared pages once where it is near a limit."""

    resident_bytes: int
    processes: int
    inodes: int


class Spawned:
    """A launched command; `kill` and `close` are the owner's duty.

    Raises:
        OSError: the command could not be started.
    """

    def __init__(self, launch: Launch, *, stdout: int, stderr: int) -> None:
        self._owns_pids = launch.owns_pids
        self._job_at = launch.job_at
        self._inner: int | None = None
        try:
            self._popen = subprocess.Popen(
                launch.argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=dict(launch.environment),
                cwd=launch.working_folder,
                start_new_session=True,
                pass_fds=launch.passes,
            )
        finally:
            for fd in launch.closes_after:
                os.close(fd)
        self.pid = self._popen.pid
        self._pidfd = _pidfd(self.pid)
        self._inner_pidfd: int | None = None

    @property
    def exit_code(self) -> int | None:
        """As a shell counts: 128 + n when signal n ended it. None while it runs."""
        code = self._popen.poll()
        return None if code is None else (128 - code if code < 0 else code)

    async def wait_dead(self) -> None:
        """Until the spawned process is gone; for an owner of pids, all that it started too."""
        while self._popen.poll() is None:
            await _readable(self._pidfd)
        if self._inner_pidfd is not None:
            await _readable(self._inner_pidfd)

    def inner_pid(self) -> int | None:
        """The first process inside, seen from here; None before there is one."""
        if self._inner is None and self._owns_pids:
            self._inner = next(iter(_children(self.pid)), None)
            self._inner_pidfd = None if self._inner is None else _pidfd(self._inner)
        return self._inner if self._owns_pids else self.pid

    def kill(self) -> None:
        """SIGKILL to all of it, now. Does not wait, may be called twice."""
        if self._owns_pids:
            # The first inner process is init of its pid namespace: with it go all others.
            self.inner_pid()
            if self._inner_pidfd is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(self._inner_pidfd, signal.SIGKILL)
        else:
            for pid in list(self._tree()):
                if pid != self.pid:
                    _signal(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._popen.poll() is None:
            _signal(self.pid)

    def weight(self, limit_bytes: int) -> Weight:
        """What the tree uses now.

        Where the plain sum of resident memory exceeds `limit_bytes` it is counted again with shared
        pages divided among their users, which is exact and slow.
        """
        pids = list(self._tree())
        resident = sum(_resident_bytes(pid) for pid in pids)
        if resident > limit_bytes:
            resident = sum(_proportional_bytes(pid) for pid in pids)
        return Weight(resident, len(pids), self._inodes())

    def root(self) -> Path | None:
        """Where the inside's root folder is seen from here, None when it is not to be had."""
        inner = self.inner_pid()
        if not self._owns_pids:
            return Path("/")
        return None if inner is None else Path(f"/proc/{inner}/root")

    def close(self) -> None:
        for fd in (self._pidfd, self._inner_pidfd):
            if fd is not None:
                os.close(fd)
        self._pidfd = self._inner_pidfd = None

    def _tree(self) -> Iterator[int]:
        waiting, seen = [self.pid], 0
        while waiting and seen < _TREE_MAX:
            pid = waiting.pop()
            seen += 1
            yield pid
            waiting.extend(_children(pid))

    def _inodes(self) -> int:
        root = self.root() if self._owns_pids else None
        if root is None:
            return 0
        used = 0
        for folder in ("tmp", self._job_at.lstrip("/"), "dev/shm"):
            with contextlib.suppress(OSError):
                found = os.statvfs(root / folder)
                used = max(used, found.f_files - found.f_ffree)
        return used


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split()
                children.extend(int(word) for word in words)
    return children


def _resident_bytes(pid: int) -> int:
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


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


async def _readable(pidfd: int | None) -> None:
    """Until the process is gone, or a moment where nobody can tell us."""
    if pidfd is not None:
        try:
            await trio.lowlevel.wait_readable(pidfd)
        except trio.BusyResourceError:
            # A cell waits for the same death.
            await trio.sleep(_POLL_S)
    else:
        await trio.sleep(_POLL_S)


def _pidfd(pid: int) -> int | None:
    """None where the system has none, or the process is gone."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
