"""One kernel process: its start, its pipes and folders, its end.

What happens during a cell is `cell_run`'s, which session owns which kernel is `sessions`'.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog
import trio

from kowalski.node.repl.artefacts import read_inside
from kowalski.node.repl.egress import WayOut
from kowalski.node.repl.kernel_frames import KernelChannel, Ready
from kowalski.node.repl.kernel_source import Ends, KernelSource, Started
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders, LostAtStartError
from kowalski.node.repl.work_folders import remove_tree
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
)

log = structlog.get_logger(__name__)

_DEATH_S_MAX = 2.0
_WORDS_BYTES_MAX = 64 * 1024  # all that a pipe holds
_WORDS_CHARS_MAX = 2000


class Kernel:
    """A started kernel. Whoever has it closes it."""

    def __init__(
        self,
        started: Started,
        channel: KernelChannel,
        outputs: tuple[int, int],
        folder: Path,
        way_out: WayOut | None = None,
    ) -> None:
        self.tree = started.tree
        self.places = started.places
        self.channel = channel
        self.stdout, self.stderr = outputs
        self.folder = folder
        self.way_out = way_out
        self.version = ""
        self._is_closed = False

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and not self.channel.is_broken and self.tree.exit_code is None

    async def close(self) -> None:
        """Kill, wait for the death, remove the files. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        with trio.CancelScope(shield=True):
            self.tree.kill()
            with trio.move_on_after(_DEATH_S_MAX):
                await self.tree.wait_dead()
            self.channel.close()
            if self.way_out is not None:
                self.way_out.close()
            for fd in (self.stdout, self.stderr):
                trio.lowlevel.notify_closing(fd)
                os.close(fd)
            self.tree.close()
            await trio.to_thread.run_sync(remove_tree, self.folder)

    async def open_session(
        self, inputs: Mapping[str, Path], seed: int, files: Mapping[str, Path] | None = None
    ) -> None:
        """Show `inputs` to the kernel, under their names where those can be file names.

        It copies `files` into its working folder, under their names.

        Raises:
            PeerUnreachableError: the kernel is gone.
            OSError: an input or a file cannot be read.
        """
        places: dict[str, str] = {}
        for index, (name, path) in enumerate(inputs.items()):
            places[name] = await self.show(path, name if _is_plain(name) else str(index))
        copied: dict[str, str] = {}
        for index, (name, path) in enumerate((files or {}).items()):
            copied[name] = await self.show(path, f".file-{index}")
        told = {"op": "open", "seed": seed, "inputs": places}
        await self.channel.send({**told, "files": copied} if copied else told)

    def read(self, path: str, *, bytes_max: int) -> bytes | None:
        """A file that the kernel speaks of, by its path inside; blocks on disk.

        None where there is none, where it is larger, or where the path leads out of what is the
        session's own.
        """
        root = self.tree.root()
        is_shared = root == Path("/")
        if root is None or (is_shared and not Path(path).is_relative_to(self.folder)):
            return None
        return read_inside(root, path, bytes_max=bytes_max)

    async def show(self, path: Path, name: str, *, mode: int = 0o444) -> str:
        """Where the kernel can read `path` from now on. Raises OSError."""
        await trio.to_thread.run_sync(_show, path, self.folder / "inputs" / name, mode)
        return f"{self.places.inputs}/{name}"


async def start_kernel(
    source: KernelSource, kernel: str, *, limits: SessionLimits, slot: int, timeout_s: float
) -> Kernel:
    """Start `kernel` from `source` and wait until it says that it is ready; `timeout_s` for a try.

    One that is lost on its way is started once more: what it stood on may have been killed, or the
    system may have been short of something for a moment.

    Raises:
        RequestFailedError: `sandbox`, with what the sandbox or the kernel had to say.
    """
    try:
        return await _try(source, kernel, limits=limits, slot=slot, timeout_s=timeout_s)
    except LostAtStartError as lost:
        log.info("kernel-lost-at-start", kernel=kernel, why=lost.detail)
    return await _try(source, kernel, limits=limits, slot=slot, timeout_s=timeout_s)


async def _try(
    source: KernelSource, kernel: str, *, limits: SessionLimits, slot: int, timeout_s: float
) -> Kernel:
    error, words = RequestFailedError, f"no kernel within {timeout_s:g} s"
    last_words = ""
    with trio.move_on_after(timeout_s):
        started = await _start(source, kernel, limits=limits, slot=slot)
        is_ready = False
        try:
            frame = await started.channel.receive()
            if isinstance(frame, Ready):
                started.version = frame.version
                if started.way_out is not None:
                    started.way_out.open()
                is_ready = True
        except (PeerUnreachableError, RemoteProtocolError, OSError):
            error, words = LostAtStartError, "the kernel did not start"
        finally:
            if not is_ready:
                last_words = _last_words(started.stderr)
                await started.close()
        if is_ready:
            return started
    raise error("sandbox", f"{words}: {last_words}" if last_words else words)


async def _start(source: KernelSource, kernel: str, *, limits: SessionLimits, slot: int) -> Kernel:
    try:
        folder, folders = source.make_folders()
    except OSError as error:
        raise RequestFailedError("sandbox", f"cannot start a kernel: {error}") from error
    with contextlib.ExitStack() as undo:
        undo.callback(remove_tree, folder)
        try:
            return await _start_in(source, kernel, undo, folder, folders, limits=limits, slot=slot)
        except OSError as error:
            raise RequestFailedError("sandbox", f"cannot start a kernel: {error}") from error


async def _start_in(
    source: KernelSource,
    kernel: str,
    undo: contextlib.ExitStack,
    folder: Path,
    folders: Folders,
    *,
    limits: SessionLimits,
    slot: int,
) -> Kernel:
    ours, theirs = socket.socketpair()
    undo.callback(ours.close)
    way_out = source.egress.way_out() if source.egress else None
    if way_out is not None:
        undo.callback(way_out.close)
    with theirs, _pipe(undo) as (stdout, stdout_w), _pipe(undo) as (stderr, stderr_w):
        way = way_out.theirs.fileno() if way_out else None
        ends = Ends(theirs.fileno(), stdout_w, stderr_w, way)
        started = await source.start(kernel, limits=limits, slot=slot, folders=folders, ends=ends)
    if way_out is not None:
        way_out.is_passed()
    undo.pop_all()
    return Kernel(started, KernelChannel(ours), (stdout, stderr), folder, way_out)


@contextlib.contextmanager
def _pipe(undo: contextlib.ExitStack) -> Iterator[tuple[int, int]]:
    """A pipe whose writing end is closed on leaving, the reading end only if `undo` runs."""
    reading, writing = os.pipe()
    undo.callback(os.close, reading)
    os.set_blocking(reading, False)
    try:
        yield reading, writing
    finally:
        os.close(writing)


def _is_plain(name: str) -> bool:
    """Whether `name` can be a file name: no folder, nothing hidden, no clash with a number."""
    if not name or len(name) > 100 or name[0] in ".-" or name.isdigit():
        return False
    return name.isascii() and all(char.isalnum() or char in "._-" for char in name)


def _show(source: Path, place: Path, mode: int) -> None:
    """Make `source` readable at `place`: a link where that suffices, else a copy with `mode`.

    The folder is seen read-only inside, so a link gives nobody more than reading.
    """
    with contextlib.suppress(OSError):
        resolved = source.resolve(strict=True)
        if resolved.stat().st_mode & mode & 0o007 == mode & 0o007:
            os.link(resolved, place)
            return
    shutil.copyfile(source, place)
    place.chmod(mode)


def _last_words(fd: int) -> str:
    try:
        said = os.read(fd, _WORDS_BYTES_MAX).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    # Of a traceback the last line says what went wrong.
    return said.splitlines()[-1][-_WORDS_CHARS_MAX:] if said else ""
