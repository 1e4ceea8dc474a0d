"""The host's end of a fork server: it asks for sessions and hears of their ends.

The other end is `kernels/fork_server.py`, in the sandbox. What comes from there was written by our
own code, never by a cell: a session does not hold this socket. It is started when it is first
needed, and again when it died.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import structlog
import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.repl.kernel_images import PYTHON_OPTIONS, code_of, memory_file, program_of
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.process_tree import Weight, kill_pidfd, weigh
from kowalski.node.repl.sandbox import ForkingSandbox, LostAtStartError
from kowalski.node.repl.spawned import Spawned
from kowalski.node.repl.work_folders import Storage, WorkFolders
from kowalski.protocol.errors import RequestFailedError

log = structlog.get_logger(__name__)

_START_S = 20.0
_END_S = 2.0
_MESSAGE_BYTES_MAX = 64 * 1024
_WORDS_BYTES_MAX = 2000
_KILLED = 137


class Forked:
    """A `process_tree.ProcessTree` whose first process is a child of the fork server."""

    def __init__(self, server: _Server, number: int, pidfd: int, storage: Storage) -> None:
        self._server = server
        self._storage = storage
        self._number = number
        self._pidfd: int | None = pidfd
        self._pid = _pid_of(pidfd)
        self._code: int | None = None
        self._ended = trio.Event()

    @property
    def exit_code(self) -> int | None:
        """See `ProcessTree.exit_code`."""
        return self._code

    async def wait_dead(self) -> None:
        """See `ProcessTree.wait_dead`."""
        await self._ended.wait()

    def kill(self) -> None:
        """See `ProcessTree.kill`."""
        if self._code is None:
            kill_pidfd(self._pidfd)
            if not self._server.owns_pids:
                self._server.kill(self._number)

    def weight(self, limits: SessionLimits) -> Weight:
        """See `ProcessTree.weight`."""
        if self._pid is None:
            return Weight(0, 0)
        return weigh(self._pid, limits, self.root(), self._storage)

    def root(self) -> Path | None:
        """See `ProcessTree.root`."""
        if not self._server.owns_pids:
            return Path("/")
        return None if self._pid is None else Path(f"/proc/{self._pid}/root")

    def close(self) -> None:
        """See `ProcessTree.close`."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def has_ended(self, code: int) -> None:
        """Told by the server, once nothing is left of it."""
        self._code = code
        self._ended.set()


@dataclass(slots=True)
class _Waiting:
    """Who asked for a session; `forked` or `why` is set before `answered`."""

    storage: Storage
    answered: trio.Event
    forked: Forked | None = None
    why: str = ""


class _Server:
    """One process; it dies once."""

    def __init__(
        self, spawned: Spawned, control: socket.socket, words: int, *, owns_pids: bool
    ) -> None:
        self.owns_pids = owns_pids
        self.ready = trio.Event()
        self._spawned = spawned
        self._control = control
        self._words = words
        self._buried = trio.Event()
        self._next = 0
        self._waiting: dict[int, _Waiting] = {}
        self._alive: dict[int, Forked] = {}
        self.is_dead = False

    async def fork(
        self, kernel: str, order: Mapping[str, object], fds: tuple[int, ...], storage: Storage
    ) -> Forked:
        self._next += 1
        number = self._next
        message = json.dumps({**order, "op": "start", "id": number, "kernel": kernel}).encode()
        waiting = self._waiting[number] = _Waiting(storage, trio.Event())
        try:
            await self._send(message, fds)
            await waiting.answered.wait()
        except BaseException:
            if waiting.forked is not None:
                _drop(waiting.forked)
            raise
        finally:
            # A session that comes when nobody waits any more is dropped.
            self._waiting.pop(number, None)
        if waiting.forked is None and self.is_dead:
            raise LostAtStartError("sandbox", f"cannot start a kernel: {waiting.why}")
        if waiting.forked is None:
            raise RequestFailedError("sandbox", f"cannot start a kernel: {waiting.why}")
        return waiting.forked

    async def _send(self, message: bytes, fds: tuple[int, ...]) -> None:
        while True:
            try:
                socket.send_fds(self._control, [message], fds)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._control)
            except OSError as error:
                raise LostAtStartError("sandbox", f"the fork server is gone: {error}") from error
            else:
                return

    def kill(self, number: int) -> None:
        """Also what has left its first process behind, where no namespace sees to that."""
        with contextlib.suppress(OSError):
            self._control.send(json.dumps({"op": "kill", "id": number}).encode())

    async def listen(self) -> None:
        """Until it is gone, and all that it forked."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._control)
                data, fds, _, _ = socket.recv_fds(
                    self._control, _MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC
                )
                if not data:
                    return
                self._hear(json.loads(data), fds)
        except (OSError, trio.ClosedResourceError) as error:
            log.debug("fork-server-unheard", why=str(error))
        finally:
            await self._bury()

    def _hear(self, message: Mapping[str, object], fds: list[int]) -> None:
        number = message.get("id")
        waiting = self._waiting.get(number) if isinstance(number, int) else None
        match message["op"]:
            case "ready":
                self.ready.set()
            case "started" if isinstance(number, int):
                storage = WorkFolders(()) if waiting is None else waiting.storage
                forked = self._alive[number] = Forked(self, number, fds[0], storage)
                if waiting is None:
                    _drop(forked)
                else:
                    waiting.forked = forked
                    waiting.answered.set()
            case "failed" if waiting is not None:
                waiting.why = str(message["why"])
                waiting.answered.set()
            case "ended" if isinstance(number, int):
                self._alive.pop(number).has_ended(int(str(message["code"])))
            case _:
                pass  # told of a session that nobody waits for

    def last_words(self) -> str:
        """What it said on stderr, as far as it is there."""
        try:
            return os.read(self._words, _WORDS_BYTES_MAX).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    async def _bury(self) -> None:
        self.is_dead = True
        with trio.CancelScope(shield=True):
            self._spawned.kill()
            with trio.move_on_after(_END_S):
                await self._spawned.wait_dead()
        for waiting in self._waiting.values():
            waiting.why = f"the fork server died: {self.last_words() or 'without a word'}"
            waiting.answered.set()
        for forked in self._alive.values():
            forked.kill()
            forked.has_ended(_KILLED)
        self._alive.clear()
        self.ready.set()
        trio.lowlevel.notify_closing(self._control)
        self._control.close()
        self._buried.set()

    async def close(self) -> None:
        self._spawned.kill()
        await self._buried.wait()
        self._spawned.close()
        os.close(self._words)


class ForkServer:
    """Made by `open_fork_server`."""

    def __init__(
        self,
        sandbox: ForkingSandbox,
        kernels: Mapping[str, CodeType],
        scratch: Path,
        nursery: trio.Nursery,
    ) -> None:
        self._sandbox = sandbox
        self._kernels = dict(kernels)
        self._scratch = scratch
        self._nursery = nursery
        self._server: _Server | None = None
        self._starting = trio.Lock()

    async def fork(
        self, kernel: str, order: Mapping[str, object], fds: tuple[int, ...], storage: Storage
    ) -> Forked:
        """A session that runs `kernel` with `fds` as channel, stdout and stderr.

        They are the caller's to close.

        Raises:
            LostAtStartError: the server died before it had answered.
            RequestFailedError: `sandbox`, with what the server or the system had to say.
        """
        async with self._starting:
            if self._server is None or self._server.is_dead:
                if self._server is not None:
                    log.warning("fork-server-died", words=self._server.last_words())
                    await self._server.close()
                    self._server = None
                self._server = await self._start()
        return await self._server.fork(kernel, order, fds, storage)

    async def _start(self) -> _Server:
        try:
            server = self._spawn()
        except OSError as error:
            raise RequestFailedError("sandbox", f"cannot start a fork server: {error}") from error
        self._nursery.start_soon(server.listen)
        with trio.move_on_after(_START_S):
            await server.ready.wait()
            if not server.is_dead:
                return server
        words = server.last_words() or f"no word within {_START_S:g} s"
        with trio.CancelScope(shield=True):
            await server.close()
        raise RequestFailedError("sandbox", f"the fork server did not start: {words}")

    def _spawn(self) -> _Server:
        plan = self._sandbox.plan(self._scratch)
        settings = {**plan.settings, "kernels": self._kernels, "parent": os.getpid()}
        with contextlib.ExitStack() as done, contextlib.ExitStack() as undo:
            image = memory_file(program_of(code_of(plan.parts)))
            done.callback(os.close, image)
            told = memory_file(marshal.dumps(settings))
            done.callback(os.close, told)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            done.enter_context(theirs)
            undo.enter_context(ours)
            ours.setblocking(False)
            words, words_w = os.pipe()
            done.callback(os.close, words_w)
            undo.callback(os.close, words)
            os.set_blocking(words, False)
            program = (
                *(self._sandbox.interpreter, *PYTHON_OPTIONS, f"/proc/self/fd/{image}"),
                *(str(theirs.fileno()), str(told)),
            )
            launch = self._sandbox.launch_server(
                program, scratch=self._scratch, passed_fds=(image, told, theirs.fileno())
            )
            nowhere = os.open(os.devnull, os.O_WRONLY)
            done.callback(os.close, nowhere)
            spawned = Spawned(launch, stdout=nowhere, stderr=words_w)
            undo.pop_all()
        return _Server(spawned, ours, words, owns_pids=self._sandbox.owns_pids)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None


@asynccontextmanager
async def open_fork_server(
    sandbox: ForkingSandbox, kernels: Mapping[str, CodeType], scratch: Path
) -> AsyncIterator[ForkServer]:
    """Leaving the block ends the server and all that it forked."""
    async with open_plain_nursery() as nursery:
        server = ForkServer(sandbox, kernels, scratch, nursery)
        try:
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await server.close()
            nursery.cancel_scope.cancel()


def _drop(forked: Forked) -> None:
    forked.kill()
    forked.close()


def _pid_of(pidfd: int) -> int | None:
    """As this process counts, whatever namespace the other lives in (pidfd_open(2), fdinfo)."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pid":
            return int(value) if int(value) > 0 else None
    return None
