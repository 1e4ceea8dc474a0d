"""The control socket of a running node: only its owner can reach it, one request a connection.

It moves requests to verbs and their events and results back, and maps errors to what the command
line shows. What the verbs do is `kowalski.node.verbs`'; the lines are `control_line`'s.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from kowalski.node import control_line, places
from kowalski.node.control_line import ExitCode
from kowalski.protocol.errors import (
    ConfigError,
    KowalskiError,
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)

Emit = Callable[[dict[str, object]], Awaitable[None]]
"""Sends one event to the asker; waits while the asker reads slowly."""

Verb = Callable[[dict[str, object], Emit], Awaitable[dict[str, object]]]
"""Answers one request. Cancelled when the asker hangs up; may raise any KowalskiError."""


class Listening(Protocol):
    """Told once the socket listens: what `nursery.start` passes."""

    def started(self) -> None: ...


_READ_BYTES = 1 << 16

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one control socket will bear."""

    connections: int = 32
    request_timeout_s: float = 10.0
    # An asker that pauses its output (a pager) holds back the verb this long, then is hung up on.
    write_timeout_s: float = 120.0


class NodeRunningError(ConfigError):
    """Another node lives in the data directory."""


@contextmanager
def claim_data_dir(data_dir: Path) -> Iterator[None]:
    """Make `data_dir` ours until the block ends; made if missing, open to nobody else.

    The claim is a lock of the kernel, so that it dies with its process however that ends.

    Raises:
        NodeRunningError: another node lives there.
        ConfigError: it cannot be made or written.
    """
    path = places.lock_path(data_dir)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"data_dir {data_dir}: {_reason(error)}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise NodeRunningError(
                f"a node is already running (pid {pid}) in {data_dir}"
            ) from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        # The file stays: removing it would let two nodes lock two files of one name.
        yield
    finally:
        os.close(descriptor)


async def serve_control(
    path: Path,
    verbs: Mapping[str, Verb],
    *,
    limits: Limits | None = None,
    task_status: Listening = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests at the unix socket `path` until cancelled; started once it listens.

    Raises:
        ConfigError: a node answers there already, or the place cannot be used.
    """
    limits = limits or Limits()
    with _listening(path) as listener:
        slots = trio.CapacityLimiter(limits.connections)
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                stream = await _accept(listener)
                if stream is not None:
                    nursery.start_soon(_serve_connection, stream, verbs, limits, slots)


async def _accept(listener: trio.socket.SocketType) -> trio.SocketStream | None:
    try:
        connection, _ = await listener.accept()
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}:
            log.warning("control.accept", error=_reason(error))
            await trio.sleep(0.1)  # until somebody closes a file; a tight loop would help nobody
            return None
        if error.errno == errno.ECONNABORTED:
            return None
        raise
    return trio.SocketStream(connection)


@contextmanager
def _listening(path: Path) -> Iterator[trio.socket.SocketType]:
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            _make_directory(path.parent)
            _refuse_if_alive(path)
            with suppress(FileNotFoundError):
                path.unlink()  # what a dead node left
            plain.bind(bytes(path))
            path.chmod(0o600)
            plain.listen(64)
            identity = path.stat()
        except OSError as error:
            raise ConfigError(f"control socket {path}: {_reason(error)}") from error
        plain.setblocking(False)
        listener = trio.socket.from_stdlib_socket(plain)
        try:
            yield listener
        finally:
            # Unless a later node has put its own in the place of ours.
            with suppress(OSError):
                if os.path.samestat(path.stat(), identity):
                    path.unlink()
                    path.parent.rmdir()  # it may lie below /tmp, where nobody else clears up
            listener.close()
    finally:
        plain.close()


def _make_directory(directory: Path) -> None:
    """Only its owner may enter; refused if somebody else made it first (it may lie below /tmp)."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"control directory {directory}: it belongs to somebody else")
    directory.chmod(0o700)


def _refuse_if_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(bytes(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return  # nobody, or the leftovers of the dead
        except OSError as error:
            if error.errno == errno.ENOTSOCK:
                return
            raise
        raise ConfigError(f"a node is already running (pid {_pid_behind(probe)}) at {path}")


def _pid_behind(connection: socket.socket) -> str:
    if not hasattr(socket, "SO_PEERCRED"):
        return "unknown"
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return str(struct.unpack("3i", credentials)[0])


class _Asker:
    """The other end of one connection; lines go out whole, or nothing more goes out."""

    def __init__(self, stream: trio.SocketStream, limits: Limits) -> None:
        self.stream = stream
        self._write_timeout_s = limits.write_timeout_s
        self._turn = trio.Lock()
        self._is_reading = True

    async def tell(self, value: dict[str, object]) -> bool:
        """False: nobody reads any more.

        Raises:
            RequestFailedError: more than 16 MiB.
            TypeError, ValueError: it has no form in JSON.
        """
        line = control_line.encode(value)
        if len(line) > control_line.REPLY_BYTES_MAX:
            raise RequestFailedError("too_large", f"a reply of {len(line)} bytes")
        async with self._turn:
            if not self._is_reading:
                return False
            # Stays false if we are cancelled half-way through the line: no other may follow it.
            self._is_reading = False
            with trio.move_on_after(self._write_timeout_s), suppress(trio.BrokenResourceError):
                await self.stream.send_all(line)
                self._is_reading = True
            return self._is_reading

    async def tell_last(self, reply: dict[str, object]) -> None:
        try:
            await self.tell(reply)
        except RequestFailedError as error:
            await self.tell(error_reply(error))
        except (TypeError, ValueError):
            log.exception("control.reply_has_no_json")
            await self.tell(_internal("the reply"))


async def _serve_connection(
    stream: trio.SocketStream,
    verbs: Mapping[str, Verb],
    limits: Limits,
    slots: trio.CapacityLimiter,
) -> None:
    async with stream:
        asker = _Asker(stream, limits)
        try:
            slots.acquire_on_behalf_of_nowait(asker)
        except trio.WouldBlock:
            full = RequestRefusedError("busy", f"{limits.connections} requests at work", 1.0)
            await asker.tell_last(error_reply(full))
            return
        try:
            await _converse(asker, verbs, limits)
        finally:
            slots.release_on_behalf_of(asker)


async def _converse(asker: _Asker, verbs: Mapping[str, Verb], limits: Limits) -> None:
    try:
        with trio.fail_after(limits.request_timeout_s):
            asked = await _read_request(asker.stream)
    except RemoteProtocolError as error:
        await asker.tell_last(_error("bad_request", str(error), ExitCode.USAGE))
        return
    except trio.TooSlowError:
        await asker.tell_last(_error("bad_request", "no request in time", ExitCode.USAGE))
        return
    except trio.BrokenResourceError:
        return
    if asked is None:
        return
    name, request = asked
    verb = verbs.get(name)
    if verb is None:
        complaint = f"unknown verb {name[:40]!r}"
        await asker.tell_last(_error("unknown_verb", complaint, ExitCode.USAGE))
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_hang_up, asker.stream, nursery.cancel_scope)
        await asker.tell_last(await _answer(asker, name, verb, request, nursery.cancel_scope))
        nursery.cancel_scope.cancel()


async def _read_request(stream: trio.SocketStream) -> tuple[str, dict[str, object]] | None:
    lines = control_line.LineBuffer(control_line.REQUEST_BYTES_MAX)
    while (line := lines.next_line()) is None:
        data = await stream.receive_some(_READ_BYTES)
        if not data:
            return None
        lines.feed(data)
    asked = control_line.decode(line)
    name, request = asked.get("verb"), asked.get("request", {})
    if not isinstance(name, str) or not isinstance(request, dict):
        raise RemoteProtocolError("expected a verb and a request")
    return name, request


async def _cancel_at_hang_up(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some(_READ_BYTES):
            pass  # one request a connection: what follows it is nobody's
    scope.cancel()


async def _answer(
    asker: _Asker,
    name: str,
    verb: Verb,
    request: dict[str, object],
    scope: trio.CancelScope,
) -> dict[str, object]:
    """The last line of the conversation. Whatever a verb raises becomes one; the node goes on."""

    async def emit(event: dict[str, object]) -> None:
        if not await asker.tell({"event": event}):
            scope.cancel()
            await trio.lowlevel.checkpoint()

    try:
        return {"done": await verb(request, emit)}
    except BaseExceptionGroup as group:
        failures, rest = group.split(Exception)
        if rest is not None:
            raise rest from None  # cancellation is not ours to answer
        assert failures is not None
        return _answer_to(name, failures)
    except Exception as error:  # noqa: BLE001 - told to the asker, or logged
        return _answer_to(name, error)


def _answer_to(name: str, error: Exception) -> dict[str, object]:
    """A verb with children of its own raises a group; its first known error is the answer."""
    known, bugs = _only(error, (KowalskiError, trio.TooSlowError))
    if bugs or not known:
        log.error("control.verb_failed", verb=name, exc_info=error)
        return _internal(name)
    if isinstance(known[0], KowalskiError):
        return error_reply(known[0])
    return _error("timeout", f"{name} did not finish in time", ExitCode.FAILED)


def _only(
    error: Exception, kinds: tuple[type[Exception], ...]
) -> tuple[list[Exception], list[Exception]]:
    """The single errors in `error`, which may be a group: those of `kinds`, and the others."""
    known: list[Exception] = []
    others: list[Exception] = []
    waiting: list[Exception] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, ExceptionGroup):
            waiting = [*one.exceptions, *waiting]
        else:
            (known if isinstance(one, kinds) else others).append(one)
    return known, others


_REFUSALS: Mapping[str, ExitCode] = {
    "not_allowed": ExitCode.NOT_ALLOWED,
    "busy": ExitCode.NO_CAPACITY,
    "no_capacity": ExitCode.NO_CAPACITY,
    "no_peer": ExitCode.NO_CAPACITY,
}


def error_reply(error: KowalskiError) -> dict[str, object]:
    """What the asker is told: whose fault it is, and the exit code that says so to scripts."""
    match error:
        case ConfigError():
            return _error("usage", str(error), ExitCode.USAGE)
        case RequestRefusedError():
            reason = error.reason.replace("-", "_")
            hint = (
                None if error.retry_after_s is None else f"try again in {error.retry_after_s:g} s"
            )
            return _error(reason, str(error), _REFUSALS.get(reason, ExitCode.FAILED), hint)
        case RequestFailedError():
            return _error(error.code, str(error), ExitCode.FAILED)
        case PeerUnreachableError():
            return _error("unreachable", str(error), ExitCode.FAILED)
        case _:
            return _error("failed", str(error), ExitCode.FAILED)


def _internal(name: str) -> dict[str, object]:
    hint = "the node has logged what happened"
    return _error("internal", f"{name} failed by a defect of the node", ExitCode.FAILED, hint)


def _error(
    code: str, message: str, exit_code: ExitCode, hint: str | None = None
) -> dict[str, object]:
    return {"error": {"code": code, "message": message, "exit_code": int(exit_code), "hint": hint}}


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
