"""One kernel process: its image, its start in a sandbox, its pipes, its end.

What happens during a cell is `cell_run`'s, which session owns which kernel is `sessions`'.
"""

from __future__ import annotations

import contextlib
import importlib.util
import marshal
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import trio

from kowalski.node.repl.kernel_frames import KernelChannel, Ready
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders, Sandbox
from kowalski.node.repl.spawned import Spawned
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
)

_FOLDER_PREFIX = "kowalski-session-"
_DEATH_S_MAX = 2.0
_WORDS_BYTES_MAX = 2000


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel's compiled code, as the interpreter of this process reads it from a file."""

    code: bytes
    options: tuple[str, ...] = ("-s", "-P")
    """No user site, no script folder on the path. Not `-I`: it would ignore PYTHONHASHSEED, and the
    environment inside is ours anyhow."""


def kernel_image(*parts: str) -> KernelImage:
    """A kernel made of these files of `kernels/`, one after the other; it is named by the last."""
    folder = resources.files("kowalski.node.repl") / "kernels"
    text = "".join((folder / part).read_text("utf-8") for part in parts)
    code = compile(text, f"<{parts[-1]}>", "exec", dont_inherit=True)
    # The header of a .pyc file (PEP 552): magic number, flags, and an origin that nobody checks.
    return KernelImage(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code))


class Kernel:
    """A started kernel. Whoever has it closes it."""

    def __init__(
        self, spawned: Spawned, channel: KernelChannel, outputs: tuple[int, int], folder: Path
    ) -> None:
        self.spawned = spawned
        self.channel = channel
        self.stdout, self.stderr = outputs
        self.folder = folder
        self.version = ""
        self.inputs_at = ""
        self.job_at = ""
        self._is_closed = False

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and not self.channel.is_broken and self.spawned.exit_code is None

    async def close(self) -> None:
        """Kill, wait for the death, remove the files. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        with trio.CancelScope(shield=True):
            self.spawned.kill()
            with trio.move_on_after(_DEATH_S_MAX):
                await self.spawned.wait_dead()
            self.channel.close()
            for fd in (self.stdout, self.stderr):
                trio.lowlevel.notify_closing(fd)
                os.close(fd)
            self.spawned.close()
            await trio.to_thread.run_sync(_remove, self.folder)

    async def open_session(self, inputs: Mapping[str, Path], seed: int) -> None:
        """Show `inputs` to the kernel, under their names where those can be file names.

        Raises:
            PeerUnreachableError: the kernel is gone.
            OSError: an input cannot be read.
        """
        places: dict[str, str] = {}
        for index, (name, path) in enumerate(inputs.items()):
            file_name = name if _is_plain(name) else str(index)
            await trio.to_thread.run_sync(_show, path, self.folder / "inputs" / file_name)
            places[name] = f"{self.inputs_at}/{file_name}"
        await self.channel.send({"op": "open", "seed": seed, "inputs": places})


async def start_kernel(
    sandbox: Sandbox,
    image: KernelImage,
    *,
    limits: SessionLimits,
    slot: int,
    scratch: Path | None,
    timeout_s: float,
) -> Kernel:
    """Start `image` in `sandbox` and wait until it says that it is ready.

    Raises:
        RequestFailedError: `sandbox`, with what the sandbox or the kernel had to say.
    """
    try:
        kernel = _spawn(sandbox, image, limits=limits, slot=slot, scratch=scratch)
    except OSError as error:
        raise RequestFailedError("sandbox", f"cannot start a kernel: {error}") from error
    is_ready, last_words = False, ""
    words = f"no kernel within {timeout_s:g} s"
    try:
        with trio.move_on_after(timeout_s):
            frame = await kernel.channel.receive()
            is_ready = isinstance(frame, Ready)
            kernel.version = frame.version if isinstance(frame, Ready) else ""
            kernel.spawned.inner_pid()
    except (PeerUnreachableError, RemoteProtocolError):
        words = "the kernel did not start"
    finally:
        if not is_ready:
            last_words = _last_words(kernel.stderr)
            await kernel.close()
    if not is_ready:
        raise RequestFailedError("sandbox", f"{words}: {last_words}" if last_words else words)
    return kernel


def _spawn(
    sandbox: Sandbox,
    image: KernelImage,
    *,
    limits: SessionLimits,
    slot: int,
    scratch: Path | None,
) -> Kernel:
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-", dir=scratch))
    folders = Folders(inputs=folder / "inputs", job=folder / "job")
    undo = contextlib.ExitStack()
    with undo:
        undo.callback(_remove, folder)
        folders.inputs.mkdir(mode=0o755)
        folders.job.mkdir(mode=0o700)
        # Inside, a dropped uid reads this folder.
        folders.inputs.chmod(0o755)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs, _pipe(undo) as (stdout, stdout_w), _pipe(undo) as (stderr, stderr_w):
            image_fd = _memory_file(image.code)
            try:
                program = (sandbox.interpreter, *image.options, f"/proc/self/fd/{image_fd}")
                launch = sandbox.launch(
                    (*program, str(theirs.fileno())),
                    limits=limits,
                    folders=folders,
                    slot=slot,
                    passed_fds=(theirs.fileno(), image_fd),
                )
                spawned = Spawned(launch, stdout=stdout_w, stderr=stderr_w)
            finally:
                os.close(image_fd)
        undo.pop_all()
    kernel = Kernel(spawned, KernelChannel(ours), (stdout, stderr), folder)
    kernel.inputs_at, kernel.job_at = launch.inputs_at, launch.job_at
    return kernel


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


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("kernel", os.MFD_CLOEXEC)
    os.write(fd, content)
    # A program under another uid opens it by its place in /proc/self/fd.
    os.fchmod(fd, 0o444)
    return fd


def _is_plain(name: str) -> bool:
    """Whether `name` can be a file name: no folder, nothing hidden, no clash with a number."""
    if not name or len(name) > 100 or name[0] in ".-" or name.isdigit():
        return False
    return name.isascii() and all(char.isalnum() or char in "._-" for char in name)


def _show(source: Path, place: Path) -> None:
    """Make `source` readable at `place`: a link where that suffices, else a copy.

    The folder is seen read-only inside, so a link gives nobody more than reading.
    """
    with contextlib.suppress(OSError):
        resolved = source.resolve(strict=True)
        if resolved.stat().st_mode & 0o004:
            os.link(resolved, place)
            return
    shutil.copyfile(source, place)
    place.chmod(0o444)


def _last_words(fd: int) -> str:
    try:
        return os.read(fd, _WORDS_BYTES_MAX).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def remove_leftovers(scratch: Path | None) -> None:
    """Remove the folders of sessions whose node was killed before it could; blocks on disk."""
    for folder in Path(scratch or tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(_FOLDER_PREFIX).partition("-")[0]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            _remove(folder)
        except (ValueError, PermissionError):
            continue


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
