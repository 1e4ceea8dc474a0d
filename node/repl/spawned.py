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
from pathlib import Path

import trio

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.process_tree import (
    Weight,
    children_of,
    kill_pid,
    kill_pidfd,
    pidfd_of,
    tree_of,
    until_gone,
    weigh,
)
from kowalski.node.repl.sandbox import Launch
from kowalski.node.repl.work_folders import Storage, WorkFolders


class Spawned:
    """A `process_tree.ProcessTree` with a command of its own.

    Raises:
        OSError: the command could not be started.
    """

    def __init__(
        self, launch: Launch, *, stdout: int, stderr: int, storage: Storage | None = None
    ) -> None:
        self._owns_pids = launch.owns_pids
        self._storage = storage or WorkFolders(())
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
        self._pidfd = pidfd_of(self.pid)
        self._inner_pidfd: int | None = None

    @property
    def exit_code(self) -> int | None:
        """See `ProcessTree.exit_code`."""
        code = self._popen.poll()
        return None if code is None else (128 - code if code < 0 else code)

    async def wait_dead(self) -> None:
        """See `ProcessTree.wait_dead`."""
        while self._popen.poll() is None:
            await until_gone(self._pidfd)
        if self._inner_pidfd is not None:
            await until_gone(self._inner_pidfd)
        await trio.lowlevel.checkpoint()

    def inner_pid(self) -> int | None:
        """The first process inside, seen from here; None before there is one."""
        if self._inner is None and self._owns_pids:
            self._inner = next(iter(children_of(self.pid)), None)
            self._inner_pidfd = None if self._inner is None else pidfd_of(self._inner)
        return self._inner if self._owns_pids else self.pid

    def kill(self) -> None:
        """See `ProcessTree.kill`."""
        if self._owns_pids:
            # The first inner process is init of its pid namespace: with it go all others.
            self.inner_pid()
            kill_pidfd(self._inner_pidfd)
        else:
            for pid in list(tree_of(self.pid)):
                if pid != self.pid:
                    kill_pid(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._popen.poll() is None:
            kill_pid(self.pid)

    def weight(self, limits: SessionLimits) -> Weight:
        """See `ProcessTree.weight`."""
        return weigh(self.pid, limits, self.root(), self._storage)

    def root(self) -> Path | None:
        """See `ProcessTree.root`."""
        inner = self.inner_pid()
        if not self._owns_pids:
            return Path("/")
        return None if inner is None else Path(f"/proc/{inner}/root")

    def close(self) -> None:
        """See `ProcessTree.close`."""
        for fd in (self._pidfd, self._inner_pidfd):
            if fd is not None:
                os.close(fd)
        self._pidfd = self._inner_pidfd = None
