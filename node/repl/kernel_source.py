"""Where kernels come from: a command of its own for each, or a fork server for all of them.

Which of the two is the sandbox's business; who starts a kernel does not see it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Protocol

import trio

from kowalski.node.repl.egress import Egress, open_egress
from kowalski.node.repl.fork_server import ForkServer, open_fork_server
from kowalski.node.repl.kernel_images import PYTHON_OPTIONS, memory_file, program_of
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.process_tree import ProcessTree
from kowalski.node.repl.sandbox import (
    Folders,
    ForkingSandbox,
    Places,
    Sandbox,
    SpawningSandbox,
)
from kowalski.node.repl.spawned import Spawned
from kowalski.node.repl.work_folders import OwnFileSystems, Storage, WorkFolders, remove_tree
from kowalski.protocol.errors import RequestFailedError

_FOLDER_PREFIX = "kowalski-session-"


@dataclass(frozen=True, slots=True)
class Ends:
    """The kernel's ends of what connects it to us; whoever made them closes them."""

    channel: int
    stdout: int
    stderr: int
    way_out: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    tree: ProcessTree
    places: Places


class KernelSource(Protocol):
    @property
    def tier(self) -> str: ...

    @property
    def egress(self) -> Egress | None:
        """What answers sessions that may reach something."""
        ...

    @property
    def owns_pids(self) -> bool:
        """See `sandbox.Sandbox.owns_pids`."""
        ...

    def make_folders(self) -> tuple[Path, Folders]:
        """A new folder for one session, and what is in it; blocks on disk. The caller removes it.

        Raises:
            OSError
        """
        ...

    async def start(
        self, kernel: str, *, limits: SessionLimits, slot: int, folders: Folders, ends: Ends
    ) -> Started:
        """A process on its way to being `kernel`.

        Raises:
            RequestFailedError: `sandbox`, with what the sandbox had to say.
        """
        ...


class _Scratch:
    def __init__(self, path: Path, sandbox: Sandbox, egress: Egress | None = None) -> None:
        self.egress = egress
        self.path = path
        self.tier = sandbox.tier
        self.owns_pids = sandbox.owns_pids
        self._has_work = sandbox.works_outside

    def make_folders(self) -> tuple[Path, Folders]:
        folder = _make_passable("", self.path)
        folders = Folders(folder / "inputs", folder / "job", folder / "tmp")
        folders.inputs.mkdir()
        folders.inputs.chmod(0o755)
        if self._has_work:
            for own in (folders.job, folders.temporary):
                own.mkdir(mode=0o700)
        return folder, folders

    def storage(self, folders: Folders) -> Storage:
        if self._has_work:
            return WorkFolders((folders.job, folders.temporary))
        return OwnFileSystems()


class SpawningSource(_Scratch):
    def __init__(
        self, sandbox: SpawningSandbox, kernels: Mapping[str, CodeType], scratch: Path
    ) -> None:
        super().__init__(scratch, sandbox)
        self._sandbox = sandbox
        self._programs = {name: program_of(code) for name, code in kernels.items()}

    async def start(
        self, kernel: str, *, limits: SessionLimits, slot: int, folders: Folders, ends: Ends
    ) -> Started:
        """See `KernelSource.start`."""
        await trio.lowlevel.checkpoint()
        try:
            image = memory_file(self._programs[kernel])
            try:
                launch = self._sandbox.launch(
                    (
                        *(self._sandbox.interpreter, *PYTHON_OPTIONS, f"/dev/fd/{image}"),
                        *(str(ends.channel), json.dumps(self._sandbox.rlimits(limits))),
                    ),
                    limits=limits,
                    folders=folders,
                    slot=slot,
                    passed_fds=(image, ends.channel),
                )
                tree = Spawned(
                    launch,
                    stdout=ends.stdout,
                    stderr=ends.stderr,
                    storage=self.storage(folders),
                )
            finally:
                os.close(image)
        except OSError as error:
            raise RequestFailedError("sandbox", f"cannot start a kernel: {error}") from error
        return Started(tree, self._sandbox.places(folders))


class ForkingSource(_Scratch):
    def __init__(
        self, sandbox: ForkingSandbox, server: ForkServer, scratch: Path, egress: Egress | None
    ) -> None:
        super().__init__(scratch, sandbox, egress)
        self._sandbox = sandbox
        self._server = server

    async def start(
        self, kernel: str, *, limits: SessionLimits, slot: int, folders: Folders, ends: Ends
    ) -> Started:
        """See `KernelSource.start`."""
        order = self._sandbox.order(limits=limits, folders=folders, scratch=self.path, slot=slot)
        fds: tuple[int, ...] = (ends.channel, ends.stdout, ends.stderr)
        if ends.way_out is not None:
            fds = (*fds, ends.way_out)
        tree = await self._server.fork(kernel, order, fds, self.storage(folders))
        return Started(tree, self._sandbox.places(folders))


@asynccontextmanager
async def open_kernel_source(
    sandbox: Sandbox, kernels: Mapping[str, CodeType], scratch: Path | None
) -> AsyncIterator[KernelSource]:
    """`kernels` by name, ready to be started in `sandbox`.

    Their folders are made below `scratch` (None, or where nobody else may pass: where temporary
    files go). Leaving the block ends everything that was started and removes the folders.
    """
    prefix = f"{_FOLDER_PREFIX}{os.getpid()}-"
    if sandbox.walks_in:
        scratch = None
    path = await trio.to_thread.run_sync(_make_passable, prefix, scratch)
    try:
        if isinstance(sandbox, ForkingSandbox):
            async with (
                open_egress(sandbox.network) as egress,
                open_fork_server(sandbox, kernels, path) as server,
            ):
                yield ForkingSource(sandbox, server, path, egress)
        elif isinstance(sandbox, SpawningSandbox):
            yield SpawningSource(sandbox, kernels, path)
        else:
            raise TypeError(f"{sandbox!r} starts nothing")
    finally:
        await trio.to_thread.run_sync(remove_tree, path)


def _make_passable(prefix: str, parent: Path | None) -> Path:
    """A new folder; inside, a dropped uid passes through it."""
    if parent is not None:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    folder.chmod(0o755)
    return folder


def remove_leftovers(scratch: Path | None) -> None:
    """Remove the folders of sessions whose node was killed before it could; blocks on disk."""
    for place in {scratch or Path(tempfile.gettempdir()), Path(tempfile.gettempdir())}:
        for folder in place.glob(f"{_FOLDER_PREFIX}*"):
            pid = folder.name.removeprefix(_FOLDER_PREFIX).partition("-")[0]
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                remove_tree(folder)
            except (ValueError, PermissionError):
                continue
